// SPDX-License-Identifier: Apache-2.0

package kubeproxy_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/svcscope/svcscope/pkg/kubeproxy"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/nftables"
	"github.com/svcscope/svcscope/pkg/ruleset"
	"github.com/svcscope/svcscope/pkg/service"
)

func portName(namespace, name string) service.PortName {
	return service.PortName{Name: service.Name{Namespace: namespace, Name: name}, Port: "p80", Protocol: service.TCP}
}

// TestParseNative has names of kube-proxy's own tests, and of the lab.
func TestParseNative(t *testing.T) {
	web := service.PortName{Name: service.Name{Namespace: "default", Name: "nodeport"}, Protocol: service.TCP}
	dns := service.PortName{Name: service.Name{Namespace: "kube-system", Name: "kube-dns"}, Port: "dns", Protocol: service.UDP}
	sticky := service.PortName{Name: service.Name{Namespace: "default", Name: "sticky"}, Port: "http", Protocol: service.TCP}
	at := netip.MustParseAddrPort
	long := "endpoint-AAAAAAAA-" + strings.Repeat("n", 63) + "/" + strings.Repeat("s", 63) + "/sctp/" + strings.Repeat("p", 63) + "__fd00.1234.1234.1234..."
	tests := []struct {
		chain string
		want  kubeproxy.NativeName
		ok    bool
	}{
		{"service-ULMVA6XW-ns1/svc1/tcp/p80", kubeproxy.NativeName{Kind: kubeproxy.KindService, Port: portName("ns1", "svc1")}, true},
		{"service-RMQUIEU7-default/nodeport/tcp/", kubeproxy.NativeName{Kind: kubeproxy.KindService, Port: web}, true},
		{"external-RMQUIEU7-default/nodeport/tcp/", kubeproxy.NativeName{Kind: kubeproxy.KindExternal, Port: web}, true},
		{"local-FY5PMXPG-kube-system/kube-dns/udp/dns", kubeproxy.NativeName{Kind: kubeproxy.KindLocal, Port: dns}, true},
		{"firewall-FY5PMXPG-kube-system/kube-dns/udp/dns", kubeproxy.NativeName{Kind: kubeproxy.KindFirewall, Port: dns}, true},
		{"endpoint-5OJB2KTY-ns1/svc1/tcp/p80__10.180.0.1/80", kubeproxy.NativeName{Kind: kubeproxy.KindEndpoint, Port: portName("ns1", "svc1"), Endpoint: at("10.180.0.1:80")}, true},
		{"endpoint-DEI4YOXN-default/sticky/tcp/http__fd00.10.244.1..11/8080", kubeproxy.NativeName{Kind: kubeproxy.KindEndpoint, Port: sticky, Endpoint: at("[fd00:10:244:1::11]:8080")}, true},
		{long, kubeproxy.NativeName{Kind: kubeproxy.KindEndpoint, Port: service.PortName{
			Name: service.Name{Namespace: strings.Repeat("n", 63), Name: strings.Repeat("s", 63)}, Port: strings.Repeat("p", 63), Protocol: service.SCTP,
		}}, true},
		{chain: "service-ULMVA6XX-ns1/svc1/tcp/p80"},      // another hash
		{chain: "service-ULMVA6XW-ns1/svc1/tcp/p80..."},   // no Service's name is cut
		{chain: "service-ULMVA6XW-ns1/svc1/icmp/p80"},     // no such protocol
		{chain: "service-ULMVA6XW-ns1/svc1/tcp"},          // no port
		{chain: "service-ULMVA6XW-ns1/svc1/tcp/p80__1/2"}, // an endpoint of none
		{chain: "endpoint-ULMVA6XW-ns1/svc1/tcp/p80"},     // none
		{chain: "services"}, {chain: "service-endpoints-check"}, {chain: "firewall-check"}, {chain: "nat-output"}, {chain: ""}, {chain: "service-"},
	}
	for _, tt := range tests {
		got, ok := kubeproxy.ParseNative(tt.chain)
		if d := cmp.Diff(tt.want, got, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); ok != tt.ok || d != "" {
			t.Errorf("%s: %v (-want +got):\n%s", tt.chain, ok, d)
		}
		if ok && got.Kind != kubeproxy.KindEndpoint && kubeproxy.NativeChain(got.Kind, got.Port) != tt.chain {
			t.Errorf("%s is made as %s", tt.chain, kubeproxy.NativeChain(got.Kind, got.Port))
		}
		if ok != (tt.ok && kubeproxy.OfService(tt.chain)) {
			t.Errorf("%s: of a Service %v", tt.chain, kubeproxy.OfService(tt.chain))
		}
	}
	if got := kubeproxy.NativeChain(kubeproxy.KindEndpoint, web); got != "" {
		t.Errorf("an endpoint's chain by its port: %s", got)
	}
}

