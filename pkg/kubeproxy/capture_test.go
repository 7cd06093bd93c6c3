// SPDX-License-Identifier: Apache-2.0

package kubeproxy

import (
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/svcscope/svcscope/pkg/internal/iptsave"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/ruleset"
)

const captured = "kube-proxy-1.37.2/"

// The rules of the real kube-proxy, with the counters of connections whose
// numbers hack/lab/capture.sh tells.
func TestViewOfCapturedRules(t *testing.T) {
	type count struct{ Conns, External uint64 }
	v4 := map[string]count{
		"default/nodeport": {60, 20}, "default/external:http": {15, 15}, "default/lb-ranges:https": {10, 10},
		"default/lb-local:http": {11, 11}, "default/sticky:http": {17, 0}, "default/internal-local:http": {5, 0},
		"kube-system/kube-dns:dns": {30, 0},
	}
	v6 := map[string]count{
		"default/nodeport": {62, 21}, "default/external:http": {16, 16}, "default/lb-local:http": {12, 12},
		"kube-system/kube-dns:dns": {31, 0},
	}
	tests := []struct {
		file   string
		family netfilter.Family
		counts map[string]count
		golden string
	}{
		{"iptables-nft.ipv4.save", netfilter.IPv4, v4, "captured-ip4.view"},
		{"iptables-legacy.ipv4.save", netfilter.IPv4, v4, "captured-ip4.view"},
		{"iptables-nft.ipv6.save", netfilter.IPv6, v6, "captured-ip6.view"},
		{"iptables-legacy.ipv6.save", netfilter.IPv6, v6, "captured-ip6.view"},
	}
	for _, tt := range tests {
		t.Run(tt.file, func(t *testing.T) {
			v := NewView(load(t, tt.family, captured+tt.file))
			got := map[string]count{}
			for _, p := range v.Ports {
				if !p.Named {
					t.Errorf("%s has no name", p.Hash)
				}
				var n count
				for j := range p.EndpointJumps() {
					n.Conns += j.Rule.Counter.Packets
				}
				for j := range p.ExternalJumps() {
					n.External += j.Rule.Counter.Packets
				}
				if n != (count{}) {
					got[p.Name.String()] = n
				}
			}
			if diff := cmp.Diff(tt.counts, got); diff != "" {
				t.Errorf("connections (-want +got)\n%s", diff)
			}
			if !v.Recognised() {
				t.Error("kube-proxy is not recognised")
			}
			golden(t, tt.golden, describe(v))
		})
	}
}

func TestCapturedRulesAreReadAndPrintedUnchanged(t *testing.T) {
	for file, family := range map[string]netfilter.Family{
		"iptables-nft.ipv4.save": netfilter.IPv4, "iptables-legacy.ipv4.save": netfilter.IPv4,
		"iptables-nft.ipv6.save": netfilter.IPv6, "iptables-legacy.ipv6.save": netfilter.IPv6,
	} {
		t.Run(file, func(t *testing.T) {
			text, err := os.ReadFile("testdata/" + captured + file)
			if err != nil {
				t.Fatal(err)
			}
			rs := parse(t, family, string(text))
			if diff := cmp.Diff(iptsave.Normalize(string(text)), iptsave.Format(rs)); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			for _, table := range rs.Tables {
				for _, c := range table.Chains {
					for i := range c.Rules {
						wantKnown(t, c.Name, &c.Rules[i])
					}
				}
			}
		})
	}
}

// wantKnown fails for a rule of kube-proxy with a condition or target that is
// not understood.
func wantKnown(t *testing.T, chain string, r *ruleset.Rule) {
	t.Helper()
	for _, m := range r.Matches {
		if u, ok := m.(ruleset.Unknown); ok {
			t.Errorf("%s: %s is not understood", chain, u)
		}
	}
	if r.Action.Kind == ruleset.OtherKind {
		t.Errorf("%s: %s is not understood", chain, r.Action)
	}
}
