// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseLogged(t *testing.T) {
	hashed := "DPI0|knp/n_" + strings.Repeat("x", 41) + "_allow-long"
	for _, tt := range []struct {
		prefix string
		want   Logged
	}{
		// Calico since 3.32
		{"DPI0|knp/namespace-1/knp.default.allow-x", Logged{Owner: Calico, Verdict: Deny, Direction: Ingress, Kind: KindPolicy, Resource: "knp", Namespace: "namespace-1", Name: "allow-x"}},
		{"DPE0|gnp/policy-1", Logged{Owner: Calico, Verdict: Deny, Direction: Egress, Kind: KindPolicy, Resource: "gnp", Name: "policy-1"}},
		{"APE12|np/shop/web", Logged{Owner: Calico, Verdict: Allow, Direction: Egress, Kind: KindPolicy, Resource: "np", Namespace: "shop", Name: "web", Rule: 12}},
		// before
		{"DPI1|tier-1.policy-1", Logged{Owner: Calico, Verdict: Deny, Direction: Ingress, Kind: KindPolicy, Tier: "tier-1", Name: "policy-1", Rule: 1}},
		{"PPI0|namespace-1/tier-1.policy-2", Logged{Owner: Calico, Verdict: Pass, Direction: Ingress, Kind: KindPolicy, Namespace: "namespace-1", Tier: "tier-1", Name: "policy-2"}},
		{"DPI0|namespace-1/knp.default.deny", Logged{Owner: Calico, Verdict: Deny, Direction: Ingress, Kind: KindPolicy, Namespace: "namespace-1", Name: "deny"}},
		{"DPE3|kanp.adminnetworkpolicy.strict", Logged{Owner: Calico, Verdict: Deny, Direction: Egress, Kind: KindPolicy, Name: "strict", Rule: 3}},
		// of either
		{"DPI|default", Logged{Owner: Calico, Verdict: Deny, Direction: Ingress, Kind: KindTier, Tier: "default", Rule: -1}},
		{"PPE|security", Logged{Owner: Calico, Verdict: Pass, Direction: Egress, Kind: KindTier, Tier: "security", Rule: -1}},
		{"DRI", Logged{Owner: Calico, Verdict: Deny, Direction: Ingress, Kind: KindNone, Rule: -1}},
		{"DRI0|kns.shop", Logged{Owner: Calico, Verdict: Deny, Direction: Ingress, Kind: KindProfile, Namespace: "shop", Name: "kns.shop"}},
		{"ARE0|pro/ksa.shop.default", Logged{Owner: Calico, Verdict: Allow, Direction: Egress, Kind: KindProfile, Namespace: "shop", Name: "ksa.shop.default"}},
		{hashed, Logged{Owner: Calico, Verdict: Deny, Direction: Ingress, Kind: KindPolicy, Hashed: true}},
		// k3s
		{"DROP by policy shop/deny-all", Logged{Owner: KubeRouter, Verdict: Deny, Kind: KindPolicy, Namespace: "shop", Name: "deny-all", Rule: -1}},
		// a user's own
		{"svcscope:deny:ingress:shop/web", Logged{Owner: Other, Verdict: Deny, Direction: Ingress, Kind: KindPolicy, Namespace: "shop", Name: "web", Rule: -1}},
		{"svcscope:deny:the old firewall", Logged{Owner: Other, Verdict: Deny, Kind: KindPolicy, Name: "the old firewall", Rule: -1}},
		{"svcscope:allow", Logged{Owner: Other, Verdict: Allow, Kind: KindPolicy, Rule: -1}},
	} {
		got, ok := ParseLogged(tt.prefix)
		if d := cmp.Diff(tt.want, got); d != "" || !ok {
			t.Errorf("%s: %v (-want +got):\n%s", tt.prefix, ok, d)
		}
	}
	for _, prefix := range []string{"", "D", "DPX|x", "calico-packet: ", "DROP by policy ", "DROP by policy x", "svcscope:", "svcscope:maybe:x", "DPIx|gnp/a", "DPI0|", "XPI0|gnp/a", "ADMIN", "DRI0"} {
		if got, ok := ParseLogged(prefix); ok {
			t.Errorf("%q is taken for %+v", prefix, got)
		}
	}
}

func FuzzParseLogged(f *testing.F) {
	for _, s := range []string{"DPI0|knp/a/b", "DPI|default", "DRI", "DROP by policy a/b", "svcscope:deny:x", strings.Repeat("D", 70)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		l, ok := ParseLogged(s)
		if ok && (l.Owner == "" || l.Verdict == "" || l.Kind == "" || l.Rule < -1) {
			t.Errorf("%q: %+v", s, l)
		}
	})
}