func FuzzParseNative(f *testing.F) {
	f.Add("service-ULMVA6XW-ns1/svc1/tcp/p80")
	f.Add("endpoint-DEI4YOXN-default/sticky/tcp/http__fd00.10.244.1..11/8080")
	f.Fuzz(func(t *testing.T, chain string) {
		n, ok := kubeproxy.ParseNative(chain)
		switch {
		case !ok && n != (kubeproxy.NativeName{}):
			t.Fatalf("%q is none and is %+v", chain, n)
		case ok && n.Kind != kubeproxy.KindEndpoint && kubeproxy.NativeChain(n.Kind, n.Port) != chain:
			t.Fatalf("%q is made as %q", chain, kubeproxy.NativeChain(n.Kind, n.Port))
		}
	})
}

// native is a table of the nftables mode in which packets are looked up in one map.
func native(keys, data uint32, elements []nftables.Element, more ...*ruleset.Chain) *ruleset.Ruleset {
	services := &ruleset.Chain{Name: "services", Rules: []ruleset.Rule{
		{Action: ruleset.Action{Kind: ruleset.Map, More: &ruleset.Details{Name: "service-ips"}}},
	}}
	base := &ruleset.Chain{Name: "nat-output", Base: &ruleset.Base{Hook: netfilter.HookOutput, Priority: -100}, Rules: []ruleset.Rule{
		{Action: ruleset.Action{Kind: ruleset.Jump, Chain: "services"}},
	}}
	s := ruleset.NewSet(&nftables.Set{Name: "service-ips", KeyType: keys, DataType: data, Flags: nftables.SetMap})
	s.Add(&nftables.Elements{Elements: elements})
	s.Done()
	table := ruleset.NewTable(kubeproxy.NativeTable, 1, append([]*ruleset.Chain{base, services}, more...))
	table.Sets = map[string]*ruleset.Set{"service-ips": s}
	return &ruleset.Ruleset{Backend: ruleset.NFT, Family: netfilter.IPv4, Tables: []*ruleset.Table{table}}
}

const serviceKeys = uint32(nftables.TypeIPv4)<<12 | uint32(nftables.TypeInetProto)<<6 | uint32(nftables.TypeInetService)

