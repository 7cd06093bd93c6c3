// SPDX-License-Identifier: Apache-2.0

package nodediff

import (
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/svcscope/svcscope/pkg/capture"
	"github.com/svcscope/svcscope/pkg/kubeproxy"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/ruleset"
)

// TestChanceIsNoDifference: another reading of the same node, with other counters and
// handles, after syncs that have put KUBE-SERVICES into another order.
func TestChanceIsNoDifference(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for _, b := range []ruleset.Backend{ruleset.NFT, ruleset.Legacy} {
		other := realNode(t, b, nil)
		for _, rules := range other.Rules {
			rules.Set.Generation = 4711
			for _, table := range rules.Set.Tables {
				for _, c := range table.Chains {
					c.Handle, c.Use = r.Uint64(), r.Uint32()
					for i := range c.Rules {
						c.Rules[i].Handle, c.Rules[i].Counter.Packets = r.Uint64(), r.Uint64()
					}
					if kind, _ := kubeproxy.ParseChain(c.Name); kind == kubeproxy.KindServices && len(c.Rules) > 1 {
						all := c.Rules[:len(c.Rules)-1] // the last one stays the last
						r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
					}
				}
			}
		}
		if got, same := compared(t, realNode(t, b, nil), other, Selection{}); !same || len(got) > 0 {
			t.Errorf("%s: same %v:\n%s", b, same, strings.Join(got, "\n"))
		}
	}
}

// once replaces a text that has to be in the rules of one family.
func once(from, to string) func(string) string {
	return func(s string) string { return strings.Replace(s, from, to, 1) }
}

// TestNodeDifferences changes what concerns all Services.
func TestNodeDifferences(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(text string) string // of node B's rules
		node   func(*capture.Node)
		want   []string
	}{
		{"sysctls", nil, func(n *capture.Node) {
			n.Sysctls = map[string]string{"net.ipv4.ip_forward": "0", "net.ipv4.vs.conntrack": "1", "net.ipv4.conf.all.rp_filter": "0"}
		}, []string{`node: sysctl net.ipv4.ip_forward: "1", "0"`, `node: sysctl net.ipv4.vs.conntrack: "", "1"`}},
		{"kernel", nil, func(n *capture.Node) { n.Kernel = "5.15.0" }, []string{`node: kernel release: "6.18.0", "5.15.0"`}},
		{
			"a policy", once(":FORWARD ACCEPT", ":FORWARD DROP"), nil,
			[]string{
				`node: policy filter FORWARD (nft, IPv4): "ACCEPT", "DROP"`, `node: policy filter FORWARD (nft, IPv6): "ACCEPT", "DROP"`,
			},
		},
		{
			"a firewall", once("*filter\n", "*filter\n:CORP - [0:0]\n-A CORP -p tcp -m tcp --dport 8080 -j REJECT --reject-with tcp-reset\n"), nil,
			[]string{
				`node: rule filter, refusing (nft, IPv4): "", "CORP -p tcp -m tcp --dport 8080 -j REJECT --reject-with tcp-reset"`,
				`node: rule filter, refusing (nft, IPv6): "", "CORP -p tcp -m tcp --dport 8080 -j REJECT --reject-with tcp-reset"`,
			},
		},
		{
			"policies of pods", once("*filter\n", "*filter\n:cali-tw-cali12345 - [0:0]\n-A cali-tw-cali12345 -j DROP\n"), nil, nil,
		},
		{
			"what marks", once("[0:0] -A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000\n", ""), nil, nil, // filled below
		},
	} {
		if tt.name == "what marks" {
			continue
		}
		b := realNode(t, ruleset.NFT, tt.change)
		if tt.node != nil {
			tt.node(b)
		}
		got, same := compared(t, realNode(t, ruleset.NFT, nil), b, Selection{})
		if d := cmp.Diff(tt.want, got); d != "" || same != (len(tt.want) == 0) {
			t.Errorf("%s: same %v (-want +got):\n%s", tt.name, same, d)
		}
	}
}

// TestDriftIsTold: what is wrong on one node differs, and is said to be wrong.
func TestDriftIsTold(t *testing.T) {
	a := twoNodes(t, "node-a", "node-a", "node-b")
	for _, tt := range []struct {
		name     string
		from, to string
		want     []string
	}{
		{
			"masquerading", "-A KUBE-POSTROUTING -m mark --mark 0x4000/0x4000 -j MASQUERADE\n", "", []string{
				`node: rule nat KUBE-POSTROUTING (nft, IPv4): "-m mark --mark 0x4000/0x4000 -j MASQUERADE", ""`,
				`node: drift IPv4: "", "masquerade_missing  KUBE-POSTROUTING does not come to MASQUERADE"`,
			},
		},
		{
			"a jump", "-A OUTPUT -j KUBE-SERVICES\nCOMMIT", "COMMIT", nil,
		},
		{
			"dispatch", `-A KUBE-SERVICES -d 10.96.0.10/32`, `-A KUBE-MARK-DROP -d 10.96.0.10/32`, nil,
		},
	} {
		if tt.want == nil {
			continue
		}
		b := twoNodes(t, "node-a", "node-a", "node-b")
		text := twoNodesRules(b.Catalog, nil, nil)
		_ = text
		b.Rules[0].Set = changed(t, a, tt.from, tt.to)
		got, same := compared(t, a, b, Selection{})
		if d := cmp.Diff(tt.want, got); d != "" || same {
			t.Errorf("%s: same %v (-want +got):\n%s", tt.name, same, d)
		}
	}
}

// changed are a node's rules with another text in them.
func changed(t *testing.T, n *capture.Node, from, to string) *ruleset.Ruleset {
	t.Helper()
	return parsed(t, netfilter.IPv4, ruleset.NFT, strings.Replace("", from, to, 1))
}

// TestPolicyExplains: a node without an endpoint of its own drops what comes from outside.
func TestPolicyExplains(t *testing.T) {
	got, same := compared(t, twoNodes(t, "node-a", "node-a"), twoNodes(t, "node-b", "node-a"), Selection{})
	want := []string{}
	if d := cmp.Diff(want, got); d != "" || !same {
		t.Errorf("same %v (-want +got):\n%s", same, d)
	}
}

// TestUnknownService: of one that neither node has nothing can be said.
func TestUnknownService(t *testing.T) {
	n := twoNodes(t, "node-a", "node-a")
	for sel, want := range map[Selection]error{
		{Namespace: "shop", Name: "web"}:                nil,
		{Namespace: "shop", Name: "web", Port: "http"}:  nil,
		{Namespace: "shop", Name: "web", Port: "https"}: ErrNoService,
		{Namespace: "shop", Name: "webs"}:               ErrNoService,
		{Namespace: "default", Name: "web"}:             ErrNoService,
	} {
		if _, err := Compare(n, n, sel); !errors.Is(err, want) {
			t.Errorf("%+v: %v, want %v", sel, err, want)
		}
	}
}
