// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/svcscope/svcscope/pkg/internal/iptsave"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/ruleset"
)

// TestRefusing reads rules in the words of their writers.
func TestRefusing(t *testing.T) {
	for _, tt := range []struct {
		name, rules string
		want        []Refuser // of the rules that refuse, chain by chain
	}{
		{"kube-proxy", `
:KUBE-FIREWALL - [0:0]
:KUBE-FORWARD - [0:0]
-A KUBE-FIREWALL ! -s 127.0.0.0/8 -d 127.0.0.0/8 -m comment --comment "block incoming localnet connections" -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP
-A KUBE-FIREWALL -m comment --comment "kubernetes firewall for dropping marked packets" -m mark --mark 0x8000/0x8000 -j DROP
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
-A KUBE-FORWARD -m conntrack --ctstate INVALID -m nfacct --nfacct-name  ct_state_invalid_dropped_pkts -j DROP
-A KUBE-FORWARD -m nfacct --nfacct-name  before -m conntrack --ctstate INVALID -j DROP
-A KUBE-FORWARD -m mark --mark 0x1 -m nfacct --nfacct-name  other -j DROP
-A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
`, []Refuser{
			{Owner: KubeProxy, Reason: Localnet},
			{Owner: KubeProxy, Reason: Marked},
			{Owner: KubeProxy, Reason: Invalid},
			{Owner: KubeProxy, Reason: Invalid, NFAcct: "ct_state_invalid_dropped_pkts"},
			{Owner: KubeProxy, Reason: Invalid}, // the object counts what is not refused, too
			{Owner: KubeProxy, Reason: ByRule},
		}},
		{"kube-router", `
:KUBE-POD-FW-AAAAAAAAAAAAAAAA - [0:0]
:KUBE-POD-FW-BBBBBBBBBBBBBBBB - [0:0]
:KUBE-NWPLCY-TAIL - [0:0]
:KUBE-POD-FW-CCCCCCCCCCCCCCCC - [0:0]
:KUBE-ROUTER-INPUT - [0:0]
-A KUBE-NWPLCY-TAIL -s 10.244.1.0/24 -m comment --comment "reject pre-netpol (default-deny)" -j REJECT --reject-with icmp-port-unreachable
-A KUBE-POD-FW-CCCCCCCCCCCCCCCC -m comment --comment "shop/a-pod-whose-name-is-so-long-that-the-comment-was-cut" -m mark ! --mark 0x10000/0x10000 -j REJECT --reject-with icmp-port-unreachable
-A KUBE-POD-FW-AAAAAAAAAAAAAAAA -m comment --comment "rule to log dropped traffic POD name:web-0 namespace: shop" -m mark ! --mark 0x10000/0x10000 -m limit --limit 10/min --limit-burst 10 -j NFLOG --nflog-group 100
-A KUBE-POD-FW-AAAAAAAAAAAAAAAA -m comment --comment "rule to REJECT traffic destined for POD name:web-0 namespace: shop" -m mark ! --mark 0x10000/0x10000 -j REJECT --reject-with icmp-port-unreachable
-A KUBE-POD-FW-BBBBBBBBBBBBBBBB -m comment --comment "shop/web-1 reject" -m mark ! --mark 0x10000/0x10000 -j REJECT --reject-with icmp-port-unreachable
-A KUBE-ROUTER-INPUT -d 10.96.0.0/12 -m comment --comment "something of another version" -j REJECT --reject-with icmp-port-unreachable
`, []Refuser{
			{Owner: KubeRouter, Reason: DefaultDeny, Pod: Object{"shop", "web-0"}},
			{Owner: KubeRouter, Reason: DefaultDeny, Pod: Object{"shop", "web-1"}},
			{Owner: KubeRouter, Reason: DefaultDeny},
			{Owner: KubeRouter, Reason: DefaultDeny},
			{Owner: KubeRouter, Reason: ByRule},
		}},
		{"calico", `
:cali-FORWARD - [0:0]
:cali-fw-cali1234567890a - [0:0]
:cali-pi-_kVNUaSNxoF8o5Zy1gvX - [0:0]
:cali-po-gnp/strict - [0:0]
:cali-pri-kns.shop - [0:0]
:cali-tw-cali1234567890a - [0:0]
:cali-tw-_toolonganame - [0:0]
-A cali-FORWARD -m comment --comment "cali:abcdefghijklmnop" -m conntrack --ctstate INVALID -j DROP
-A cali-fw-cali1234567890a -p udp -m comment --comment "cali:abcdefghijklmnoq" -m comment --comment "Drop VXLAN encapped packets originating in workloads" -m multiport --dports 4789 -j DROP
-A cali-fw-cali1234567890a -m comment --comment "cali:abcdefghijklmnor" -m comment --comment "Drop if no profiles matched" -j DROP
-A cali-pi-_kVNUaSNxoF8o5Zy1gvX -p tcp -m comment --comment "cali:abcdefghijklmnos" -m comment --comment "Policy shop/knp.default.web ingress" -j MARK --set-xmark 0x10000/0x10000
-A cali-pi-_kVNUaSNxoF8o5Zy1gvX -m comment --comment "cali:abcdefghijklmnot" -j DROP
-A cali-po-gnp/strict -d 10.0.0.0/8 -m comment --comment "cali:abcdefghijklmnou" -m comment --comment "GlobalNetworkPolicy strict egress" -j REJECT --reject-with icmp-port-unreachable
-A cali-pri-kns.shop -m comment --comment "cali:abcdefghijklmnov" -m comment --comment "Profile kns.shop ingress" -j DROP
-A cali-tw-cali1234567890a -m comment --comment "cali:abcdefghijklmnow" -m comment --comment "End of tier default. Drop if no policies passed packet" -m mark --mark 0x0/0x20000 -j DROP
-A cali-tw-_toolonganame -m comment --comment "cali:abcdefghijklmnox" -m comment --comment "Endpoint admin disabled" -j DROP
`, []Refuser{
			{Owner: Calico, Reason: Invalid},
			{Owner: Calico, Reason: Encapsulated, Direction: Egress, Interface: "cali1234567890a"},
			{Owner: Calico, Reason: NoProfile, Direction: Egress, Interface: "cali1234567890a"},
			{Owner: Calico, Reason: DeniedByRule, Direction: Ingress, Policy: Object{"shop", "web"}},
			{Owner: Calico, Reason: DeniedByRule, Direction: Egress, Policy: Object{"", "strict"}},
			{Owner: Calico, Reason: DeniedByRule, Direction: Ingress, Policy: Object{"", "kns.shop"}},
			{Owner: Calico, Reason: DefaultDeny, Direction: Ingress, Interface: "cali1234567890a"},
			{Owner: Calico, Reason: EndpointDown, Direction: Ingress},
		}},
		{"weave", `
:FORWARD ACCEPT [0:0]
:WEAVE-NPC - [0:0]
:WEAVE-NPC-EGRESS - [0:0]
-A FORWARD -o other -j DROP
-A FORWARD -o weave -m comment --comment "NOTE: this must go before '-j KUBE-FORWARD'" -j WEAVE-NPC
-A FORWARD -o weave -m state --state NEW -j NFLOG --nflog-group 86
-A FORWARD -o weave -j DROP
-A WEAVE-NPC-EGRESS -m mark ! --mark 0x40000/0x40000 -j DROP
`, []Refuser{
			{Owner: Other, Reason: ByRule},
			{Owner: Weave, Reason: DefaultDeny, Direction: Ingress},
			{Owner: Weave, Reason: DefaultDeny, Direction: Egress},
		}},
		{"others", `
:INPUT DROP [0:0]
:mine - [0:0]
-A INPUT -m state --state INVALID -m nfacct --nfacct-name  mine -j DROP
-A INPUT -m conntrack ! --ctstate INVALID -j REJECT --reject-with tcp-reset
-A INPUT -m comment --comment "cali:abcdefghijklmnop" -m comment --comment "Drop if no profiles matched" -j DROP
-A mine -m comment --comment "shop/web reject" -j DROP
-A mine -j RETURN
`, []Refuser{
			{Owner: Other, Reason: Invalid},
			{Owner: Other, Reason: ByRule},
			{Owner: Calico, Reason: NoProfile},
			{Owner: Other, Reason: ByRule},
		}},
	} {
		rs, err := iptsave.Parse(netfilter.IPv4, ruleset.NFT, "*filter"+tt.rules+"COMMIT\n")
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		var got []Refuser
		for _, c := range rs.Table("filter").Chains {
			for i := range c.Rules {
				if f, ok := Refusing("filter", c, i); ok {
					got = append(got, f)
				}
			}
		}
		if d := cmp.Diff(tt.want, got); d != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, d)
		}
		for _, f := range got {
			if !slices.Contains(Reasons(), f.Reason) || !slices.Contains(Owners(), f.Owner) {
				t.Errorf("%s: %+v has a reason or owner that is not on the list", tt.name, f)
			}
		}
	}
}

