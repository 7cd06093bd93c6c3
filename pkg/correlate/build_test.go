// SPDX-License-Identifier: Apache-2.0

package correlate

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/svcscope/svcscope/pkg/internal/iptsave"
	"github.com/svcscope/svcscope/pkg/kubeproxy"
	"github.com/svcscope/svcscope/pkg/ledger"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/ruleset"
	"github.com/svcscope/svcscope/pkg/service"
)

var (
	at    = time.Date(2026, 5, 6, 7, 8, 9, 0, time.UTC)
	web   = service.PortName{Name: service.Name{Namespace: "shop", Name: "web"}, Port: "http", Protocol: service.TCP}
	ghost = service.PortName{Name: service.Name{Namespace: "shop", Name: "ghost"}, Protocol: service.TCP}
	pod1  = netip.MustParseAddrPort("10.244.0.2:8080")
	pod2  = netip.MustParseAddrPort("10.244.0.3:8080")
)

// save is the rules of web and ghost with packets passed by the rules: jumps
// to the two endpoints, the external jump, and ghost's refusal.
func save(first, second, external, refused int) string {
	names := strings.NewReplacer(
		"SVC", kubeproxy.ServiceChain(web), "EXT", kubeproxy.ExternalChain(web),
		"SEP1", kubeproxy.EndpointChain(web, pod1), "SEP2", kubeproxy.EndpointChain(web, pod2))
	text := fmt.Sprintf(`*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:KUBE-SERVICES - [0:0]
:cali-FORWARD - [0:0]
[0:0] -A FORWARD -j cali-FORWARD
[0:0] -A OUTPUT -m conntrack --ctstate NEW -j KUBE-SERVICES
[%d:0] -A KUBE-SERVICES -d 10.96.0.11/32 -p tcp -m comment --comment "shop/ghost has no endpoints" -m tcp --dport 80 -j REJECT --reject-with icmp-port-unreachable
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:KUBE-SERVICES - [0:0]
:EXT - [0:0]
:SVC - [0:0]
:SEP1 - [0:0]
:SEP2 - [0:0]
[0:0] -A PREROUTING -j KUBE-SERVICES
[0:0] -A OUTPUT -j KUBE-SERVICES
[0:0] -A KUBE-SERVICES -d 10.96.0.10/32 -p tcp -m comment --comment "shop/web:http cluster IP" -m tcp --dport 80 -j SVC
[0:0] -A KUBE-SERVICES -d 192.0.2.1/32 -p tcp -m comment --comment "shop/web:http external IP" -m tcp --dport 80 -j EXT
[%d:0] -A EXT -j SVC
[%d:0] -A SVC -m comment --comment "shop/web:http -> 10.244.0.2:8080" -m statistic --mode random --probability 0.50000000000 -j SEP1
[%d:0] -A SVC -m comment --comment "shop/web:http -> 10.244.0.3:8080" -j SEP2
[%d:0] -A SEP1 -p tcp -m comment --comment "shop/web:http" -m tcp -j DNAT --to-destination 10.244.0.2:8080
[%d:0] -A SEP2 -p tcp -m comment --comment "shop/web:http" -m tcp -j DNAT --to-destination 10.244.0.3:8080
COMMIT
`, refused, external, first, second, first, second)
	return names.Replace(text)
}

func parse(t *testing.T, b ruleset.Backend, text string) *ruleset.Ruleset {
	t.Helper()
	rs, err := iptsave.Parse(netfilter.IPv4, b, text)
	if err != nil {
		t.Fatal(err)
	}
	if b == ruleset.NFT {
		handle(rs)
	}
	return rs
}

// handle gives the rules handles, as nf_tables does.
func handle(rs *ruleset.Ruleset) {
	n := uint64(0)
	for _, table := range rs.Tables {
		for _, c := range table.Chains {
			for i := range c.Rules {
				n++
				c.Rules[i].Handle = n
			}
		}
	}
}

