// SPDX-License-Identifier: Apache-2.0

package drift

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/ruleset"
)

// TestCommitsOfTheSameOrder: in x_tables a sync that changes no rule is known by the counters that
// it zeroes. Whoever writes the table otherwise zeroes all of them, until he adds them again.
func TestCommitsOfTheSameOrder(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 5))
	catalog := (&cluster{rng: rng}).catalog(10)
	type counters struct{ entered, took uint64 }
	tests := []struct {
		name  string
		reads []counters
		want  []bool
	}{
		{"nothing passes", []counters{{0, 0}, {0, 0}}, []bool{false, false}},
		{"packets pass", []counters{{9, 5}, {12, 8}}, []bool{false, false}},
		{"a sync", []counters{{9, 5}, {9, 0}, {10, 1}}, []bool{false, true, false}},
		{"a sync, and packets since", []counters{{9, 5}, {12, 3}, {14, 5}}, []bool{false, true, false}},
		{"two syncs", []counters{{9, 5}, {12, 3}, {14, 1}}, []bool{false, true, true}},
		{"more packets since than before", []counters{{9, 5}, {30, 20}}, []bool{false, false}},
		{"another writer's two calls", []counters{{9, 5}, {0, 0}, {10, 6}}, []bool{false, false, false}},
		{"another writer's two calls, and a sync", []counters{{9, 5}, {0, 0}, {10, 1}}, []bool{false, false, true}},
		{"iptables -Z", []counters{{9, 5}, {0, 0}, {2, 1}, {3, 2}, {4, 0}}, []bool{false, false, false, false, true}},
	}
	for _, tt := range tests {
		for _, backend := range []ruleset.Backend{ruleset.Legacy, ruleset.NFT} {
			t.Run(tt.name+"/"+string(backend), func(t *testing.T) {
				n := newNode(t, netfilter.IPv4)
				n.set.Backend = backend
				n.sync(t, catalog, flags{}, rng)
				nat := n.set.Table("nat")
				var c Commits
				c.See([]Rules{n.rules()}, at(0))
				for i, counted := range tt.reads {
					nat.Chain("PREROUTING").Rules[0].Counter.Packets = counted.entered
					nat.Chain(servicesChain()).Rules[1].Counter.Packets = counted.took
					got := c.See([]Rules{n.rules()}, at(float64(15*(i+1))))
					if want := tt.want[i] && backend == ruleset.Legacy; len(got) > 0 != want || want && got[0].Half {
						t.Errorf("reading %d: got %v, want a commit: %v", i, got, want)
					}
				}
			})
		}
	}
}

func TestCommits(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 5))
	catalog := (&cluster{rng: rng}).catalog(10)
	written := proxier{catalog: catalog}
	written.sync()
	const none, full, half = "", "full", "half"
	tests := []struct {
		name        string
		do          func(n *node)
		nft, legacy string
	}{
		{"nothing", func(*node) {}, none, none},
		{"a sync", func(n *node) { n.sync(t, catalog, flags{}, rng) }, full, full},
		{"filter alone", func(n *node) { n.commit("filter", written.filter, nil, false, rng) }, half, half},
		{"nat, after filter was seen", func(n *node) { n.commit("nat", written.nat, nil, false, rng) }, full, full},
		{"an edit of KUBE-SERVICES", func(n *node) { n.edit("nat", "KUBE-SERVICES", func(l []string) []string { return l[1:] }) }, none, full},
		{"an edit of a Service's chain", func(n *node) {
			for chain := range n.lines["nat"] {
				if len(chain) > 20 {
					n.edit("nat", chain, empty)
					return
				}
			}
		}, none, none},
		{"a flush", func(n *node) {
			for chain := range n.lines["nat"] {
				n.edit("nat", chain, empty)
			}
		}, none, none},
		{"a REJECT by hand", func(n *node) {
			n.edit("filter", "KUBE-SERVICES", func(l []string) []string { return append(l, "-d 10.96.0.1 -j REJECT") })
		}, none, none},
	}
	for _, tt := range tests {
		for backend, what := range map[ruleset.Backend]string{ruleset.NFT: tt.nft, ruleset.Legacy: tt.legacy} {
			t.Run(tt.name+"/"+string(backend), func(t *testing.T) {
				n := newNode(t, netfilter.IPv4)
				n.set.Backend = backend
				n.sync(t, catalog, flags{}, rng)
				var c Commits
				for _, s := range []float64{0, 15} {
					r := n.rules()
					r.Age = 2 * time.Second // somebody may have written since
					if got := c.See([]Rules{r}, at(s)); len(got) > 0 {
						t.Errorf("before: got %v", got)
					}
				}
				tt.do(n)
				n.read(t)
				var want []Commit
				if what != none {
					want = []Commit{{Family: netfilter.IPv4, Backend: backend, After: at(13), Seen: at(30), Half: what == half}}
				}
				if diff := cmp.Diff(want, c.See([]Rules{n.rules()}, at(30))); diff != "" {
					t.Errorf("(-want +got)\n%s", diff)
				}
			})
		}
	}
}
