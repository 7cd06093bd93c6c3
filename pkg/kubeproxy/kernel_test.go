// SPDX-License-Identifier: Apache-2.0

package kubeproxy_test

import (
	"os"
	"testing"

	"github.com/svcscope/svcscope/pkg/internal/kernelrules"
	"github.com/svcscope/svcscope/pkg/internal/kerneltest"
	"github.com/svcscope/svcscope/pkg/kubeproxy"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/nftables"
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
				legacy, undecoded := kernelrules.Legacy(t, tt.family)
				nft, undecodedNFT := kernelrules.NFT(t, tt.family, inReadOrder)
				if len(undecoded)+len(undecodedNFT) != 0 {
					t.Errorf("kube-proxy's rules not understood: legacy %v, nft %v", undecoded, undecodedNFT)
				}
				for _, rs := range []*ruleset.Ruleset{legacy, nft} {
					v := kubeproxy.NewView(rs)
					if !v.Recognised() {
						t.Errorf("%s: not recognised", rs.Backend)
					}
					if rs.Backend == ruleset.NFT && rs.Family == netfilter.IPv6 {
						// ip6tables-nft-restore 1.8.9 takes -c and restores no counter.
						takeCounters(rs, kubeproxy.Load(t, tt.family, tt.file))
					}
					kubeproxy.Golden(t, tt.golden, v)
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

// inReadOrder is a kernel.Selector made of ReadRank.
func inReadOrder(_ nftables.Table, chains []nftables.Chain) []nftables.Chain {
	out := make([]nftables.Chain, 0, len(chains))
	for rank := range 3 {
		for _, c := range chains {
			if kubeproxy.ReadRank(c.Name) == rank {
				out = append(out, c)
			}
		}
	}
	return out
}