// TestRefusingNative reads rules of Calico's and kube-router's own nft tables, of
// which all comments are one and the chain's name begins with the table's.
func TestRefusingNative(t *testing.T) {
	drop := ruleset.Action{Kind: ruleset.Drop}
	for _, tt := range []struct {
		table, chain string
		rules        []ruleset.Rule
		want         Refuser
	}{
		{
			"calico", "filter-cali-tw-cali1234567890a",
			[]ruleset.Rule{{Comment: "cali:abcdefghijklmnop; End of tier default. Drop if no policies passed packet", Action: drop}},
			Refuser{Owner: Calico, Reason: DefaultDeny, Direction: Ingress, Interface: "cali1234567890a"},
		},
		{
			"calico", "filter-cali-pi-np/shop/web",
			[]ruleset.Rule{
				{Comment: "cali:abcdefghijklmnop; NetworkPolicy shop/web ingress", Action: ruleset.Action{Kind: ruleset.SetMark}},
				{Comment: "cali:abcdefghijklmnoq", Action: drop},
			},
			Refuser{Owner: Calico, Reason: DeniedByRule, Direction: Ingress, Policy: Object{"shop", "web"}},
		},
		{
			"kube-router-filter-ipv4", "KUBE-POD-FW-AAAAAAAAAAAAAAAA",
			[]ruleset.Rule{{Comment: "shop/web-1 reject", Action: ruleset.Action{Kind: ruleset.Reject}}},
			Refuser{Owner: KubeRouter, Reason: DefaultDeny, Pod: Object{"shop", "web-1"}},
		},
		{
			"mine", "input",
			[]ruleset.Rule{{Comment: "shop/web-1 reject", Action: drop}},
			Refuser{Owner: Other, Reason: ByRule},
		},
	} {
		c := &ruleset.Chain{Name: tt.chain, Rules: tt.rules}
		got, ok := Refusing(tt.table, c, len(c.Rules)-1)
		if d := cmp.Diff(tt.want, got); d != "" || !ok {
			t.Errorf("%s %s: %v (-want +got):\n%s", tt.table, tt.chain, ok, d)
		}
	}
}

// FuzzRefusing gives any comment to the rules of each writer.
func FuzzRefusing(f *testing.F) {
	f.Add("cali-pi-x", "Policy a/b ingress")
	f.Add("KUBE-POD-FW-AAAAAAAAAAAAAAAA", "a/b reject")
	f.Add("KUBE-FIREWALL", "")
	f.Fuzz(func(t *testing.T, chain, comment string) {
		c := &ruleset.Chain{Name: chain, Rules: []ruleset.Rule{{Comment: comment, Action: ruleset.Action{Kind: ruleset.Drop}}}}
		if got, ok := Refusing("filter", c, 0); !ok || got.Owner == "" || got.Reason == "" {
			t.Errorf("%q, %q: %+v", chain, comment, got)
		}
	})
}
