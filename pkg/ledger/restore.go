// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"cmp"
	"slices"
)

// carry lets counters live on under the identities that a restored table gives
// their rules: iptables-restore -c makes new rules with the old values, which
// would count twice. A counter that stands below its last value was saved
// before that was read; the packets since are lost to the save.
func (s *source) carry(r *Reading) {
	tables := s.restored(r)
	s.witnesses = r.Witnesses
	if len(tables) == 0 {
		return
	}
	gone := s.missing(r, tables)
	for _, k := range slices.SortedFunc(slices.Values(r.Counters), func(a, b Counter) int {
		return cmp.Compare(a.ID.RuleHandle, b.ID.RuleHandle)
	}) {
		olds := gone[k.meaning()]
		if s.counters[k.ID] != nil || !tables[k.ID.Table] || len(olds) == 0 {
			continue
		}
		gone[k.meaning()] = olds[1:]
		c := s.counters[olds[0]]
		delete(s.counters, olds[0])
		s.counters[k.ID] = c
		c.last = min(c.last, k.Packets)
	}
}

// restored returns the tables of which every witness was replaced by an equal
// rule, with values that go on from the old ones. Rules that are made anew
// start at 0, and pass what all the old ones have counted in their lives only
// where that was next to nothing.
func (s *source) restored(r *Reading) map[string]bool {
	type sum struct{ before, after uint64 }
	sums := make(map[string]sum)
	kept := make(map[string]bool)
	for _, w := range r.Witnesses {
		i := slices.IndexFunc(s.witnesses, func(old Witness) bool {
			return old.ID.Table == w.ID.Table && old.Rule == w.Rule
		})
		if i < 0 {
			continue
		}
		if slices.ContainsFunc(s.witnesses, func(old Witness) bool { return old.ID == w.ID }) {
			kept[w.ID.Table] = true
		}
		t := sums[w.ID.Table]
		sums[w.ID.Table] = sum{t.before + s.witnesses[i].Packets, t.after + w.Packets}
	}
	tables := make(map[string]bool)
	for name, t := range sums {
		if !kept[name] && t.after > 0 && t.after >= t.before {
			tables[name] = true
		}
	}
	return tables
}

// missing returns the counters of tables that r does not hold any more, by
// what they count, equal ones in the order of their rules.
func (s *source) missing(r *Reading, tables map[string]bool) map[meaning][]ID {
	held := make(map[ID]bool, len(r.Counters))
	for i := range r.Counters {
		held[r.Counters[i].ID] = true
	}
	gone := make(map[meaning][]ID)
	for id, c := range s.counters {
		if tables[id.Table] && !held[id] {
			gone[c.meaning] = append(gone[c.meaning], id)
		}
	}
	for _, ids := range gone {
		slices.SortFunc(ids, func(a, b ID) int { return cmp.Compare(a.RuleHandle, b.RuleHandle) })
	}
	return gone
}
