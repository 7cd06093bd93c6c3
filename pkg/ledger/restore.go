// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"cmp"
	"net/netip"
	"slices"
)

// likeness is what equal rules have in common.
type likeness struct {
	chain    *chain
	kind     Kind
	endpoint netip.AddrPort
	reason   string
	port     Port // of a Refusal; other chains belong to one port
}

func (k *Counter) likeness(ch *chain) likeness {
	l := likeness{chain: ch, kind: k.Kind, endpoint: k.Endpoint, reason: k.Reason}
	if k.Kind == Refusal {
		l.port = k.Port
	}
	return l
}

func (c *counter) likeness() likeness {
	l := likeness{chain: c.chain, kind: c.kind, reason: c.reason}
	if c.ep != nil {
		l.endpoint = c.ep.addr
	}
	if c.kind == Refusal {
		l.port = c.account.name
	}
	return l
}

// carry lets counters live on under the identities that a restored table gives
// their rules: iptables-restore -c makes new rules with the old values, which
// would count twice. A counter that stands below its last value was saved
// before that was read; the packets since are lost to the save.
func (s *source) carry(r *Reading, rd *round) {
	doubt := r.Cover != nil && r.Witnesses == nil && len(s.witnesses) > 0
	restored := s.restoredBy(r)
	for table := range restored {
		s.restored[table] = rd.round
	}
	if r.Listening || len(s.restored) == 0 && !doubt {
		return
	}
	news := make([]int, 0, 16)
	for i, sl := range s.slots {
		if sl.c == nil && (doubt || s.restored[sl.chain.name.Table] > sl.chain.before) {
			news = append(news, i)
		}
	}
	if len(news) == 0 {
		return
	}
	slices.SortFunc(news, func(a, b int) int {
		return cmp.Compare(r.Counters[a].ID.RuleHandle, r.Counters[b].ID.RuleHandle)
	})
	gone := s.missing(rd.round)
	for _, i := range news {
		k, sl := &r.Counters[i], &s.slots[i]
		like := k.likeness(sl.chain)
		olds := gone[like]
		if len(olds) == 0 {
			// Nothing tells which rule it was before whose port is not known.
			sl.nameless = k.Kind == Refusal && k.Port == Port{}
			continue
		}
		c := olds[0]
		if s.restored[sl.chain.name.Table] <= sl.chain.before {
			if k.Packets == 0 || k.Packets < c.last-min(c.last, k.Packets) {
				continue
			}
			rd.gone(c) // or it may be new after all
		}
		gone[like] = olds[1:]
		c.id, c.seen, c.place = identOf(&k.ID), rd.round, int32(i)
		c.last = min(c.last, k.Packets)
		if c.kind == External {
			// Should it be new, counters that look restored have its connections.
			now := c.account.split.told()
			now.baseE += c.last
			now.carried = restored[k.ID.Table] <= 4*strong
		}
		sl.c = c
		rd.lose(c)
	}
}

// restoredBy returns the tables of which every witness was replaced by an
// equal rule, with values that go on from the old ones, or nearly: they may
// have been saved before the last reading. Rules that are made anew start at
// 0, and pass half of what all the old ones have counted in their lives only
// where that was next to nothing: it is returned by table. Where the old ones had
// counted little, a few more may be more than half of it: they came between the save and the
// last reading. Rather some packets are lost than counted twice.
func (s *source) restoredBy(r *Reading) map[string]uint64 {
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
	tables := make(map[string]uint64)
	for name, t := range sums {
		if !kept[name] && t.after > 0 && t.before-min(t.before, t.after) <= max(t.after, strong) {
			tables[name] = t.before
		}
	}
	return tables
}

// witness keeps the reading's witnesses for the next one, but for those of
// tables in which values are in doubt; those of tables that a partial reading
// has none of stay.
func (s *source) witness(r *Reading) {
	if r.Cover == nil && len(s.held) == 0 {
		s.witnesses = r.Witnesses
		return
	}
	told := make(map[string]bool)
	for _, w := range r.Witnesses {
		told[w.ID.Table] = !s.held[w.ID.Table]
	}
	stays := func(w Witness) bool {
		return s.held[w.ID.Table] || r.Cover != nil && !told[w.ID.Table]
	}
	var next []Witness
	for _, w := range s.witnesses {
		if stays(w) {
			next = append(next, w)
		}
	}
	for _, w := range r.Witnesses {
		if told[w.ID.Table] {
			next = append(next, w)
		}
	}
	s.witnesses = next
}

// missing returns the counters of visited chains that the round's reading does
// not hold, by what they count, equal ones in the order of their rules.
func (s *source) missing(round uint64) map[likeness][]*counter {
	gone := make(map[likeness][]*counter)
	for _, ch := range s.visits {
		if ch.complete(round) {
			continue
		}
		for _, c := range ch.counters {
			if c.seen != round {
				gone[c.likeness()] = append(gone[c.likeness()], c)
			}
		}
	}
	for _, cs := range gone {
		slices.SortFunc(cs, func(a, b *counter) int { return cmp.Compare(a.id.lo, b.id.lo) })
	}
	return gone
}
