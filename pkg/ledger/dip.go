// SPDX-License-Identifier: Apache-2.0

package ledger

import "time"

// libiptc replaces a table of x_tables with one whose counters are all zero, and
// adds the old values of the rules that it keeps in a second call. In between,
// mostly some microseconds, a reading finds every counter of the table in a dip.
const (
	// dipMost is how many packets may pass a rule within a dip, and dipFlood how
	// many do where the node is busy and the writer has to wait for a processor.
	dipMost, dipFlood = 4, 100
	// dipLooks is how many readings in a row, each so many milliseconds after the
	// one before, must confirm falls that look like a dip. Two dips in a row must
	// not pass for a reset, because all that was counted before would be counted
	// again.
	dipLooks, dipMillis = 3, 100
	// While a writer is at work it takes more: what is read after it tells.
	writingFlood, writingLooks = 10 * dipFlood, 10
)

// standing is how a table of x_tables stands in a reading; the zero value is
// that of one in which values that fell were reset for certain.
type standing struct {
	needed   uint32 // how many readings in a row must confirm a fall
	at       uint32 // milliseconds since the source's first reading
	restored bool   // values that fell may be older ones that were restored
	unsure   bool   // no witness tells
}

// stand returns the standing of each table in r. Within a dip no counter stands
// where it did, neither: one that does, and has counted more than may pass within
// a dip, tells that those which fell were reset. kube-proxy's own syncs leave the
// witnesses as they are, and so tell at once.
func (s *source) stand(r *Reading, now time.Time) map[string]standing {
	if !r.Dips {
		return nil
	}
	tables := make(map[string]*standTally)
	of := func(table string) *standTally {
		t := tables[table]
		if t == nil {
			t = new(standTally)
			tables[table] = t
		}
		return t
	}
	for i := range r.Witnesses {
		w := &r.Witnesses[i]
		if old := s.stood(w); old != nil {
			of(w.ID.Table).witness(old.Packets, w.Packets)
		}
	}
	for i := range r.Counters {
		// Dispatch counters are reset at every sync.
		if c := s.slots[i].c; c != nil && c.kind != Dispatch {
			of(r.Counters[i].ID.Table).counter(c, r.Counters[i].Packets)
		}
	}
	stand := make(map[string]standing, len(tables))
	for name, t := range tables {
		st := t.standing(r.Writing[name])
		st.at = uint32(now.Sub(s.start).Milliseconds())
		stand[name] = st
	}
	return stand
}

// stood returns the witness as the last reading without a doubt had it, or nil.
func (s *source) stood(w *Witness) *Witness {
	for i := range s.witnesses {
		if s.witnesses[i].ID == w.ID {
			return &s.witnesses[i]
		}
	}
	return nil
}

// standTally is what the counters of a table tell of its standing.
type standTally struct {
	stands        uint64 // the highest value that stands where it did, or higher
	before, after uint64 // Σ witnesses
	fallen        uint64 // Σ values of Connection and Refusal counters that fell
}

func (t *standTally) witness(before, after uint64) {
	t.before, t.after = t.before+before, t.after+after
	if after >= before {
		t.stands = max(t.stands, before)
	}
}

func (t *standTally) counter(c *counter, value uint64) {
	switch {
	case value >= c.last:
		t.stands = max(t.stands, c.last)
	case c.kind != External:
		t.fallen += value
	}
}

func (t *standTally) standing(writing bool) standing {
	var st standing
	switch {
	case writing && t.stands <= writingFlood:
		st.needed = writingLooks
	case t.stands > dipFlood:
	case t.stands > dipMost:
		st.needed = 1
	default:
		st.needed = dipLooks
	}
	// What counters have counted since they were reset has passed the witnesses
	// since the last reading, or since these were reset, too.
	passed := t.after
	if t.after >= t.before {
		passed -= t.before
	}
	halved := t.after < t.before && t.after >= t.before-t.after
	st.unsure = t.before == 0
	st.restored = !st.unsure && (halved || t.fallen > passed+dipMost)
	return st
}