// catalog has web with pod1 and a third pod, and fresh, which has no rules yet.
func catalog() *service.Catalog {
	ready := func(a string) service.Endpoint {
		return service.Endpoint{Addr: netip.MustParseAddrPort(a), Ready: true, Serving: true}
	}
	svc := func(name, ip string, p service.Port) *service.Service {
		return &service.Service{
			Name: service.Name{Namespace: "shop", Name: name}, Type: "ClusterIP",
			ClusterIPs: []netip.Addr{netip.MustParseAddr(ip)}, Ports: []service.Port{p},
		}
	}
	return &service.Catalog{
		Synced: true, Node: service.Node{Name: "node-a"},
		Services: []*service.Service{
			svc("fresh", "10.96.0.12", service.Port{Protocol: service.UDP, Port: 53}),
			svc("web", "10.96.0.10", service.Port{Name: "http", Protocol: service.TCP, Port: 80, NodePort: 30080}),
		},
		Endpoints: map[service.PortName][]service.Endpoint{web: {ready("10.244.0.2:8080"), ready("10.244.0.4:8080")}},
	}
}

// input is one reading after another, given to a new ledger as an agent does.
type input struct {
	names   *Names
	max     int
	backend []ruleset.Backend // of the readings
	texts   []string
}

func (in input) build(t *testing.T) *Snapshot {
	t.Helper()
	l := ledger.New(in.max)
	latest := map[ruleset.Backend]Rules{}
	for i, text := range in.texts {
		rs := parse(t, in.backend[i], text)
		rules := NewRules(rs)
		latest[rs.Backend] = rules
		l.Know(KnownPorts([]Rules{rules}, in.names), at)
		l.Apply(wholeReading(rs, rules.View, in.names), at)
	}
	var rules []Rules
	for _, b := range []ruleset.Backend{ruleset.NFT, ruleset.Legacy} {
		if r, ok := latest[b]; ok {
			rules = append(rules, r)
		}
	}
	return Build(Inputs{NodeName: "node-a", Names: in.names, Rules: rules, Ledger: l}, at.Add(time.Minute))
}

// fromNFT says that all of n texts are of iptables-nft.
func fromNFT(n int) []ruleset.Backend {
	return slices.Repeat([]ruleset.Backend{ruleset.NFT}, n)
}

