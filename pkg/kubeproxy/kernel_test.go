// SPDX-License-Identifier: Apache-2.0

package kubeproxy

import (
	"os"
	"testing"

	"github.com/svcscope/svcscope/pkg/internal/kerneltest"
	"github.com/svcscope/svcscope/pkg/kernel"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/nftables"
	"github.com/svcscope/svcscope/pkg/netfilter/xtables"
	"github.com/svcscope/svcscope/pkg/ruleset"
)

// The same rules, loaded into the kernel and read from there, give the same
// view in both backends, counters included.
func TestViewOfRulesReadFromTheKernel(t *testing.T) {
	tests := []struct {
		name, file, golden, tool string
		family                   netfilter.Family
	}{
		{"IPv4", "ip4.save", "ip4.view", "iptables", netfilter.IPv4},
		{"IPv6", "ip6.save", "ip6.view", "ip6tables", netfilter.IPv6},
		{"large IPv4", "ip4-large.save", "ip4.view", "iptables", netfilter.IPv4},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			kerneltest.Run(t, func(t *testing.T) {
				rules, err := os.ReadFile("testdata/" + tt.file)
				if err != nil {
					t.Fatal(err)
				}
				kerneltest.Exec(t, string(rules), tt.tool+"-legacy-restore", "-c")
				kerneltest.Exec(t, string(rules), tt.tool+"-nft-restore", "-c")
				for _, rs := range []*ruleset.Ruleset{readLegacy(t, tt.family), readNFT(t, tt.family)} {
					v := NewView(rs)
					if !v.Recognised() {
						t.Errorf("%s: not recognised", rs.Backend)
					}
					if rs.Backend == ruleset.NFT && rs.Family == netfilter.IPv6 {
						// ip6tables-nft-restore 1.8.9 takes -c and restores no counter.
						takeCounters(rs, load(t, tt.family, tt.file))
					}
					golden(t, tt.golden, describe(v))
				}
			})
		})
	}
}

// takeCounters gives the rules of rs the counters that from has.
func takeCounters(rs, from *ruleset.Ruleset) {
	for _, t := range rs.Tables {
		for _, c := range t.Chains {
			for i, r := range from.Table(t.Name).Chain(c.Name).Rules {
				c.Rules[i].Counter = r.Counter
			}
		}
	}
}

func readLegacy(t *testing.T, family netfilter.Family) *ruleset.Ruleset {
	t.Helper()
	r, err := kernel.OpenLegacy(kernel.LegacyConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	names, err := r.Tables(t.Context(), family)
	if err != nil {
		t.Fatal(err)
	}
	c := ruleset.NewConverter(family)
	rs := &ruleset.Ruleset{Backend: ruleset.Legacy, Family: family}
	for _, name := range names {
		err := r.Read(t.Context(), family, name, func(x *xtables.Table) error {
			rs.Tables = append(rs.Tables, c.XTable(x))
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	wantAllDecoded(t, rs.Backend, c.Undecoded())
	return rs
}

func readNFT(t *testing.T, family netfilter.Family) *ruleset.Ruleset {
	t.Helper()
	n, err := kernel.OpenNFTables()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = n.Close() }()
	reading, err := n.Read(t.Context(), inReadOrder)
	if err != nil {
		t.Fatal(err)
	}
	rs, undecoded := ruleset.FromNFTables(family, &reading.Ruleset)
	wantAllDecoded(t, rs.Backend, undecoded)
	return rs
}

// inReadOrder is a kernel.Selector made of ReadRank.
func inReadOrder(_ nftables.Table, chains []nftables.Chain) []nftables.Chain {
	out := make([]nftables.Chain, 0, len(chains))
	for rank := range 3 {
		for _, c := range chains {
			if ReadRank(c.Name) == rank {
				out = append(out, c)
			}
		}
	}
	return out
}

func wantAllDecoded(t *testing.T, b ruleset.Backend, undecoded map[string]uint64) {
	t.Helper()
	if len(undecoded) != 0 {
		t.Errorf("%s: kube-proxy's rules not understood: %v", b, undecoded)
	}
}
