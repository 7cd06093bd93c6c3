// SPDX-License-Identifier: Apache-2.0

package nodediff

import (
	"encoding/json"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/svcscope/svcscope/pkg/capture"
	"github.com/svcscope/svcscope/pkg/kubeproxy"
	"github.com/svcscope/svcscope/pkg/ruleset"
	"github.com/svcscope/svcscope/pkg/service"
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

// replaced is a change of a text, which has to be there.
func replaced(t *testing.T, from, to string) func(string) string {
	t.Helper()
	return func(s string) string {
		t.Helper()
		if from != "" && !strings.Contains(s, from) {
			t.Errorf("there is no %q in:\n%s", from, s)
		}
		return strings.Replace(s, from, to, 1)
	}
}

// TestRulesThatDiffer changes the rules of one of two nodes that are the same. Drift is
// what the API says to it.
func TestRulesThatDiffer(t *testing.T) {
	const svc, sep = "KUBE-SVC-67NZLRHBNDSAWJRO", "KUBE-SEP-4HMC5SA777ZH54XA"
	for _, tt := range []struct {
		name, from, to string
		want           []string
	}{
		{"masquerading", "-A KUBE-POSTROUTING -m mark --mark 0x4000/0x4000 -j MASQUERADE\n", "", []string{
			`node: rule nat KUBE-POSTROUTING (nft, IPv4): "-m mark --mark 0x4000/0x4000 -j MASQUERADE", ""`,
			`node: drift IPv4: "", "masquerade_missing KUBE-POSTROUTING does not come to MASQUERADE"`,
		}},
		{"a jump", "-A OUTPUT -j KUBE-SERVICES\n", "", []string{
			`node: rule filter OUTPUT (nft, IPv4): "-j KUBE-SERVICES", ""`,
			`node: drift IPv4: "", "jump_missing filter OUTPUT → KUBE-SERVICES"`,
		}},
		{"above the jump", "-A PREROUTING -j KUBE-SERVICES\n", "-A PREROUTING -d 10.96.0.0/12 -j ACCEPT\n-A PREROUTING -j KUBE-SERVICES\n", []string{
			`node: rule nat PREROUTING (nft, IPv4): "", "-d 10.96.0.0/12 -j ACCEPT"`,
			`node: drift IPv4: "", "jump_shadowed nat PREROUTING: -d 10.96.0.0/12 -j ACCEPT"`,
		}},
		{"a policy", ":FORWARD ACCEPT", ":FORWARD DROP", []string{`node: policy filter FORWARD (nft, IPv4): "ACCEPT", "DROP"`}},
		{"a rule that drops", "-A KUBE-FORWARD -m mark", "-A KUBE-FORWARD -j DROP\n-A KUBE-FORWARD -m mark", []string{
			`node: rule filter KUBE-FORWARD (nft, IPv4): "", "-j DROP"`,
		}},
		{"the order of jumps", "-A INPUT -j KUBE-EXTERNAL-SERVICES\n-A FORWARD -j KUBE-EXTERNAL-SERVICES\n-A INPUT -j KUBE-NODEPORTS\n",
			"-A INPUT -j KUBE-NODEPORTS\n-A FORWARD -j KUBE-EXTERNAL-SERVICES\n-A INPUT -j KUBE-EXTERNAL-SERVICES\n", []string{
				`node: order filter INPUT (nft, IPv4): "-j KUBE-EXTERNAL-SERVICES", "-j KUBE-NODEPORTS"`,
			}},
		{"a firewall", "*filter\n", "*filter\n:CORP - [0:0]\n-A CORP -p tcp -m tcp --dport 8080 -j REJECT --reject-with tcp-reset\n", []string{
			`node: rule filter, refusing (nft, IPv4): "", "CORP -p tcp -m tcp --dport 8080 -j REJECT --reject-with tcp-reset"`,
		}},
		{"network policies of pods", "*filter\n", "*filter\n:cali-tw-cali12345 - [0:0]\n-A cali-tw-cali12345 -j DROP\n", nil},
		{"another tool's table", "*nat\n", "*mangle\n:FORWARD ACCEPT [0:0]\n-A FORWARD -p tcp -j ACCEPT\nCOMMIT\n*nat\n", []string{
			`node: rule mangle FORWARD (nft, IPv4): "", "-p tcp -j ACCEPT"`,
		}},
		{"dispatch", "-A KUBE-SERVICES -d 10.96.0.10/32", "-A KUBE-SERVICES -d 10.96.0.11/32", []string{
			`shop/web:http IPv4: address 10.96.0.10:80: "→ KUBE-SVC", ""`,
			`shop/web:http IPv4: address 10.96.0.11:80: "", "→ KUBE-SVC"`,
			`shop/web:http IPv4: drift this port: "", "extra_dispatch cluster 10.96.0.11:80 → ` + svc + `"`,
			`shop/web:http IPv4: drift this port: "", "missing_dispatch cluster 10.96.0.10:80"`,
		}},
		{"where an endpoint's chain leads", "-j DNAT --to-destination 10.77.1.2:8080", "-j DNAT --to-destination 10.77.1.9:8080", []string{
			`shop/web:http IPv4: endpoint 10.77.1.2:8080, its chain: "to 10.77.1.2:8080, its own masqueraded, 2 rules", "to 10.77.1.9:8080, its own masqueraded, 2 rules"`,
			`shop/web:http IPv4: drift this port: "", "wrong_target ` + sep + `"`,
		}},
		{"what an endpoint's chain lets through", "-A " + sep + " -p tcp", "-A " + sep + " -p tcp -m tcp --dport 22 -j DROP\n-A " + sep + " -p tcp", []string{
			`shop/web:http IPv4: endpoint 10.77.1.2:8080, its chain: "to 10.77.1.2:8080, its own masqueraded, 2 rules", "to 10.77.1.2:8080, its own masqueraded, not for every packet, 3 rules"`,
			`shop/web:http IPv4: drift this port: "", "wrong_target ` + sep + `"`,
		}},
		{"the rule that leads to an endpoint", "-A " + svc + ` -m comment --comment "shop/web:http -> 10.77.2.2:8080" -j ` + kubeproxy.EndpointChain(local, endpoint["node-b"]) + "\n", "", []string{
			`shop/web:http IPv4: endpoint 10.77.2.2:8080: "in KUBE-SVC", ""`,
			`shop/web:http IPv4: drift this port: "", "missing_endpoint 10.77.2.2:8080"`,
		}},
		{"a share", "--probability 0.50000000000", "--probability 0.25000000000", []string{
			`shop/web:http IPv4: chain KUBE-SVC: "-m statistic --mode random --probability 0.50000000000 -j 10.77.1.2:8080", ""`,
			`shop/web:http IPv4: chain KUBE-SVC: "", "-m statistic --mode random --probability 0.25000000000 -j 10.77.1.2:8080"`,
			`shop/web:http IPv4: drift this port: "", "wrong_probability ` + svc + `"`,
		}},
		{"a refusal", "-A KUBE-FORWARD -m mark", `-A KUBE-SERVICES -d 10.96.0.10/32 -p tcp -m comment --comment "shop/web:http has no endpoints" -m tcp --dport 80 -j REJECT` + "\n-A KUBE-FORWARD -m mark", []string{
			`shop/web:http IPv4: address 10.96.0.10:80: "→ KUBE-SVC", "rejected: no endpoints, → KUBE-SVC"`,
			`shop/web:http IPv4: drift this port: "", "rejecting_with_endpoints cluster 10.96.0.10:80"`,
		}},
		{"nothing", "", "", nil},
	} {
		a := twoNodes(t, "node-a", "node-a", "node-b")
		b := edited(t, replaced(t, tt.from, tt.to), "node-a", "node-a", "node-b")
		got, same := compared(t, a, b, Selection{})
		if d := cmp.Diff(tt.want, got); d != "" || same != (len(tt.want) == 0) {
			t.Errorf("%s: same %v (-want +got):\n%s", tt.name, same, d)
		}
		back, same := compared(t, b, a, Selection{})
		if len(back) != len(got) || same != (len(tt.want) == 0) {
			t.Errorf("%s: the other way round: same %v:\n%s", tt.name, same, strings.Join(back, "\n"))
		}
	}
}

// TestNodesThatDiffer changes what is not in the rules.
func TestNodesThatDiffer(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*capture.Node)
		want   []string
	}{
		{"sysctls", func(n *capture.Node) {
			n.Sysctls = map[string]string{"net.ipv4.ip_forward": "0", "net.ipv4.vs.conntrack": "1", "net.ipv4.conf.all.rp_filter": "0"}
		}, []string{`node: sysctl net.ipv4.ip_forward: "1", "0"`, `node: sysctl net.ipv4.vs.conntrack: "", "1"`}},
		{"kernel", func(n *capture.Node) { n.Kernel = "5.15.0" }, []string{`node: kernel release: "6.18.0", "5.15.0"`}},
		{"what is not known", func(n *capture.Node) {
			n.Catalog, n.Unread = nil, map[ruleset.Backend]string{ruleset.Legacy: "needs CAP_NET_ADMIN"}
		}, []string{`node: unread legacy: "", "needs CAP_NET_ADMIN"`, `node: api answers: "yes", "no"`}},
		{"proxy mode", func(n *capture.Node) {
			n.Rules = nil
		}, []string{
			`node: proxy_mode kube-proxy: "iptables", "none"`,
			`node: backend IPv4 nft: "`, `node: backend IPv6 nft: "`,
		}},
		{"another backend", func(n *capture.Node) { n.Rules = realNode(t, ruleset.Legacy, nil).Rules }, []string{
			`node: backend IPv4: "nft", "legacy"`, `node: backend IPv6: "nft", "legacy"`,
		}},
		{"two backends", func(n *capture.Node) {
			n.Rules = append(n.Rules, capture.Rules{Set: realNode(t, ruleset.Legacy, nil).Rules[0].Set})
		}, []string{`node: backend IPv4 legacy: "", "`, `node: drift IPv4: "", "two_backends legacy and nft"`}},
		{"one moment's time", func(n *capture.Node) { n.Time = n.Time.Add(1) }, nil},
	} {
		b := realNode(t, ruleset.NFT, nil)
		tt.change(b)
		got, same := compared(t, realNode(t, ruleset.NFT, nil), b, Selection{})
		var left []string
		for _, line := range got { // rules that the other node has not are many
			if !strings.Contains(line, ": rule ") {
				left = append(left, line)
			}
		}
		ok := len(left) == len(tt.want)
		for i := range tt.want {
			ok = ok && strings.HasPrefix(left[i], tt.want[i])
		}
		if !ok || same != (len(tt.want) == 0) {
			t.Errorf("%s: same %v, got:\n%s", tt.name, same, strings.Join(left, "\n"))
		}
	}
}

