// SPDX-License-Identifier: Apache-2.0

package kubeproxy

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/svcscope/svcscope/pkg/internal/iptsave"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/ruleset"
	"github.com/svcscope/svcscope/pkg/service"
)

func parse(t testing.TB, family netfilter.Family, text string) *ruleset.Ruleset {
	t.Helper()
	rs, err := iptsave.Parse(family, ruleset.Legacy, text)
	if err != nil {
		t.Fatal(err)
	}
	return rs
}

func load(t testing.TB, family netfilter.Family, file string) *ruleset.Ruleset {
	t.Helper()
	text, err := os.ReadFile("testdata/" + file)
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, family, string(text))
}

// describe writes a view as lines that can be compared.
func describe(v *View) []string {
	var out []string
	costs := v.RulesByPort()
	for hash, p := range v.Ports {
		name := "?"
		if p.Named {
			name = p.Name.String() + "/" + string(p.Name.Protocol)
		}
		var conns, external uint64
		for j := range p.EndpointJumps() {
			conns += j.Rule.Counter.Packets
		}
		for j := range p.ExternalJumps() {
			external += j.Rule.Counter.Packets
		}
		var eps []string
		for _, e := range p.Endpoints {
			eps = append(eps, e.Addr.String())
		}
		out = append(out, fmt.Sprintf("port %s conns=%d external=%d rules=%d+%d %s",
			name, conns, external, costs[hash].NAT, costs[hash].Filter, strings.Join(eps, " ")))
	}
	for _, d := range v.Dispatch {
		out = append(out, fmt.Sprintf("dispatch %s/%s %s -> %s named=%v", d.Name, d.Name.Protocol, frontendText(d.Frontend), d.Rule.Action.Chain[:8], d.Named))
	}
	for _, r := range v.Refusals {
		out = append(out, fmt.Sprintf("refuse %s/%s %s %s named=%v", r.Name, r.Name.Protocol, frontendText(r.Frontend), r.Reason, r.Named))
	}
	for _, h := range v.HealthChecks {
		out = append(out, fmt.Sprintf("health %s/%s", h.Port, h.Port.Protocol))
	}
	slices.Sort(out)
	return out
}

func frontendText(f Frontend) string {
	kinds := [...]string{"unknown", "cluster", "external", "lb", "nodeport"}
	if !f.Addr.IsValid() {
		return fmt.Sprintf("%s :%d/%s", kinds[f.Kind], f.Port, f.Protocol)
	}
	return fmt.Sprintf("%s %s:%d/%s", kinds[f.Kind], f.Addr, f.Port, f.Protocol)
}

func golden(t *testing.T, file string, got []string) {
	t.Helper()
	text, err := os.ReadFile("testdata/" + file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(strings.TrimSpace(string(text)), "\n"), got); diff != "" {
		t.Errorf("%s (-want +got)\n%s", file, diff)
	}
}

func TestViewOfKubeProxysRules(t *testing.T) {
	tests := []struct {
		name, file, golden string
		family             netfilter.Family
	}{
		{"IPv4", "ip4.save", "ip4.view", netfilter.IPv4},
		{"IPv6", "ip6.save", "ip6.view", netfilter.IPv6},
		{"without the comments that a large cluster has not", "ip4-large.save", "ip4.view", netfilter.IPv4},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v := NewView(load(t, tt.family, tt.file))
			golden(t, tt.golden, describe(v))
			if !v.Recognised() || !v.Prerouting || !v.Output {
				t.Errorf("recognised %v, from prerouting %v, from output %v", v.Recognised(), v.Prerouting, v.Output)
			}
			if want := 13; v.DispatchRules != want {
				t.Errorf("dispatch rules: got %d, want %d", v.DispatchRules, want)
			}
		})
	}
}

// nat is a nat table with these rules, chains declared.
func nat(rules string) string {
	seen, chains := map[string]bool{}, ""
	for f := range strings.FieldsSeq(rules) {
		if strings.HasPrefix(f, "KUBE-") && !seen[f] {
			seen[f], chains = true, chains+":"+f+" - [0:0]\n"
		}
	}
	return "*nat\n:PREROUTING ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n" + chains + rules + "COMMIT\n"
}

const (
	webHash = "XPGD46QRK7WJZT7O" // ns1/svc1:p80, TCP
	sep     = "KUBE-SEP-SXIVWICOYRO3J4NJ"
)

