// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"math/rand/v2"
	"testing"
)

// model is a kernel with one Service: connections come in at any time, also
// between the reading of one counter and the next.
type model struct {
	rnd     *rand.Rand
	backend Source
	handle  uint64 // of the first rule; rises with each rewrite in nf_tables
	t       [3]uint64
	e       uint64
	seen    uint64 // the highest value of the last reading

	cluster, external uint64 // what has happened
}

// traffic lets up to n connections come in.
func (m *model) traffic(n int) {
	for range m.rnd.IntN(n + 1) {
		if m.rnd.IntN(2) == 0 {
			m.e++
			m.external++
		} else {
			m.cluster++
		}
		m.t[m.rnd.IntN(len(m.t))]++
	}
}

// rewrite makes the Service's rules anew, if some counter will show it: one
// that has passed its old value by the next reading cannot, in x_tables.
func (m *model) rewrite() {
	if m.seen < 60 {
		return
	}
	m.t, m.e = [3]uint64{}, 0
	m.handle += 10
}

func (m *model) id(n uint64) ID {
	if m.backend == leg {
		return ID{Table: "nat", Digest: [16]byte{byte(n)}}
	}
	return ID{Table: "nat", RuleHandle: m.handle + n}
}

// read reads the counters one by one, in the backend's order.
func (m *model) read(burst int) Reading {
	var cs []Counter
	external := func() {
		m.traffic(burst)
		cs = append(cs, Counter{ID: m.id(9), Kind: External, Port: web, Packets: m.e})
	}
	if m.backend == leg {
		external()
	}
	for i := range m.t {
		m.traffic(burst)
		cs = append(cs, Counter{ID: m.id(uint64(i)), Kind: Connection, Port: web, Endpoint: ep1, Packets: m.t[i]})
	}
	if m.backend == nft {
		external()
	}
	m.seen = 0
	for _, c := range cs {
		m.seen = max(m.seen, c.Packets)
	}
	return reading(m.backend, cs...)
}

// TestNoConnectionIsAttributedTwice runs random traffic, rewrites and dips
// and compares with what has happened at every reading.
func TestNoConnectionIsAttributedTwice(t *testing.T) {
	for seed := range uint64(400) {
		for _, backend := range []Source{nft, leg} {
			m := &model{rnd: rand.New(rand.NewPCG(seed, 7)), backend: backend}
			r := newRig(10)
			quiet := seed%2 == 0 // a calm start and end, no rewrites: all must be found
			burst := 3
			if quiet {
				burst = 0
			}
			m.traffic(20)
			r.apply(m.read(burst))
			m.traffic(burst)
			base := [2]uint64{m.cluster, m.external}
			r.apply(m.read(burst))
			var last PortTotal
			for range 60 {
				m.traffic(20)
				if !quiet && m.rnd.IntN(6) == 0 {
					m.rewrite()
					m.traffic(20)
				}
				rd := m.read(3)
				if backend == leg && m.rnd.IntN(5) == 0 {
					for i := range rd.Counters {
						rd.Counters[i].Packets = min(rd.Counters[i].Packets, uint64(m.rnd.IntN(2)))
					}
				}
				settle(r, m, rd, 1)
				got := only(t, r)
				if got.Cluster > m.cluster-base[0] || got.External > m.external-base[1] {
					t.Fatalf("seed %d %s: cluster %d of %d, external %d of %d: too many",
						seed, backend.Backend, got.Cluster, m.cluster, got.External, m.external)
				}
				if got.Cluster < last.Cluster || got.External < last.External {
					t.Fatalf("seed %d %s: a total went down", seed, backend.Backend)
				}
				last = got
			}
			settle(r, m, m.read(0), 0)
			settle(r, m, m.read(0), 0)
			if got := only(t, r); quiet && (got.Cluster != m.cluster-base[0] || got.External != m.external-base[1]) {
				t.Fatalf("seed %d %s: cluster %d of %d, external %d of %d", seed, backend.Backend,
					got.Cluster, m.cluster-base[0], got.External, m.external-base[1])
			}
		}
	}
}

// settle applies a reading and those that it calls for; up to burst
// connections come in before each counter is read.
func settle(r *rig, m *model, rd Reading, burst int) {
	out := r.apply(rd)
	for range 3 {
		if !out.Suspect && !out.Pending {
			return
		}
		out = r.apply(m.read(burst))
	}
}

func only(t *testing.T, r *rig) PortTotal {
	t.Helper()
	for p := range r.Ports() {
		return p
	}
	t.Fatal("no totals")
	return PortTotal{}
}