// TestPolicyExplains: each node has its own endpoints, and one without drops what comes
// from outside. Its addresses and its pods' range are its own.
func TestPolicyExplains(t *testing.T) {
	for _, tt := range []struct {
		name string
		a, b *capture.Node
		same bool
		want []string
	}{
		{"an endpoint each", twoNodes(t, "node-a", "node-a", "node-b"), twoNodes(t, "node-b", "node-a", "node-b"), true, []string{
			`shop/web:http IPv4: endpoint 10.77.1.2:8080: "in KUBE-SVL", "" by policy`,
			`shop/web:http IPv4: endpoint 10.77.2.2:8080: "", "in KUBE-SVL" by policy`,
		}},
		{"one without", twoNodes(t, "node-a", "node-a"), twoNodes(t, "node-b", "node-a"), true, []string{
			`shop/web:http IPv4: address node port 30080: "→ KUBE-EXT", "dropped: no local endpoints, → KUBE-EXT" by policy`,
			`shop/web:http IPv4: chain KUBE-SVL: "there", "" by policy`,
			`shop/web:http IPv4: chain KUBE-EXT: "-j KUBE-SVL-67NZLRHBNDSAWJRO", "" by policy`,
		}},
		{"one without, which does not drop", twoNodes(t, "node-a", "node-a"), edited(t, func(s string) string {
			return strings.ReplaceAll(s, "-A KUBE-EXTERNAL-SERVICES -p", "-A KUBE-FORWARD -p")
		}, "node-b", "node-a"), false, []string{
			`node: rule filter KUBE-FORWARD (nft, IPv4): "", "-p tcp -m comment --comment \"shop/web:http has no local endpoints\" -m addrtype --dst-type LOCAL -m tcp --dport 30080 -j DROP"`,
			`shop/web:http IPv4: chain KUBE-SVL: "there", "" by policy`,
			`shop/web:http IPv4: chain KUBE-EXT: "-j KUBE-SVL-67NZLRHBNDSAWJRO", "" by policy`,
			`shop/web:http IPv4: drift this port: "", "not_rejecting_without_endpoints nodeport port 30080"`,
		}},
		{"an API that has changed", twoNodes(t, "node-a", "node-a", "node-b"), twoNodes(t, "node-a", "node-a"), false, []string{
			`shop/web:http IPv4: api endpoint 10.77.2.2:8080: "ready, on node-b", ""`,
			`shop/web:http IPv4: endpoint 10.77.2.2:8080: "in KUBE-SVC", "" by api`,
		}},
	} {
		got, same := compared(t, tt.a, tt.b, Selection{})
		if d := cmp.Diff(tt.want, got); d != "" || same != tt.same {
			t.Errorf("%s: same %v (-want +got):\n%s", tt.name, same, d)
		}
	}
}