func TestACommentIsBelievedOnlyWithTheChainsHash(t *testing.T) {
	tests := []struct {
		name, rules string
		named       bool
	}{
		{"the right name", `-A KUBE-SERVICES -d 10.0.0.1/32 -p tcp -m comment --comment "ns1/svc1:p80 cluster IP" -m tcp --dport 80 -j KUBE-SVC-` + webHash, true},
		{"another name", `-A KUBE-SERVICES -d 10.0.0.1/32 -p tcp -m comment --comment "ns1/svc2:p80 cluster IP" -m tcp --dport 80 -j KUBE-SVC-` + webHash, false},
		{"another protocol", `-A KUBE-SERVICES -d 10.0.0.1/32 -p udp -m comment --comment "ns1/svc1:p80 cluster IP" -m udp --dport 80 -j KUBE-SVC-` + webHash, false},
		{"a rule without protocol", `-A KUBE-SVC-` + webHash + ` -m comment --comment "ns1/svc1:p80 -> 10.180.0.1:80" -j ` + sep, true},
		{"an external chain alone", `-A KUBE-EXT-` + webHash + ` -m comment --comment "masquerade traffic for ns1/svc1:p80 external destinations" -j KUBE-MARK-MASQ`, true},
		{"no comment", `-A KUBE-SERVICES -d 10.0.0.1/32 -p tcp -m tcp --dport 80 -j KUBE-SVC-` + webHash, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := NewView(parse(t, netfilter.IPv4, nat(tt.rules+"\n"))).Ports[webHash]
			if p == nil {
				t.Fatal("port not found")
			}
			want := service.PortName{}
			if tt.named {
				want = portName("ns1", "svc1", "p80", service.TCP)
			}
			if p.Named != tt.named || p.Name != want {
				t.Errorf("got %v %v, want %v %v", p.Named, p.Name, tt.named, want)
			}
		})
	}
}

func TestRecognition(t *testing.T) {
	const rule = "-A KUBE-SERVICES -d 10.0.0.1/32 -j KUBE-SVC-" + webHash + "\n"
	tests := []struct {
		name, text string
		want       bool
	}{
		{"reached from prerouting", nat("-A PREROUTING -j KUBE-SERVICES\n" + rule), true},
		{"reached from output alone", nat("-A OUTPUT -j KUBE-SERVICES\n" + rule), true},
		{"there but not reached", nat(rule), false},
		{"not there", nat("-A PREROUTING -j DOCKER\n"), false},
		{"no tables", "", false},
		{"another tool's filter rules", "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -p icmp -j DROP\nCOMMIT\n", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := NewView(parse(t, netfilter.IPv4, tt.text)).Recognised(); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
	if NewView(nil).Recognised() {
		t.Error("no ruleset: recognised")
	}
}

func TestEndpointsAreFoundWithoutTheirChains(t *testing.T) {
	rs := parse(t, netfilter.IPv4, nat(
		"-A KUBE-SVC-"+webHash+` -m comment --comment "ns1/svc1:p80 -> 10.180.0.1:80" -m statistic --mode random --probability 0.5 -j `+sep+"\n"+
			"-A KUBE-SVC-"+webHash+" -j KUBE-SEP-AAAAAAAAAAAAAAAA\n"))
	nat := rs.Table("nat")
	for _, c := range nat.Chains {
		if kind, _ := ParseChain(c.Name); kind == KindEndpoint {
			c.Unread, c.Use = true, 3 // two rules and a jump
		}
	}
	v := NewView(rs)
	p := v.Ports[webHash]
	if len(p.Endpoints) != 2 {
		t.Fatalf("got %d endpoints, want 2", len(p.Endpoints))
	}
	if got := p.Endpoints[0].Addr.String(); got != "10.180.0.1:80" {
		t.Errorf("by comment: got %s", got)
	}
	if got := p.Endpoints[1].Addr; got.IsValid() {
		t.Errorf("neither chain nor comment: got %v", got)
	}
	if got := v.RulesByPort()[webHash]; got != (Cost{NAT: 2 + 2 + 2}) {
		t.Errorf("cost: got %+v", got)
	}
}

func TestManyEndpointsAreToldApart(t *testing.T) {
	var b strings.Builder
	for range 2 { // affinity, then the shares
		for i := range 40 {
			fmt.Fprintf(&b, "-A KUBE-SVC-%s -j KUBE-SEP-AAAAAAAAAAAAAA%c%c\n", webHash, 'A'+i/10, 'A'+i%10)
		}
	}
	if got := len(NewView(parse(t, netfilter.IPv4, nat(b.String()))).Ports[webHash].Endpoints); got != 40 {
		t.Errorf("got %d endpoints, want 40", got)
	}
}

// Kubernetes 1.24 marks packets in nat instead of dropping them in filter.
func TestOldVersions(t *testing.T) {
	text := nat(`-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A KUBE-SERVICES -d 192.0.2.1/32 -p tcp -m comment --comment "ns1/svc1:p80 loadbalancer IP" -m tcp --dport 80 -j KUBE-FW-` + webHash + `
[5:300] -A KUBE-FW-` + webHash + ` -m comment --comment "ns1/svc1:p80 loadbalancer IP" -j KUBE-MARK-DROP
[7:420] -A KUBE-SVL-` + webHash + ` -m comment --comment "ns1/svc1:p80 has no local endpoints" -j KUBE-MARK-DROP
-A KUBE-XLB-` + webHash + ` -j KUBE-MARK-DROP
-A KUBE-MARK-DROP -j MARK --set-xmark 0x8000/0x8000
`)
	v := NewView(parse(t, netfilter.IPv4, text))
	got := map[Reason]uint64{}
	for _, r := range v.Refusals {
		got[r.Reason] += r.Rule.Counter.Packets
		if !r.Named || r.Table != "nat" {
			t.Errorf("refusal %+v", r)
		}
	}
	if diff := cmp.Diff(map[Reason]uint64{SourceRange: 5, NoLocalEndpoints: 7}, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}
