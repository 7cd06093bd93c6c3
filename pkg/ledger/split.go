// SPDX-License-Identifier: Apache-2.0

package ledger

// split divides the connections of one port in one source by the way they
// came in. Connections and externals are never read at one instant, so the
// cluster's share is a lower bound that catches up: with t read before e,
// t-e counts no external connection.
type split struct {
	// Since the epoch: the last time when all counters started from 0.
	t, e    uint64 // Σ deltas of Connection and External counters
	cluster uint64 // what was given out as cluster
	unknown uint64 // connections whose externals were lost with a reset

	hold hold
	tally
}

// hold is what was known when counters of the port began to be in doubt.
type hold struct {
	since uint64 // the reading; 0 while nothing is held
	t, e  uint64
	open  uint64 // connections not given to either way
	preE  uint64 // what External counters that did not fall stood at
	keptT uint64 // connections since, by counters that did not fall
}

// tally is what one reading tells of one port.
type tally struct {
	dT, dE         uint64
	keptT          uint64 // part of dT from counters that kept their incarnation
	valueT, valueE uint64 // Σ of all values
	preE           uint64 // Σ last values of External counters that kept theirs
	kept           bool   // some counter with packets kept its incarnation
	lostT, lostE   bool   // some counter was reset or is gone
	held           bool
	hasE           bool
}

// add notes one counter's step; last is the value before it, serial the
// reading's number.
func (s *split) add(c *counter, st step, serial uint64) {
	since := serial
	if s.hold.since != 0 {
		since = s.hold.since
	}
	kept := st.change == grown && c.alive != 0 && c.alive < since
	s.kept = s.kept || kept
	s.held = s.held || st.change == held
	if c.kind == Connection {
		s.dT += st.delta
		s.valueT += c.last
		s.lostT = s.lostT || st.change == reset
		if kept {
			s.keptT += st.delta
		}
		return
	}
	s.hasE = true
	s.dE += st.delta
	s.valueE += c.last
	s.lostE = s.lostE || st.change == reset
	if kept {
		s.preE += st.before
	}
}

// gone notes that a counter is no longer in the kernel.
func (s *split) gone(k Kind) {
	s.lostT = s.lostT || k == Connection
	s.lostE = s.lostE || k == External
}

// settle closes a reading. It returns what to add to the cluster's and the
// externals' totals, and whether connections are left undecided.
func (s *split) settle(r *Reading, serial uint64) (cluster, external uint64, pending bool) {
	now, before := s.tally, s.t
	s.tally = tally{}
	if s.hold.since == 0 {
		s.hold = hold{t: s.t, e: s.e, open: s.open(), preE: now.preE}
	}
	s.t += now.dT
	s.e += now.dE
	s.hold.keptT += now.keptT
	if now.held {
		// Either side may be stale: decide nothing.
		if s.hold.since == 0 {
			s.hold.since = serial
		}
		return 0, now.dE, false
	}
	then := s.hold
	s.hold = hold{}
	first := r.ConnectionsFirst || !now.hasE
	switch {
	case (now.lostT || now.lostE) && !now.kept:
		// All counters started anew with one commit: so does the account.
		s.t, s.e, s.cluster, s.unknown = now.valueT, now.valueE, 0, 0
		before = 0
	case now.lostE || now.lostT && r.Dips:
		s.unknown += s.ambiguous(r, &now, &then)
	}
	if first {
		before = s.t
	}
	if low := s.e + s.unknown + s.cluster; before > low {
		cluster = before - low
		s.cluster += cluster
	}
	return cluster, now.dE, now.hasE && s.open() > 0
}

// ambiguous returns how many connections may have been external ones whose
// External counter is lost, when only some counters of the port were reset.
func (s *split) ambiguous(r *Reading, now *tally, then *hold) uint64 {
	var n uint64
	if now.lostE {
		n = then.open + then.keptT
	}
	// Without handles, a counter that was reset and has passed its old value
	// looks as if it had kept its incarnation, and hides as many packets as
	// it stood at.
	dT, dE := s.t-then.t, s.e-then.e
	if r.Dips && dT > dE {
		n += min(then.preE, dT-dE)
	}
	return n
}

// open returns the connections counted but not given to either way.
func (s *split) open() uint64 {
	if low := s.e + s.unknown + s.cluster; s.t > low {
		return s.t - low
	}
	return 0
}
