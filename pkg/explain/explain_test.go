// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/svcscope/svcscope/pkg/capture"
	"github.com/svcscope/svcscope/pkg/internal/iptsave"
	"github.com/svcscope/svcscope/pkg/internal/realcluster"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/ruleset"
)

func TestWhatIsNotThere(t *testing.T) {
	withoutAPI := func(n *capture.Node) *capture.Node {
		n.Catalog = nil
		return n
	}
	nftables := withoutAPI(bare(t))
	nftables.Rules[0].NFTablesMode = true
	unread := withoutAPI(&capture.Node{Unread: map[ruleset.Backend]string{ruleset.NFT: "open nf_tables: needs CAP_NET_ADMIN"}})
	tests := []struct {
		name string
		node *capture.Node
		of   string
		want string
	}{
		{"no such Service", plain(t), "shop/web", "find service shop/web: not in the API nor in the rules of this node"},
		{"no such Service, with a port", plain(t), "shop/web:http", "find service shop/web:http: not in the API nor in the rules of this node"},
		{"no such Service in the rules", withoutAPI(plain(t)), "shop/web", "find service shop/web: not in the rules of this node, and the API is not known"},
		{"a mode of which the rules say nothing", nftables, "web", "find service default/web: unknown without the API, as kube-proxy works in nftables mode here"},
		{"no rules", withoutAPI(bare(t)), "web", "find service default/web: unknown without the API, as kube-proxy has no rules here"},
		{"unread rules", unread, "web", "find service default/web: not in the rules that could be read, and the API is not known"},
		{"no such port", plain(t), "kube-system/kube-dns:http", "find port http of service kube-system/kube-dns: it has dns 53/UDP, dns-tcp 53/TCP, metrics 9153/TCP"},
		{"no such number", plain(t), "nodeport:8080", "find port 8080 of service default/nodeport: it has 80/TCP"},
		{"port 0", plain(t), "nodeport:0", "find port 0 of service default/nodeport: it has 80/TCP"},
		{"no port at all", plain(t), "elsewhere:80", "find port 80 of service default/elsewhere: it has no ports"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r, err := New(tt.node, query(tt.of))
			if err == nil || err.Error() != tt.want {
				t.Errorf("%v, %+v\nwant %s", err, r, tt.want)
			}
		})
	}
}

func TestPorts(t *testing.T) {
	withAPI, without := plain(t), plain(t)
	without.Catalog = nil
	tests := []struct {
		of   string
		want []string
	}{
		{"kube-system/kube-dns", []string{"dns 53/UDP", "dns-tcp 53/TCP", "metrics 9153/TCP"}},
		{"kube-system/kube-dns:dns", []string{"dns 53/UDP"}},
		{"kube-system/kube-dns:53", []string{"dns 53/UDP", "dns-tcp 53/TCP"}},
		{"nodeport:80", []string{"80/TCP"}},
		{"empty:80", []string{"80/TCP"}}, // of refusals alone
	}
	for _, tt := range tests {
		for name, n := range map[string]*capture.Node{"with the API": withAPI, "without": without} {
			t.Run(tt.of+" "+name, func(t *testing.T) {
				var got []string
				for _, p := range report(t, n, tt.of).Paths {
					if p.IPFamily == "IPv4" {
						got = append(got, portText(p.PortName, p.Port, p.Protocol))
					}
				}
				if diff := cmp.Diff(tt.want, got); diff != "" {
					t.Errorf("(-want +got)\n%s", diff)
				}
			})
		}
	}
}

