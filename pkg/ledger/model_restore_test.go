// SPDX-License-Identifier: Apache-2.0

package ledger

import "slices"

// restore makes a whole table anew, with the counters that it had a moment ago
// or without.
func (m *model) restore() {
	table := []string{"nat", "filter"}[m.IntN(2)]
	counters, handles := m.flip(2), m.flip(2)
	rules := append(m.rules(table), m.witness[table])
	saved := packets(rules)
	if counters {
		// In nf_tables what is restored must not be less than half of what it
		// replaces. In x_tables it may: see TestRestoredLegacyTables.
		before := sum(saved[:len(saved)-1])
		m.traffic(5)
		if m.source != leg && (2*before < sum(packets(rules[:len(rules)-1]))+10 || !m.joined && m.dirty) {
			return
		}
		m.dirty = true
	}
	if m.source == leg {
		m.lossy[table] = true
	}
	if n := sum(saved[:len(saved)-1]); counters && n <= strong {
		for _, p := range m.ports {
			p.held += strong // so few may be new, and are no measure
		}
	}
	old := slices.Clone(rules[:len(rules)-1])
	m.commit(old, func() []*rule {
		if !handles {
			m.tables[table] += 10
		}
		begun := m.swap(rules, handles)
		m.witness[table] = begun[len(begun)-1]
		for i, r := range begun {
			if counters {
				r.Packets, r.restored = saved[i], saved[i]
			}
			if m.source != leg {
				r.ID.TableHandle = m.tables[table]
			}
		}
		return begun[:len(begun)-1]
	})
}

// flush deletes a table's rules.
func (m *model) flush() {
	table := []string{"nat", "filter"}[m.IntN(2)]
	m.commit(m.rules(table), func() []*rule {
		for _, p := range m.ports {
			if table == "nat" {
				p.conns, p.ext, p.disp = nil, nil, nil
			} else {
				p.refusals = nil
			}
		}
		return nil
	})
}

// packets are the values of rules.
func packets(rules []*rule) []uint64 {
	values := make([]uint64, len(rules))
	for i, r := range rules {
		values[i] = r.Packets
	}
	return values
}

func sum(values []uint64) (n uint64) {
	for _, v := range values {
		n += v
	}
	return n
}
