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

func TestOwner(t *testing.T) {
	tests := []struct{ chain, want string }{
		{"KUBE-SERVICES", KubeProxy},
		{"KUBE-SEP-SXIVWICOYRO3J4NJ", KubeProxy},
		{"KUBE-PROXY-CANARY", KubeProxy},
		{"KUBE-FIREWALL", KubeProxy},
		{"KUBE-LOAD-BALANCER", KubeProxy},
		{"KUBE-KUBELET-CANARY", Kubelet},
		{"KUBE-IPTABLES-HINT", Kubelet},
		{"KUBE-ROUTER-INPUT", KubeRouter},
		{"KUBE-POD-FW-SXIVWICOYRO3J4NJ", KubeRouter},
		{"KUBE-NWPLCY-DEFAULT", KubeRouter},
		{"cali-PREROUTING", Calico},
		{"cali-tw-cali0123456789a", Calico},
		{"filter-cali-tw-cali0123456789a", Calico},
		{"CILIUM_POST_nat", Cilium},
		{"OLD_CILIUM_POST_nat", Cilium},
		{"FLANNEL-POSTRTG", Flannel},
		{"FLANNEL-FWD", Flannel},
		{"WEAVE-NPC", Weave},
		{"ANTREA-FORWARD", Antrea},
		{"ISTIO_PRERT", Istio},
		{"DOCKER-USER", Docker},
		{"CNI-HOSTPORT-DNAT", CNI},
		{"CNI-0123456789abcdef01234567", CNI},
		{"IP-MASQ-AGENT", IPMasqAgent},
		{"AWS-SNAT-CHAIN-0", AWS},
		{"ufw-before-input", UFW},
		{"IN_public", Firewalld},
		{"PREROUTING", Other},
		{"INPUT", Other},
		{"my-chain", Other},
		{"", Other},
	}
	for _, tt := range tests {
		t.Run(tt.chain, func(t *testing.T) {
			got := Owner(tt.chain)
			if got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
			if !slices.Contains(Owners(), got) {
				t.Errorf("%s is not in Owners", got)
			}
		})
	}
}

func TestCountByOwner(t *testing.T) {
	const text = `*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:cali-INPUT - [0:0]
:KUBE-FORWARD - [0:0]
-A INPUT -j cali-INPUT
-A INPUT -p icmp -j ACCEPT
-A FORWARD -j KUBE-FORWARD
-A cali-INPUT -j ACCEPT
-A cali-INPUT -j DROP
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
COMMIT
*mangle
:KUBE-PROXY-CANARY - [0:0]
:KUBE-IPTABLES-HINT - [0:0]
COMMIT
`
	rs, err := iptsave.Parse(netfilter.IPv4, ruleset.Legacy, text)
	if err != nil {
		t.Fatal(err)
	}
	want := []Size{
		{Table: "filter", Owner: Calico, Rules: 3, Chains: 1},
		{Table: "filter", Owner: KubeProxy, Rules: 2, Chains: 1},
		{Table: "filter", Owner: Other, Rules: 1, Chains: 2},
		{Table: "mangle", Owner: KubeProxy, Chains: 1},
		{Table: "mangle", Owner: Kubelet, Chains: 1},
	}
	if diff := cmp.Diff(want, CountByOwner(rs)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if got := CountByOwner(nil); got != nil {
		t.Errorf("no ruleset: got %v", got)
	}
}

func TestUnreadChainsCountByTheirUse(t *testing.T) {
	rs := &ruleset.Ruleset{Tables: []*ruleset.Table{ruleset.NewTable("nat", 1, []*ruleset.Chain{
		{Name: "KUBE-SVC-SXIVWICOYRO3J4NJ", Rules: []ruleset.Rule{
			{Action: ruleset.Action{Kind: ruleset.Jump, Chain: "KUBE-SEP-SXIVWICOYRO3J4NJ"}},
		}},
		{Name: "KUBE-SEP-SXIVWICOYRO3J4NJ", Unread: true, Use: 3},
	})}}
	want := []Size{{Table: "nat", Owner: KubeProxy, Rules: 3, Chains: 2}}
	if diff := cmp.Diff(want, CountByOwner(rs)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestAnOwnedNFTTableIsItsOwners(t *testing.T) {
	rs := &ruleset.Ruleset{Tables: []*ruleset.Table{ruleset.NewTable("kube-proxy", 1, []*ruleset.Chain{
		{Name: "nat-prerouting", Base: &ruleset.Base{}, Rules: make([]ruleset.Rule, 1)},
		{Name: "service-ULMVA6XW-ns1/svc1/tcp/p80", Rules: make([]ruleset.Rule, 2)},
	})}}
	want := []Size{{Table: "kube-proxy", Owner: KubeProxy, Rules: 3, Chains: 2}}
	if diff := cmp.Diff(want, CountByOwner(rs)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}