func TestDifferences(t *testing.T) {
	svc := "-A KUBE-SVC-" + nodeportHash
	tests := []struct {
		name  string
		edits []func(string) string
		want  []string
	}{
		{"as it should be", nil, nil},
		{"chain missing", []func(string) string{withoutChain("KUBE-SVC-" + nodeportHash)}, []string{"missing_chain"}},
		{"chain emptied", []func(string) string{without(svc)}, []string{"empty_chain"}},
		{"endpoint missing", []func(string) string{without(svc, "KUBE-SEP-P6GJ3URQWEZY7S6X")}, []string{"missing_endpoint"}},
		{"share edited", []func(string) string{replaced("0.5000", "0.9000", svc)}, []string{"wrong_probability"}},
		{"address edited", []func(string) string{replaced("10.244.1.11:8080", "10.244.1.77:8080", "-A KUBE-SEP-P6GJ3URQWEZY7S6X", "DNAT")}, []string{"wrong_target"}},
		{"dispatch missing", []func(string) string{without("-A KUBE-SERVICES", "10.96.1.12/32")}, []string{"missing_dispatch"}},
		{"jumps missing", []func(string) string{without("-A PREROUTING"), without("-A OUTPUT")}, []string{"jump_missing", "jump_missing"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			r := report(t, node(t, ruleset.NFT, tt.edits...), "nodeport")
			for _, f := range r.Families {
				if f.IPFamily == "IPv4" {
					got = append(got, kinds(f.Differences)...)
				}
			}
			for _, p := range r.Paths {
				if p.IPFamily == "IPv4" {
					got = append(got, kinds(p.Differences)...)
				}
			}
			// A flush of filter's OUTPUT comes with that of nat's.
			got = slices.DeleteFunc(got, func(s string) bool { return strings.Contains(s, "filter ") })
			for i := range got {
				got[i], _, _ = strings.Cut(got[i], " ")
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func kinds(all []Difference) (out []string) {
	for _, d := range all {
		out = append(out, d.Kind+" "+d.Detail)
	}
	return out
}

// TestChances: the shares that rules give a client that comes for the first time.
func TestChances(t *testing.T) {
	const a, b, c = "KUBE-SEP-AAAAAAAAAAAAAAAA", "KUBE-SEP-BBBBBBBBBBBBBBBB", "KUBE-SEP-CCCCCCCCCCCCCCCC"
	random := func(p string) string { return "-m statistic --mode random --probability " + p + " " }
	tests := []struct {
		name  string
		rules []string
		want  string
	}{
		{"one", []string{"-j " + a}, "A 1.00"},
		{"thirds", []string{random("0.33333333349") + "-j " + a, random("0.50000000000") + "-j " + b, "-j " + c}, "A 0.33 B 0.33 C 0.33"},
		{"the last is missing", []string{random("0.33333333349") + "-j " + a, random("0.50000000000") + "-j " + b}, "A 0.33 B 0.33"},
		{"twice", []string{random("0.50000000000") + "-j " + a, "-j " + a}, "A 1.00"},
		{"inverted", []string{"-m statistic --mode random ! --probability 0.25000000000 -j " + a, "-j " + b}, "A 0.75 B 0.25"},
		{"marks and notes before", []string{"! -s 10.244.0.0/16 -j KUBE-MARK-MASQ", "-j NFLOG", "-j " + a}, "A 1.00"},
		{"clients that come back", []string{"-m recent --rcheck --seconds 600 --reap --name x --mask 255.255.255.255 --rsource -j " + a, random("0.50000000000") + "-j " + a, "-j " + b}, "A 0.50 B 0.50"},
		{"a rule that ends half", []string{random("0.50000000000") + "-j DROP", "-j " + a}, "A 0.50"},
		{"one below the last", []string{"-j " + a, "-j " + b}, "A 1.00 B 0.00"},
		{"a rule for some", []string{"-s 10.0.0.0/8 -j " + a, "-j " + b}, "unknown"},
		{"another's chain", []string{"-j OTHER", "-j " + a}, "unknown"},
		{"every second", []string{"-m statistic --mode nth --every 2 --packet 0 -j " + a, "-j " + b}, "unknown"},
		{"none", nil, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var text strings.Builder
			text.WriteString("*nat\n:OUTPUT ACCEPT [0:0]\n")
			for _, chain := range []string{"KUBE-SVC-X", "KUBE-MARK-MASQ", "OTHER", a, b, c} {
				text.WriteString(":" + chain + " - [0:0]\n")
			}
			for _, r := range tt.rules {
				text.WriteString("[0:0] -A KUBE-SVC-X " + r + "\n")
			}
			rs, err := iptsave.Parse(netfilter.IPv4, ruleset.NFT, text.String()+"COMMIT\n")
			if err != nil {
				t.Fatal(err)
			}
			shares, known := chances(rs.Table("nat").Chain("KUBE-SVC-X"))
			got := "unknown"
			if known {
				var words []string
				for _, name := range []string{a, b, c} {
					if share, ok := shares[name]; ok {
						words = append(words, fmt.Sprintf("%s %.2f", name[len("KUBE-SEP-"):][:1], share))
					}
				}
				got = strings.Join(words, " ")
			}
			if got != tt.want {
				t.Errorf("%s, want %s", got, tt.want)
			}
		})
	}
}

// TestMasquerades: whose connections get an address of the node, by the ways that
// kube-proxy's flags have it write.
func TestMasquerades(t *testing.T) {
	const head = "-A KUBE-SVC-" + webHash + " ! -s 10.244.0.0/16 "
	tests := []struct{ name, now, want string }{
		{"--cluster-cidr", head, "clients outside 10.244.0.0/16"},
		{"--detect-local-mode=BridgeInterface", "-A KUBE-SVC-" + webHash + " ! -i cni0 ", "clients not by interface cni0"},
		{"--detect-local-mode=InterfaceNamePrefix", "-A KUBE-SVC-" + webHash + " ! -i veth+ ", "clients not by interface veth+"},
		{"--masquerade-all", "-A KUBE-SVC-" + webHash + " ", "all clients (--masquerade-all)"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n := node(t, ruleset.NFT, replaced(head, tt.now, head))
			e := report(t, n, "web").Paths[0].Entries[0]
			if got := masqueradesText(e.Masquerades); got != "masquerades "+tt.want {
				t.Errorf("%s, want %s", got, tt.want)
			}
		})
	}
	n := node(t, ruleset.NFT, without("-A KUBE-SVC-"+webHash, "KUBE-MARK-MASQ"))
	if got := masqueradesText(report(t, n, "web").Paths[0].Entries[0].Masquerades); got != "not masqueraded" {
		t.Errorf("without the rule: %s", got)
	}
}

// TestTracked: entries are told by way and endpoint, and how many are older than the
// endpoint's rule: what is more than it has counted.
func TestTracked(t *testing.T) {
	n := plain(t)
	tracked(n, "10.96.1.12:80", "10.244.1.11:8080", 20, 0)       // DNAT has counted 24
	tracked(n, "192.168.50.1:30080", "10.244.1.11:8080", 9, 0)   // to the node's own address
	tracked(n, "192.168.77.1:30080", "10.244.1.12:8080", 30, 2)  // to one that the API lacks; 36 counted
	tracked(n, "192.168.77.1:30080", "10.0.0.1:8080", 5, 0)      // another's rule
	tracked(n, "10.96.1.12:80", "10.244.1.99:8080", 3, 1)        // not in the rules
	tracked(n, "10.96.1.12:81", "10.244.1.11:8080", 100, 0)      // another port
	tracked(n, "[fd00:10:96::112]:80", "[fd00::1]:8080", 100, 0) // another family
	n.Flows = append(n.Flows, capture.FlowTally{Protocol: 17, To: n.Flows[0].To, From: n.Flows[0].From, Entries: 100})
	text := func(n *capture.Node) string {
		p := report(t, n, "nodeport").Paths[0]
		var out []string
		for _, e := range p.Entries {
			out = append(out, fmt.Sprintf("%s %d", e.Frontend, *e.Tracked))
		}
		for _, e := range p.Endpoints {
			line := fmt.Sprintf("%s in rules %v: %d, %d closing", e.Address, *e.InRules, e.Tracked.Entries, e.Tracked.Closing)
			if e.Tracked.OlderAtLeast != nil {
				line += fmt.Sprintf(", %d older", *e.Tracked.OlderAtLeast)
			}
			out = append(out, line)
		}
		return strings.Join(out, "\n")
	}
	want := `cluster 23
nodeport 39
10.244.1.11:8080 in rules true: 29, 0 closing, 5 older
10.244.1.12:8080 in rules true: 30, 2 closing, 0 older
10.244.1.99:8080 in rules false: 3, 1 closing`
	if diff := cmp.Diff(want, text(n)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	// With two backends an entry may have come by the other one's rule.
	n.Rules = append(n.Rules, rules(t, realcluster.All()[1]))
	if got := text(n); strings.Contains(got, "older") {
		t.Errorf("of two backends one cannot tell:\n%s", got)
	}
	n.Flows, n.FlowsError = nil, "no"
	for _, p := range report(t, n, "nodeport").Paths {
		if p.Conntrack != nil || p.Entries[0].Tracked != nil || p.Endpoints[0].Tracked != nil {
			t.Errorf("what was not read is told: %+v", p)
		}
	}
}

// TestOtherWays: rules that lead a Service's address elsewhere, and node ports of some
// addresses alone.
func TestOtherWays(t *testing.T) {
	toWeb := replaced("-j KUBE-SVC-"+nodeportHash, "-j KUBE-SVC-"+webHash, "-A KUBE-SERVICES", "10.96.1.12/32")
	someAddress := replaced("-m addrtype --dst-type LOCAL -j KUBE-NODEPORTS", "-d 192.168.50.1/32 -j KUBE-NODEPORTS", "-A KUBE-SERVICES")
	p := report(t, node(t, ruleset.NFT, toWeb, someAddress), "nodeport").Paths[0]
	e := p.Entries[0]
	if len(e.Dispatch) != 1 || e.Dispatch[0].Target != "KUBE-SVC-"+webHash || e.Masquerades != nil {
		t.Errorf("%+v", e)
	}
	if diff := cmp.Diff([]string{"wrong_target 10.96.1.12:80 → KUBE-SVC-" + webHash}, kinds(p.Differences)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if got := p.Entries[1].Dispatch[0].note(); got != "to 192.168.50.1" {
		t.Errorf("node ports: %s", got)
	}
	localhost := replaced("-m addrtype --dst-type LOCAL -j KUBE-NODEPORTS", "! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS", "-A KUBE-SERVICES")
	p = report(t, node(t, ruleset.NFT, localhost), "nodeport").Paths[0]
	if got := p.Entries[1].Dispatch[0].note(); got != "to any but 127.0.0.0/8" {
		t.Errorf("node ports: %s", got)
	}
}

// TestTwoBackends: both ways are told, and that there are two.
func TestTwoBackends(t *testing.T) {
	n := plain(t)
	n.Rules = append(n.Rules, rules(t, realcluster.All()[1]))
	r := report(t, n, "web")
	var got []string
	for _, p := range r.Paths {
		got = append(got, p.IPFamily+" "+p.Backend)
	}
	if diff := cmp.Diff([]string{"IPv4 nft", "IPv4 legacy", "IPv6 nft"}, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if diff := cmp.Diff([]string{"two_backends legacy and nft"}, kinds(r.Families[0].Differences)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}