// TestAPIFields: what of a Service differs.
func TestAPIFields(t *testing.T) {
	a, b := twoNodes(t, "node-a", "node-a"), twoNodes(t, "node-a", "node-a")
	svc := b.Catalog.Services[0]
	svc.InternalLocal, svc.ClientIPAffinity, svc.AffinitySeconds, svc.Ports[0].NodePort = true, true, 60, 30081
	got, _ := compared(t, a, b, Selection{Namespace: "shop", Name: "web", Port: "http"})
	want := []string{
		`shop/web:http IPv4: api internalTrafficPolicy: "Cluster", "Local"`, `shop/web:http IPv4: api nodePort: "30080", "30081"`,
		`shop/web:http IPv4: api sessionAffinity: "None", "ClientIP for 60 s"`,
	}
	if d := cmp.Diff(want, got[:min(3, len(got))]); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	b = twoNodes(t, "node-a", "node-a")
	b.Catalog = &service.Catalog{Synced: true, Node: b.Catalog.Node}
	got, _ = compared(t, a, b, Selection{})
	if !strings.Contains(strings.Join(got, "\n"), `shop/web:http IPv4: api clusterIP: "10.96.0.10", ""`) {
		t.Errorf("a Service that is gone: %q", got)
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

// TestReportAsJSON: lists are lists, if empty ones, too.
func TestReportAsJSON(t *testing.T) {
	n := twoNodes(t, "node-a", "node-a")
	r, err := Compare(n, n, Selection{})
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(r)
	if err != nil || !strings.Contains(string(b), `"same":true,"node":[],"services":[]}`) || !strings.Contains(string(b), `"proxyMode":"iptables","backends":["nft"],"api":true`) {
		t.Errorf("%s, %v", b, err)
	}
}