// TestWhatIsNotUnderstoodIsCounted, and stops nothing.
func TestWhatIsNotUnderstoodIsCounted(t *testing.T) {
	key := func(protocol byte) []byte { return []byte{10, 96, 0, 1, protocol, 0, 0, 0, 0, 80, 0, 0} }
	to := func(protocol byte, code nftables.Code, chain string) nftables.Element {
		return nftables.Element{Key: key(protocol), Verdict: &nftables.Verdict{Code: code, Chain: chain}}
	}
	svc := kubeproxy.NativeChain(kubeproxy.KindService, portName("ns1", "svc1"))
	good := to(6, nftables.Goto, svc)
	chain := func(name string, actions ...ruleset.Action) *ruleset.Chain {
		c := &ruleset.Chain{Name: name}
		for _, a := range actions {
			c.Rules = append(c.Rules, ruleset.Rule{Action: a})
		}
		return c
	}
	dnat := ruleset.Action{Kind: ruleset.DNAT, More: &ruleset.Details{To: netip.MustParseAddrPort("10.1.0.1:80")}}
	tests := []struct {
		name     string
		rules    *ruleset.Ruleset
		want     map[string]uint64
		dispatch int
	}{
		{"nothing of it", native(serviceKeys, nftables.VerdictData, []nftables.Element{good}, chain(svc, dnat)), nil, 1},
		{"other keys", native(uint32(nftables.TypeIPv4), nftables.VerdictData, []nftables.Element{good}, chain(svc, dnat)), map[string]uint64{"map": 1}, 0},
		{"no verdicts", native(serviceKeys, uint32(nftables.TypeMark), []nftables.Element{good}, chain(svc, dnat)), map[string]uint64{"map": 1}, 0},
		{
			"another protocol, a short key, a verdict, a chain that is not there", native(serviceKeys, nftables.VerdictData, []nftables.Element{
				good, to(47, nftables.Goto, svc), {Key: key(6)[:8], Verdict: good.Verdict}, to(17, nftables.Accept, ""), to(132, nftables.Goto, "nowhere"),
			}, chain(svc, dnat)), map[string]uint64{"element": 4}, 1,
		},
		{"a chain's name", native(serviceKeys, nftables.VerdictData, []nftables.Element{good}, chain(svc, dnat), chain("mine/own", dnat)), map[string]uint64{"chain": 1}, 1},
		{"rules", native(serviceKeys, nftables.VerdictData, []nftables.Element{good}, chain(svc, ruleset.Action{Kind: ruleset.Accept}, dnat, ruleset.Action{Kind: ruleset.Jump, Chain: "mine"}, ruleset.Action{Kind: ruleset.Map, Value: 2, More: &ruleset.Details{Name: "__map7"}})), map[string]uint64{"rule": 3}, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v := kubeproxy.NewNativeView(tt.rules)
			if d := cmp.Diff(tt.want, v.Native.Undecoded); d != "" {
				t.Errorf("not understood (-want +got):\n%s", d)
			}
			if len(v.Dispatch) != tt.dispatch || len(v.Ports) != 1 {
				t.Errorf("%d dispatched, %d ports", len(v.Dispatch), len(v.Ports))
			}
			for _, p := range v.Ports {
				if len(p.Endpoints) != 1 || p.Endpoints[0].Addr.String() != "10.1.0.1:80" {
					t.Errorf("endpoints %+v", p.Endpoints)
				}
			}
		})
	}
	for _, rs := range []*ruleset.Ruleset{nil, {Backend: ruleset.NFT, Family: netfilter.IPv4}} {
		if v := kubeproxy.NewNativeView(rs); v.Present || v.Recognised() || len(v.Ports) != 0 {
			t.Errorf("nothing is there: %+v", v)
		}
	}
}

// TestNativePortsThatSayTheSameStay as the pointers that they were: rows are made of these.
func TestNativePortsThatSayTheSameStay(t *testing.T) {
	svc := kubeproxy.NativeChain(kubeproxy.KindService, portName("ns1", "svc1"))
	rs := native(serviceKeys, nftables.VerdictData, nil, &ruleset.Chain{Name: svc, Rules: []ruleset.Rule{
		{Action: ruleset.Action{Kind: ruleset.DNAT, More: &ruleset.Details{To: netip.MustParseAddrPort("10.1.0.1:80")}}},
	}})
	v := kubeproxy.NewNativeView(rs)
	hash := kubeproxy.Hash(portName("ns1", "svc1"))
	p := v.Ports[hash]
	v.UpdateNative(rs)
	if v.Ports[hash] != p {
		t.Error("the port is another one")
	}
	other := *rs.Table(kubeproxy.NativeTable).Chain(svc)
	rs.Tables[0] = ruleset.NewTable(kubeproxy.NativeTable, 1, []*ruleset.Chain{&other})
	v.UpdateNative(rs)
	if v.Ports[hash] == p || v.Ports[hash].Service != &other {
		t.Error("the port has another chain and is the same")
	}
}
