// SPDX-License-Identifier: Apache-2.0

package kubeproxy

import (
	"testing"

	"github.com/svcscope/svcscope/pkg/netfilter"
)

// TestBaseJumps: the captured rules have every one of them, and jump by no other way from
// a built-in chain to kube-proxy's, but to what is kubelet's, too.
func TestBaseJumps(t *testing.T) {
	for file, family := range map[string]netfilter.Family{
		"iptables-nft.ipv4.save": netfilter.IPv4, "iptables-legacy.ipv4.save": netfilter.IPv4,
		"iptables-nft.ipv6.save": netfilter.IPv6, "iptables-legacy.ipv6.save": netfilter.IPv6,
	} {
		t.Run(file, func(t *testing.T) {
			want := make(map[BaseJump]bool)
			for _, j := range BaseJumps() {
				want[j] = true
			}
			for _, table := range load(t, family, captured+file).Tables {
				for c := range table.BaseChains {
					for i := range c.Rules {
						j := BaseJump{table.Name, c.Base.Hook, c.Rules[i].Action.Chain}
						if kind, _ := ParseChain(j.Chain); !want[j] && kind != KindKubeFirewall {
							t.Errorf("%v is not listed", j)
						}
						delete(want, j)
					}
				}
			}
			for j := range want {
				t.Errorf("%v is not in the rules", j)
			}
		})
	}
}
