// SPDX-License-Identifier: Apache-2.0

package ledger

// split divides the connections of one port in one source by the way they
// came in. Connections and externals are never read at one instant, so the
// cluster's share is a lower bound that catches up: with t read before e,
// t-e counts no external connection.
type split struct {
	// Since the epoch: the last time when all counters started anew.
	t, e    uint64 // Σ deltas of Connection and External counters
	d       uint64 // Σ deltas of Dispatch counters
	behind  bool   // d lacks what they had counted when they were reset
	cluster uint64 // what was given out as cluster
	unknown uint64 // connections whose externals were lost with a reset
	late    uint64 // externals of the last reading: it may lack their connections
	ghosts  uint64 // externals while the Service was gone: rules without a name may have their connections

	hold *hold  // nil while nothing is in doubt
	now  *tally // of the round at hand; nil while it has told nothing
}

// hold is what was known when counters of the port began to be in doubt.
type hold struct {
	since uint64 // the reading
	t, e  uint64
	open  uint64 // connections not given to either way
	preE  uint64 // what External counters that did not fall stood at
	keptT uint64 // connections since, by counters that did not fall
	lostT bool   // some counter is gone since
	lostE bool
}

// tally is what one reading tells of one port.
type tally struct {
	dT, dE, dD     uint64
	keptT          uint64 // part of dT from counters that kept their incarnation
	valueT, valueE uint64 // Σ of all values
	baseE          uint64 // Σ bases of External counters that are new incarnations
	baseT          uint64 // Σ bases of Connection counters
	preE           uint64 // Σ last values of External counters that kept theirs
	kept           bool   // some counter with packets kept its incarnation
	lostT, lostE   bool   // some counter was reset or is gone
	held           bool
	reused         bool // a counter was reset, or may be, under its identity
	resetD, freshD bool // a Dispatch counter was reset, or is new
	any            bool // a counter was read, or is lost or ended
	nT, nE         int  // counters read
	endedE         bool // an External counter has its final value
	carried        bool // External counters live on in a restored table
	early          bool // External counters were read after Connection counters
	mixed          bool // and a Connection counter's may be younger
}

// told returns what the round has told so far.
func (s *split) told() *tally {
	if s.now == nil {
		s.now = &tally{}
	}
	return s.now
}

// taken returns what the round has told, and ends it.
func (s *split) taken() (now tally) {
	if s.now != nil {
		now, s.now = *s.now, nil
	}
	return now
}

// add notes one counter's step; c.last is the value after it.
func (s *split) add(c *counter, st step, round uint64) {
	now := s.told()
	if c.kind == Dispatch {
		now.dD += st.delta
		now.resetD = now.resetD || st.change == reset
		now.freshD = now.freshD || st.change == fresh
		return
	}
	since := round
	if s.hold != nil {
		since = s.hold.since
	}
	// A handle outlives no rewrite; elsewhere a counter that had no packets
	// looks the same after one.
	kept := st.change == grown && (c.id.handle || c.alive != 0 && c.alive < since)
	now.any = true
	now.kept = now.kept || kept
	now.held = now.held || st.change == held
	now.reused = now.reused || st.change == reset
	if c.kind == Connection {
		now.nT++
		now.dT += st.delta
		now.valueT += c.last
		now.baseT += c.base
		now.lostT = now.lostT || st.change == reset
		if kept {
			now.keptT += st.delta
		}
		return
	}
	now.nE++
	now.dE += st.delta
	now.valueE += c.last
	now.lostE = now.lostE || st.change == reset
	if kept {
		now.preE += st.before
	} else {
		now.baseE += c.base
	}
}

// gone notes that a counter is no longer in the kernel, and its last packets
// are not known.
func (s *split) gone(k Kind) {
	now := s.told()
	now.any = true
	now.lostT = now.lostT || k == Connection
	now.lostE = now.lostE || k == External
}

// end notes the last packets of a counter that is no longer in the kernel, in
// the order in which the kernel read the final values.
func (s *split) end(k Kind, delta uint64) {
	now := s.told()
	now.any = true
	if k == Connection {
		now.dT += delta
		now.mixed = now.mixed || now.endedE
		return
	}
	now.dE += delta
	now.endedE = true
}