func TestNamesFromComments(t *testing.T) {
	s := input{
		names: NewNames(nil), max: 10, backend: fromNFT(3),
		texts: []string{save(1, 1, 1, 1), save(1, 1, 1, 1), save(11, 21, 6, 4)},
	}.build(t)
	want := []*ServicePort{{
		Port: ghost, Family: netfilter.IPv4, Exposed: true, Created: at, APICount: -1,
		ClusterIP: netip.MustParseAddr("10.96.0.11"), Number: 80,
		Rejected: map[Reason]uint64{NoEndpoints: 3}, Rules: map[string]int{"filter": 1},
	}, {
		Port: web, Family: netfilter.IPv4, Exposed: true, Created: at, APICount: -1, KernelCount: 2,
		ClusterIP: netip.MustParseAddr("10.96.0.10"), Number: 80,
		Cluster: 25, External: 5, Rules: map[string]int{"nat": 7},
		Endpoints: []Endpoint{
			{Addr: pod1, InKernel: true, Connections: 10, Created: at},
			{Addr: pod2, InKernel: true, Connections: 20, Created: at},
		},
	}}
	if diff := cmp.Diff(want, s.Services, addrs); diff != "" {
		t.Errorf("Services (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(NodeInfo{Name: "node-a", ProxyMode: "iptables", Backend: "nft"}, s.Node); diff != "" {
		t.Errorf("node (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]DispatchSize{{Backend: ruleset.NFT, Family: netfilter.IPv4, Rules: 2}}, s.Dispatch); diff != "" {
		t.Errorf("dispatch (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]CountingMethod{{"connections", "rules"}, {"refusals", "rules"}}, s.Counting); diff != "" {
		t.Errorf("counting (-want +got):\n%s", diff)
	}
	owners := map[string]int{}
	for _, size := range s.Tables {
		owners[size.Table+" "+size.Owner] = size.Rules
	}
	if owners["filter calico"] != 1 || owners["nat kube-proxy"] != 9 {
		t.Errorf("rules by owner: %v", owners)
	}
}

var addrs = cmpopts.EquateComparable(netip.Addr{}, netip.AddrPort{})

func TestTheAPIDecidesWhichServicesThereAre(t *testing.T) {
	s := input{
		names: NewNames(catalog()), max: 10, backend: fromNFT(3),
		texts: []string{save(1, 1, 1, 1), save(1, 1, 1, 1), save(11, 21, 6, 4)},
	}.build(t)
	var got []string
	for _, p := range s.Services {
		got = append(got, fmt.Sprintf("%v %d+%d api %d kernel %d", p.Port, p.Cluster, p.External, p.APICount, p.KernelCount))
	}
	want := []string{"shop/fresh 0+0 api 0 kernel 0", "shop/web:http 25+5 api 2 kernel 2"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Services (-want +got):\n%s", diff)
	}
	endpoints := []Endpoint{
		{Addr: pod1, InAPI: true, InKernel: true, Connections: 10, Created: at},
		{Addr: pod2, InKernel: true, Connections: 20, Created: at},
		{Addr: netip.MustParseAddrPort("10.244.0.4:8080"), InAPI: true},
	}
	if len(s.Services) == 2 {
		if diff := cmp.Diff(endpoints, s.Services[1].Endpoints, addrs); diff != "" {
			t.Errorf("endpoints (-want +got):\n%s", diff)
		}
	}
}

func TestEndpointsThatDependOnAnUnknownNode(t *testing.T) {
	tests := []struct {
		name    string
		kube    KubeState
		change  func(*service.Catalog)
		want    int
		unknown bool
	}{
		{"nothing depends on it", KubeState{NodeMissing: true}, func(*service.Catalog) {}, 2, false},
		{"policy Local", KubeState{NodeMissing: true}, func(c *service.Catalog) { c.Services[1].InternalLocal = true }, -1, true},
		{"policy Local on a known node", KubeState{}, func(c *service.Catalog) { c.Services[1].InternalLocal = true }, 2, false},
		{"hints for zones", KubeState{NodeMissing: true}, func(c *service.Catalog) { c.Endpoints[web][0].ForZones = []string{"b"} }, -1, true},
		{"hints for nodes", KubeState{NodeMissing: true}, func(c *service.Catalog) { c.Endpoints[web][0].ForNodes = []string{"b"} }, -1, true},
		{"policy Local without a node's name", KubeState{}, func(c *service.Catalog) {
			c.Node.Name, c.Services[1].InternalLocal = "", true
		}, -1, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := catalog()
			tt.change(c)
			s := Build(Inputs{Names: NewNames(c), Ledger: ledger.New(10), Kube: tt.kube}, at)
			p := s.Services[1]
			if p.APICount != tt.want {
				t.Errorf("%d endpoints expected, want %d", p.APICount, tt.want)
			}
			if got := newServiceReport(p, "iptables").Endpoints.API; (got == nil) != tt.unknown {
				t.Errorf("report says %v", got)
			}
			if tt.unknown && len(p.Endpoints) != 0 {
				t.Errorf("endpoints %v", p.Endpoints)
			}
		})
	}
}

func TestBothBackendsAreSummed(t *testing.T) {
	s := input{
		names: NewNames(nil), max: 10,
		backend: []ruleset.Backend{ruleset.NFT, ruleset.NFT, ruleset.Legacy, ruleset.Legacy, ruleset.NFT, ruleset.Legacy, ruleset.Legacy},
		texts: []string{
			save(0, 0, 0, 0), save(0, 0, 0, 0), save(0, 0, 0, 0), save(0, 0, 0, 0),
			save(3, 0, 1, 0), save(5, 0, 2, 0), save(5, 0, 2, 0),
		},
	}.build(t)
	if p := s.Services[1]; p.Cluster != 5 || p.External != 3 || p.KernelCount != 2 {
		t.Errorf("cluster %d external %d endpoints %d, want 5, 3 and 2", p.Cluster, p.External, p.KernelCount)
	}
	if s.Node.Backend != "legacy,nft" {
		t.Errorf("backend %q", s.Node.Backend)
	}
}

func TestServicesAboveTheCap(t *testing.T) {
	s := input{
		names: NewNames(nil), max: 1, backend: fromNFT(4),
		texts: []string{save(0, 0, 0, 0), save(0, 0, 0, 0), save(1, 0, 0, 0), save(1, 0, 0, 2)},
	}.build(t)
	if s.Services[0].Exposed || !s.Services[1].Exposed {
		t.Errorf("exposed: ghost %v web %v, want web alone", s.Services[0].Exposed, s.Services[1].Exposed)
	}
	want := []OtherTotal{{
		Protocol: service.TCP, Family: netfilter.IPv4, Created: at, Services: 1, Cluster: 1,
		Rejected: map[Reason]uint64{NoEndpoints: 2}, Rules: map[string]int{"filter": 1},
	}}
	if diff := cmp.Diff(want, s.Other); diff != "" {
		t.Errorf("other (-want +got):\n%s", diff)
	}
	if s.Self.SeriesDropped != 1 {
		t.Errorf("dropped %d, want 1", s.Self.SeriesDropped)
	}
}

func TestRefusalsByAddress(t *testing.T) {
	c := catalog()
	// A comment cut short: the hash of what it says is nobody's.
	text := strings.NewReplacer("10.96.0.11", "10.96.0.10", "shop/ghost has", "shop/we has")
	s := input{
		names: NewNames(c), max: 10, backend: fromNFT(3),
		texts: []string{text.Replace(save(0, 0, 0, 0)), text.Replace(save(0, 0, 0, 0)), text.Replace(save(0, 0, 0, 9))},
	}.build(t)
	if got := s.Services[1].Rejected[NoEndpoints]; got != 9 {
		t.Errorf("web refused %d, want 9", got)
	}
}

func TestIdentityWithoutHandles(t *testing.T) {
	ids := func(text string) map[ledger.ID]bool {
		rs := parse(t, ruleset.Legacy, text)
		out := map[ledger.ID]bool{}
		for _, c := range wholeReading(rs, kubeproxy.NewView(rs), NewNames(nil)).Counters {
			out[c.ID] = true
		}
		return out
	}
	base := ids(save(1, 2, 3, 4))
	if len(base) != 5 {
		t.Fatalf("%d identities, want 5", len(base))
	}
	if diff := cmp.Diff(base, ids(strings.ReplaceAll(save(9, 9, 9, 9), "shop/web:http ->", "shop/web:http  ->"))); diff != "" {
		t.Errorf("counters and comments changed identities (-want +got):\n%s", diff)
	}
	jump := "-j " + kubeproxy.EndpointChain(web, pod2) + "\n"
	line := "[2:0] -A " + kubeproxy.ServiceChain(web) + " -m comment --comment \"shop/web:http -> 10.244.0.3:8080\" " + jump
	if twice := ids(strings.Replace(save(1, 2, 3, 4), line, line+line, 1)); len(twice) != 6 {
		t.Errorf("%d identities with one rule twice, want 6", len(twice))
	}
}

// wholeReading is all counters of kube-proxy's rules, as read by nobody before.
func wholeReading(rs *ruleset.Ruleset, v *kubeproxy.View, names *Names) ledger.Reading {
	return NewCounters().Whole(rs, v, names)
}
