// SPDX-License-Identifier: Apache-2.0

package ruleset

import (
	"slices"
	"strings"

	"github.com/svcscope/svcscope/pkg/netfilter/nftables"
)

// commitHeads brings tables and chains up to date. Chains that are new, or
// that were made anew, have no rules until they are read.
func (s *Stage) commitHeads(d *deltas) {
	m := s.mirror
	m.set.Generation = s.generation
	tables := make([]*Table, 0, len(s.tables))
	for _, head := range s.tables {
		old := m.set.Table(head.Name)
		if old != nil && old.Handle != head.Handle {
			m.drop(old, d)
			old = nil
		}
		tables = append(tables, m.table(head, old, d))
	}
	for _, old := range m.set.Tables {
		if !slices.ContainsFunc(tables, func(t *Table) bool { return t.Name == old.Name }) {
			m.drop(old, d)
		}
	}
	m.set.Tables = tables
}

// drop forgets a table that is gone.
func (m *Mirror) drop(t *Table, d *deltas) {
	for _, c := range t.Chains {
		d.of(t.Name).Gone = append(d.of(t.Name).Gone, c.Name)
		m.keep(c, nil)
	}
}

// table makes a table of what exists and what is known of it.
func (m *Mirror) table(head *nftables.TableContent, old *Table, d *deltas) *Table {
	conv := NewConverter(m.set.Family) // it copies names out of the reading's memory
	chains := make([]*Chain, 0, len(head.Chains))
	same := old != nil && len(old.Chains) == len(head.Chains)
	delta := d.of(head.Name)
	next := 0
	for i := range head.Chains {
		h := &head.Chains[i].Chain
		var known *Chain
		known, next = old.ChainNear(next, h.Name)
		if known != nil && known.Handle == h.Handle {
			if known.Use != h.Use {
				known.Use = h.Use
				delta.Resized = true
			}
			chains = append(chains, known)
			same = same && old.Chains[i] == known
			continue
		}
		if known != nil {
			m.keep(known, nil)
		}
		c := conv.NFTChainHead(h)
		c.Name, c.Unread = strings.Clone(c.Name), true
		chains = append(chains, c)
		delta.Changed = append(delta.Changed, c)
		same = false
	}
	if same {
		return old
	}
	t := NewTable(strings.Clone(head.Name), head.Handle, chains)
	if old != nil {
		t.Maps, t.Sets = old.Maps, old.Sets
		for _, c := range old.Chains {
			if t.Chain(c.Name) == nil {
				delta.Gone = append(delta.Gone, c.Name)
				m.keep(c, nil)
			}
		}
	}
	return t
}

// replace puts c, which is a copy of the chain of its name, in that one's place.
func (t *Table) replace(c *Chain) {
	t.Chains[c.at] = c
	t.byName[c.Name] = c
}

// fit returns s in memory of its size.
func fit[E any](s []E) []E {
	if cap(s) == len(s) {
		return s
	}
	return slices.Clone(s)
}