// settle closes a reading. It returns what to add to the cluster's and the
// externals' totals, and whether connections are left undecided. Rules of a
// Service that is gone may have no name: while there are such External
// counters its connections wait.
func (s *split) settle(r *Reading, a *account, round uint64, nameless bool) (cluster, external uint64, pending bool) {
	now, before := s.taken(), s.t
	if !now.any {
		return 0, 0, false
	}
	then := hold{t: s.t, e: s.e, open: s.open(), preE: now.preE}
	if s.hold != nil {
		then = *s.hold
	}
	s.t += now.dT
	s.e += now.dE
	s.d += now.dD
	s.late = now.dE
	then.keptT += now.keptT
	now.lostT, now.lostE = now.lostT || then.lostT, now.lostE || then.lostE
	if now.held {
		then.lostT, then.lostE = now.lostT, now.lostE
		// Either side may be stale: decide nothing.
		if s.hold == nil {
			then.since = round
		}
		s.hold = &then
		return 0, now.dE, false
	}
	now.reused, now.early = now.reused || r.Dips, r.ConnectionsFirst
	s.hold = nil
	all := now.nT == a.live[Connection] && now.nE == a.live[External]
	switch {
	case (now.lostT || now.lostE) && !now.kept && all:
		// All counters started anew with one commit: so does the account.
		s.t, s.e, s.d, s.cluster, s.unknown = now.valueT, now.valueE, 0, 0, 0
		if now.resetD || now.freshD {
			s.d = now.dD
		}
		s.behind, now.resetD = false, false
		before = 0
		s.cluster = min(s.open(), now.baseT) // credited to nobody
	case now.lostE || now.lostT && now.reused || now.baseE > 0:
		s.unknown += s.ambiguous(&now, &then)
	}
	if now.nE < a.live[External] || nameless && a.port != nil && a.port.gone {
		return 0, now.dE, false // some externals are not read yet
	}
	certain := r.ConnectionsFirst || now.nE == 0
	if certain {
		before = s.t
	}
	s.behind = s.behind || now.resetD
	cluster = s.give(before)
	if !certain {
		cluster += s.dispatch()
	}
	return cluster, now.dE, now.nE > 0 && s.open() > 0
}

// dispatch returns how many more connections have come by the cluster's address
// as Dispatch counters tell, which may have come again after a reset: where all
// that the reading before had is given out, they have told of it by now.
func (s *split) dispatch() uint64 {
	if s.behind && s.open() == 0 {
		s.d, s.behind = max(s.d, s.cluster), false
	}
	n := min(s.d-min(s.d, s.cluster), s.open())
	s.cluster += n
	return n
}

// finish closes a commit, of which a.live counts what is left of the port's
// counters. Connections whose externals still count, or may under no name yet,
// wait for a reading.
func (s *split) finish(a *account, inFlight uint64, nameless bool) (cluster, external uint64) {
	now := s.taken()
	s.t += now.dT
	s.e += now.dE
	if now.mixed || now.endedE && a.live[Connection] > 0 {
		s.unknown += inFlight
	}
	if s.hold != nil || a.live[External] > 0 || nameless {
		return 0, now.dE
	}
	return s.give(s.t), now.dE
}

// give returns how many more of n connections have come by the cluster's
// address for certain.
func (s *split) give(n uint64) uint64 {
	low := s.e + s.unknown + s.cluster
	if n <= low {
		return 0
	}
	s.cluster += n - low
	return n - low
}

// ambiguous returns how many connections may have been external ones whose
// External counter is lost, when only some counters of the port were reset.
func (s *split) ambiguous(now *tally, then *hold) uint64 {
	var n uint64
	if now.lostE {
		n = then.open + then.keptT
	}
	// What External counters began with is credited to nobody, other than the
	// packets of new Connection counters.
	fresh := s.t - then.t
	if !now.carried {
		fresh -= then.keptT
	}
	switch {
	case fresh > 0 && now.early:
		n += now.baseE // their connections may be read the next time
	default:
		n += min(now.baseE, fresh)
	}
	// A counter that was reset under its identity and has passed its old
	// value, now or while others were in doubt, looks as if it had kept its
	// incarnation, and hides as many packets as it stood at.
	dT, dE := s.t-then.t, s.e-then.e
	if now.reused && dT > dE {
		n += min(max(then.preE, now.preE), dT-dE)
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
