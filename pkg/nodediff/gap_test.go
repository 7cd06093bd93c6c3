// SPDX-License-Identifier: Apache-2.0

package nodediff

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/svcscope/svcscope/pkg/capture"
	"github.com/svcscope/svcscope/pkg/ruleset"
)

// TestNotCompared: what was not looked at is not the same.
func TestNotCompared(t *testing.T) {
	for _, tt := range []struct {
		name string
		a, b func(*capture.Node)
		want []string
	}{
		{"nftables mode on both", native, native, []string{
			"rules of Services, IPv4: kube-proxy works in nftables mode on node-a",
		}},
		{"on one", func(*capture.Node) {}, func(n *capture.Node) {
			native(n)
			n.Name = "node-b"
		}, []string{"rules of Services, IPv4: kube-proxy works in nftables mode on node-b"}},
		{"IPVS on both", ipvs, ipvs, []string{
			"rules of Services, IPv4: kube-proxy works in IPVS mode on node-a", "rules of Services, IPv6: kube-proxy works in IPVS mode on node-a",
		}},
		{"IPVS of somebody else", func(n *capture.Node) { n.IPVS = true }, func(n *capture.Node) { n.IPVS = true }, nil},
		{"unread for the same reason", unread, unread, []string{"legacy rules of node-a: not read: needs CAP_NET_ADMIN"}},
		{"all", func(*capture.Node) {}, func(*capture.Node) {}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, b := twoNodes(t, "node-a", "node-a"), twoNodes(t, "node-a", "node-a")
			tt.a(a)
			tt.b(b)
			r, err := Compare(a, b, Selection{})
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, g := range r.NotCompared {
				got = append(got, g.Object+": "+g.Why)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			if r.Same != (tt.want == nil) {
				t.Errorf("same: %v", r.Same)
			}
		})
	}
}

func native(n *capture.Node) { n.Rules[0].NFTablesMode = true }

func unread(n *capture.Node) {
	n.Unread = map[ruleset.Backend]string{ruleset.Legacy: "needs CAP_NET_ADMIN"}
}

// ipvs leaves of the rules what kube-proxy has in that mode, about.
func ipvs(n *capture.Node) {
	n.IPVS = true
	t := n.Rules[0].Set.Table("nat")
	var rest []*ruleset.Chain
	for _, c := range t.Chains {
		if !strings.HasPrefix(c.Name, "KUBE-S") || c.Name == "KUBE-SERVICES" {
			rest = append(rest, c)
		}
	}
	t.Chain("KUBE-SERVICES").Rules = nil
	n.Rules[0].Set.Tables[1] = ruleset.NewTable("nat", 0, rest)
}

// TestStrayRules: without the API a rule about a Service that has no chains is told, too, and
// so is one of which nothing tells the Service.
func TestStrayRules(t *testing.T) {
	const refusal = `-A KUBE-SERVICES -d 10.96.0.99/32 -p tcp -m comment --comment "shop/old:http has no endpoints" -m tcp --dport 80 -j REJECT` + "\n"
	const stray = `-A KUBE-SERVICES -d 10.96.0.98/32 -p tcp -m comment --comment "by hand" -m tcp --dport 80 -j KUBE-SVC-AAAAAAAAAAAAAAAA` + "\n"
	for _, tt := range []struct {
		name, before, line string
		want               []string
	}{
		{"a refusal", "-A KUBE-FORWARD -m mark", refusal, []string{`shop/old:http IPv4: address 10.96.0.99:80: "", "rejected: no endpoints"`}},
		{"a rule by hand", "-A KUBE-SERVICES -d 10.96.0.10/32", stray, []string{
			`node: rule nat KUBE-SERVICES (nft, IPv4): "", "-d 10.96.0.98/32 -p tcp -m comment --comment \"by hand\" -m tcp --dport 80 -j KUBE-SVC-AAAAAAAAAAAAAAAA"`,
		}},
	} {
		a := twoNodes(t, "node-a", "node-a")
		b := edited(t, func(s string) string { return strings.Replace(s, tt.before, tt.line+tt.before, 1) }, "node-a", "node-a")
		a.Catalog, b.Catalog = nil, nil
		got, same := compared(t, a, b, Selection{})
		var left []string
		for _, line := range got {
			if !strings.Contains(line, ": drift ") {
				left = append(left, line)
			}
		}
		if diff := cmp.Diff(tt.want, left); diff != "" || same {
			t.Errorf("%s: same %v (-want +got)\n%s", tt.name, same, diff)
		}
	}
}

// TestPortsByNumber: a port is found by its number as by its name, with the API and without.
func TestPortsByNumber(t *testing.T) {
	for _, api := range []bool{true, false} {
		n := twoNodes(t, "node-a", "node-a")
		if !api {
			n.Catalog = nil
		}
		for port, want := range map[string]bool{"80": true, "http": true, "": true, "81": false, "0": false, "30080": false} {
			if _, err := Compare(n, n, Selection{Namespace: "shop", Name: "web", Port: port}); (err == nil) != want {
				t.Errorf("API %v, port %q: %v", api, port, err)
			}
		}
	}
}
