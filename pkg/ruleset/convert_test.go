// SPDX-License-Identifier: Apache-2.0

package ruleset_test

import (
	"cmp"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/svcscope/svcscope/pkg/internal/iptsave"
	"github.com/svcscope/svcscope/pkg/internal/kernelrules"
	"github.com/svcscope/svcscope/pkg/internal/kerneltest"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/ruleset"
)

// sameRules compares what rules say: not handles, and not what only one of the
// backends has.
func sameRules() gocmp.Options {
	return gocmp.Options{
		gocmp.Comparer(func(a, b ruleset.Base) bool { return a.Hook == b.Hook && a.Policy == b.Policy }),
		cmpopts.IgnoreFields(ruleset.Ruleset{}, "Backend", "Generation"),
		cmpopts.IgnoreFields(ruleset.Table{}, "Handle"),
		cmpopts.IgnoreUnexported(ruleset.Table{}),
		cmpopts.IgnoreFields(ruleset.Chain{}, "Handle", "Use"), cmpopts.IgnoreUnexported(ruleset.Chain{}),
		cmpopts.IgnoreFields(ruleset.Rule{}, "Handle"),
		cmpopts.EquateComparable(netip.AddrPort{}, netip.Prefix{}, netip.Addr{}),
		cmpopts.EquateEmpty(),
	}
}

// sorted brings tables and chains into one order: nf_tables has its chains in
// the order in which they were made. It drops built-in chains without rules,
// which iptables-nft makes only when it needs them.
func sorted(rs *ruleset.Ruleset) *ruleset.Ruleset {
	slices.SortFunc(rs.Tables, func(a, b *ruleset.Table) int { return cmp.Compare(a.Name, b.Name) })
	for _, t := range rs.Tables {
		t.Chains = slices.DeleteFunc(t.Chains, func(c *ruleset.Chain) bool { return c.Base != nil && len(c.Rules) == 0 })
		slices.SortFunc(t.Chains, func(a, b *ruleset.Chain) int { return cmp.Compare(a.Name, b.Name) })
	}
	return rs
}

func TestBothBackendsGiveTheSameRulesForTheSameInput(t *testing.T) {
	tests := []struct {
		name, file, tool string
		family           netfilter.Family
		undecoded        map[string]uint64
	}{
		{"IPv4", "every-match-ip4.rules", "iptables", netfilter.IPv4, map[string]uint64{
			"match/icmp": 1, "match/conntrack": 1, "match/length": 1,
			"target/CONNMARK": 1, "target/TCPMSS": 1, "target/TTL": 1,
		}},
		{"IPv6", "every-match-ip6.rules", "ip6tables", netfilter.IPv6, map[string]uint64{"match/icmp6": 1}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			kerneltest.Run(t, func(t *testing.T) {
				input, err := os.ReadFile("testdata/" + tt.file)
				if err != nil {
					t.Fatal(err)
				}
				kerneltest.Exec(t, string(input), tt.tool+"-legacy-restore")
				legacy, legacyUnknown := kernelrules.Legacy(t, tt.family)
				legacyText := kerneltest.Exec(t, "", tt.tool+"-legacy-save", "-c")

				kerneltest.Exec(t, string(input), tt.tool+"-nft-restore")
				nft, nftUnknown := kernelrules.NFT(t, tt.family, nil)

				if diff := gocmp.Diff(known(iptsave.Normalize(legacyText)), known(iptsave.Format(legacy))); diff != "" {
					t.Errorf("text differs (-iptables-save +ours)\n%s", diff)
				}
				if diff := gocmp.Diff(sorted(legacy), sorted(nft), sameRules()); diff != "" {
					t.Errorf("rules differ (-legacy +nft)\n%s", diff)
				}
				if diff := gocmp.Diff(tt.undecoded, legacyUnknown); diff != "" {
					t.Errorf("not understood in legacy (-want +got)\n%s", diff)
				}
				if diff := gocmp.Diff(tt.undecoded, nftUnknown); diff != "" {
					t.Errorf("not understood in nf_tables (-want +got)\n%s", diff)
				}
				want, err := iptsave.Parse(tt.family, ruleset.Legacy, legacyText)
				if err != nil {
					t.Fatal(err)
				}
				if diff := gocmp.Diff(sorted(want), sorted(legacy), sameRules(), ignoreUnknown()); diff != "" {
					t.Errorf("rules differ (-iptables-save +ours)\n%s", diff)
				}
			})
		})
	}
}

// known leaves rules out whose text needs a decoder that we do not have.
func known(text string) string {
	var out []string
	for line := range strings.SplitSeq(text, "\n") {
		unknown := false
		for _, word := range []string{"-m length", "-j CONNMARK", "-j TCPMSS", "-j TTL"} {
			unknown = unknown || strings.Contains(line, word)
		}
		if !unknown && !strings.Contains(line, "-m icmp") && !strings.Contains(line, "--ctstatus") && !strings.Contains(line, "unsupported") {
			out = append(out, line)
		}
	}
	return strings.Join(out, "\n")
}

func ignoreUnknown() gocmp.Options {
	return gocmp.Options{
		gocmp.Comparer(func(a, b ruleset.Unknown) bool { return a.Name == b.Name }),
		gocmp.FilterPath(func(p gocmp.Path) bool { return p.Last().String() == ".Args" },
			gocmp.Comparer(func(a, b string) bool {
				return a == b || strings.Contains(a, "unsupported") || strings.Contains(b, "unsupported")
			})),
	}
}
