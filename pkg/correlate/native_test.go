// SPDX-License-Identifier: Apache-2.0

package correlate

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/svcscope/svcscope/pkg/kubeproxy"
	"github.com/svcscope/svcscope/pkg/ledger"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/nftables"
	"github.com/svcscope/svcscope/pkg/ruleset"
	"github.com/svcscope/svcscope/pkg/service"
)

// verdicts is a map from addresses, or node ports, to chains.
func verdicts(name string, nodePorts bool, elements ...nftables.Element) *ruleset.Set {
	keys := uint32(nftables.TypeInetProto)<<6 | uint32(nftables.TypeInetService)
	if !nodePorts {
		keys |= uint32(nftables.TypeIPv4) << 12
	}
	s := ruleset.NewSet(&nftables.Set{Name: name, KeyType: keys, DataType: nftables.VerdictData, Flags: nftables.SetMap})
	s.Add(&nftables.Elements{Elements: elements})
	s.Done()
	return s
}

// to is an element of such a map; chain is empty where it drops.
func to(addr string, port uint16, chain, comment string) nftables.Element {
	var key []byte
	if addr != "" {
		key = netip.MustParseAddr(addr).AsSlice()
	}
	e := nftables.Element{Key: append(key, 6, 0, 0, 0, byte(port>>8), byte(port), 0, 0), Comment: comment}
	if e.Verdict = (&nftables.Verdict{Code: nftables.Goto, Chain: chain}); chain == "" {
		e.Verdict = &nftables.Verdict{Code: nftables.Drop}
	}
	return e
}

// nativeRules is a node in the nftables mode with two Services: one that serves, and one that
// has no endpoints at one address, and none here at another.
func nativeRules() *ruleset.Ruleset {
	name := func(k kubeproxy.Kind) string { return kubeproxy.NativeChain(k, tapName("web", "http")) }
	rule := func(kind ruleset.ActionKind, chain string, d ruleset.Details) ruleset.Rule {
		a := ruleset.Action{Kind: kind, Chain: chain}
		a.SetDetails(d)
		return ruleset.Rule{Action: a}
	}
	chain := func(name string, base *ruleset.Base, rules ...ruleset.Rule) *ruleset.Chain {
		return &ruleset.Chain{Name: name, Base: base, Rules: rules}
	}
	lookUp := func(set string) ruleset.Rule { return rule(ruleset.Map, "", ruleset.Details{Name: set}) }
	sources := rule(ruleset.Drop, "", ruleset.Details{})
	sources.Matches = []ruleset.Match{ruleset.Source{Prefix: netip.MustParsePrefix("203.0.113.0/24"), Not: true}}
	t := ruleset.NewTable(kubeproxy.NativeTable, 1, []*ruleset.Chain{
		chain("nat-output", &ruleset.Base{Hook: netfilter.HookOutput, Priority: -100}, rule(ruleset.Jump, "services", ruleset.Details{})),
		chain("filter-output", &ruleset.Base{Hook: netfilter.HookOutput}, rule(ruleset.Jump, "service-endpoints-check", ruleset.Details{})),
		chain("filter-input", &ruleset.Base{Hook: netfilter.HookInput}, rule(ruleset.Jump, "service-endpoints-check", ruleset.Details{})),
		chain("filter-output-pre-dnat", &ruleset.Base{Hook: netfilter.HookOutput, Priority: -110}, rule(ruleset.Jump, "firewall-check", ruleset.Details{})),
		chain("services", nil, lookUp("service-ips"), lookUp("service-nodeports")),
		chain("service-endpoints-check", nil, lookUp("no-endpoint-services")),
		chain("firewall-check", nil, lookUp("firewall-ips")),
		chain("reject-chain", nil, rule(ruleset.Reject, "", ruleset.Details{})),
		chain(name(kubeproxy.KindService), nil, rule(ruleset.DNAT, "", ruleset.Details{To: netip.MustParseAddrPort("10.1.0.1:8080")})),
		chain(name(kubeproxy.KindExternal), nil, rule(ruleset.Goto, name(kubeproxy.KindService), ruleset.Details{})),
		chain(name(kubeproxy.KindFirewall), nil, sources),
	})
	t.Sets = make(map[string]*ruleset.Set)
	for _, s := range []*ruleset.Set{
		verdicts("service-ips", false, to("10.96.0.10", 80, name(kubeproxy.KindService), ""), to("192.0.2.1", 80, name(kubeproxy.KindExternal), "")),
		verdicts("service-nodeports", true, to("", 30080, name(kubeproxy.KindExternal), "")),
		verdicts("no-endpoint-services", false, to("10.96.0.11", 80, "reject-chain", "shop/api"), to("192.0.2.1", 80, "", "shop/web:http")),
		verdicts("firewall-ips", false, to("192.0.2.1", 80, name(kubeproxy.KindFirewall), "")),
	} {
		t.Sets[s.Name] = s
	}
	return &ruleset.Ruleset{Backend: ruleset.NFT, Family: netfilter.IPv4, Tables: []*ruleset.Table{t}}
}

// TestNativeRows: in the nftables mode rows have addresses and endpoints, and no counts; also
// without the API.
func TestNativeRows(t *testing.T) {
	rs := nativeRules()
	rules := []Rules{NewRules(rs), NewNativeRules(rs)}
	web := func(s *Snapshot) *ServicePort {
		i := slices.IndexFunc(s.Services, func(p *ServicePort) bool { return p.Port == tapName("web", "http") && p.Family == netfilter.IPv4 })
		if i < 0 {
			t.Fatalf("no row of web in %d", len(s.Services))
		}
		return s.Services[i]
	}
	endpoint := netip.MustParseAddrPort("10.1.0.1:8080")
	c := tapCatalog()
	c.Node.Name = "node-a"
	c.Endpoints = map[service.PortName][]service.Endpoint{tapName("web", "http"): {{Addr: endpoint, Ready: true}}}
	for name, names := range map[string]*Names{"without the API": NewNames(nil), "with the API": NewNames(c)} {
		t.Run(name, func(t *testing.T) {
			s := Build(Inputs{Names: names, Ledger: ledger.New(10), Rules: rules}, at)
			p := web(s)
			if p.ClusterIP.String() != "10.96.0.10" || p.Number != 80 || p.NodePort != 30080 || p.KernelCount != 1 || !p.Uncounted {
				t.Errorf("row %+v", p)
			}
			if len(p.Endpoints) != 1 || p.Endpoints[0].Addr != endpoint || !p.Endpoints[0].InKernel || p.Endpoints[0].InAPI != (names.catalog != nil) {
				t.Errorf("endpoints %+v", p.Endpoints)
			}
			if d := cmp.Diff(map[string]int{"kube-proxy": 3}, p.Rules); d != "" {
				t.Errorf("rules (-want +got):\n%s", d)
			}
			if s.Node.ProxyMode != "nftables" || s.Node.Backend != "" || s.Counting[0].Method != "none" || s.Counting[1].Method != "none" {
				t.Errorf("node %+v, counting %v", s.Node, s.Counting)
			}
			want := []DispatchSize{{Backend: kubeproxy.Native, Family: netfilter.IPv4, Rules: 2}}
			if d := cmp.Diff(want, s.Dispatch); d != "" {
				t.Errorf("dispatch (-want +got):\n%s", d)
			}
			r := NewServicesReport(s)
			for _, item := range r.Items {
				if item.Connections != nil {
					t.Errorf("the report has connections: %+v", item)
				}
			}
		})
	}
	s := Build(Inputs{Names: NewNames(nil), Ledger: ledger.New(10), Rules: rules, Tap: &Tap{Active: true}}, at)
	if s.Counting[0].Method != "none" || s.Counting[1].Method != "tap" {
		t.Errorf("with a tap: %v", s.Counting)
	}
}

// TestNativeModeBesideOthers: what is left behind of the iptables mode is not the mode.
func TestNativeModeBesideOthers(t *testing.T) {
	serving := NewRules(parse(t, ruleset.Legacy, save(0, 0, 0, 0)))
	left := NewRules(parse(t, ruleset.Legacy, "*nat\n:OUTPUT ACCEPT [0:0]\n:KUBE-SERVICES - [0:0]\nCOMMIT\n"))
	native := NewNativeRules(nativeRules())
	unreached := nativeRules()
	unreached.Tables[0].Chain("nat-output").Rules = nil
	for _, tt := range []struct {
		name  string
		rules []Rules
		want  string
	}{
		{"alone", []Rules{native}, "nftables"},
		{"beside rules that no packet comes to", []Rules{left, native}, "nftables"},
		{"beside rules that serve", []Rules{serving, native}, "iptables"},
		{"left behind itself", []Rules{serving, NewNativeRules(unreached)}, "iptables"},
	} {
		if got := Build(Inputs{Names: NewNames(nil), Ledger: ledger.New(1), Rules: tt.rules}, at).Node.ProxyMode; got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}

// TestTapRefusalsOfTheNativeMode: the ways are the maps' elements.
func TestTapRefusalsOfTheNativeMode(t *testing.T) {
	v := kubeproxy.NewNativeView(nativeRules())
	filter := ruleset.Hooks(1<<netfilter.HookInput | 1<<netfilter.HookOutput)
	output := ruleset.Hooks(1 << netfilter.HookOutput)
	want := map[string]TapRefusal{
		"api":    {Way: way("10.96.0.11", service.TCP, 80), Port: tapName("api", ""), Reason: NoEndpoints, Chain: "service-endpoints-check", Hooks: filter},
		"web":    {Way: way("192.0.2.1", service.TCP, 80), Port: tapName("web", "http"), Reason: NoLocalEndpoints, Chain: "service-endpoints-check", Hooks: filter},
		"ranges": {Way: way("192.0.2.1", service.TCP, 80), Port: tapName("web", "http"), Reason: SourceRange, Chain: kubeproxy.NativeChain(kubeproxy.KindFirewall, tapName("web", "http")), Hooks: output, Early: true},
	}
	got := make(map[string]TapRefusal)
	all := TapRefusals(v, nil, NewNames(nil))
	for _, r := range all {
		key := r.Port.Name.Name
		if r.ofRanges() {
			key = "ranges"
			if len(r.Sources) != 1 || r.Sources[0].First.String() != "203.0.113.0" || r.Sources[0].Last.String() != "203.0.113.255" {
				t.Errorf("sources %v", r.Sources)
			}
			r.Sources = nil
		}
		if !r.Uncounted || r.Table != kubeproxy.NativeTable {
			t.Errorf("%+v", r)
		}
		r.Uncounted, r.Table = false, ""
		got[key] = r
	}
	if d := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); d != "" || len(all) != 3 {
		t.Errorf("%d refusals (-want +got):\n%s", len(all), d)
	}
	plan := NewTapPlan(nil, nil, all)
	if len(plan.Refused) != 2 || len(plan.Ranges) != 1 {
		t.Errorf("plan %+v", plan)
	}
	if r, ok := plan.Keeps(&TapPlan{}).refused(netip.MustParseAddrPort("192.0.2.1:80"), 6, true); !ok || r.Reason != SourceRange {
		t.Errorf("a packet outside of the ranges: %v %+v", ok, r)
	}
	if r, ok := plan.refused(netip.MustParseAddrPort("192.0.2.1:80"), 6, false); !ok || r.Reason != NoLocalEndpoints {
		t.Errorf("a packet from within: %v %+v", ok, r)
	}
	tally := NewTapTally()
	tally.Plan(plan)
	tally.Count(way("192.0.2.1", service.TCP, 80), TapCount{RefusedHere: 2, Outside: 5})
	drops := tally.Take().Drops
	label := DropLabels{Reason: string(SourceRange), Hook: "output", Owner: "kube-proxy", Service: service.Name{Namespace: "shop", Name: "web"}}
	if drops[label] != 5 {
		t.Errorf("outside of the ranges: %v", drops)
	}
	label.Reason = string(NoLocalEndpoints)
	if drops[label] != 2 {
		t.Errorf("from within: %v", drops)
	}
}

// TestTapRefusalsOfNodePorts: in the nftables mode they are at the addresses where kube-proxy
// looks for node ports.
func TestTapRefusalsOfNodePorts(t *testing.T) {
	in := ruleset.InSet{Set: "nodeport-ips", Key: "ip daddr"}
	for _, tt := range []struct {
		name string
		// dispatch and check are what the rules match that look up node ports.
		dispatch, check []ruleset.Match
		addrs           []string
		want            []string
	}{
		{"at one address", []ruleset.Match{in}, []ruleset.Match{in}, []string{"192.0.2.10"}, []string{"192.0.2.10"}},
		{"at two", []ruleset.Match{in}, []ruleset.Match{in}, []string{"192.0.2.10", "198.51.100.1"}, []string{"192.0.2.10", "198.51.100.1"}},
		{"at none yet", []ruleset.Match{in}, []ruleset.Match{in}, nil, nil},
		{"at any", nil, nil, nil, []string{"0.0.0.0"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			rs := nativeRules()
			table := rs.Tables[0]
			lookUp := ruleset.Rule{Matches: tt.check, Action: ruleset.Action{Kind: ruleset.Map}}
			lookUp.Action.SetDetails(ruleset.Details{Name: "no-endpoint-nodeports"})
			check := table.Chain("service-endpoints-check")
			check.Rules = append(check.Rules, lookUp)
			table.Chain("services").Rules[1].Matches = tt.dispatch
			table.Sets["no-endpoint-nodeports"] = verdicts("no-endpoint-nodeports", true, to("", 30081, "", "shop/api"))
			ips := ruleset.NewSet(&nftables.Set{Name: "nodeport-ips", KeyType: uint32(nftables.TypeIPv4)})
			var elements []nftables.Element
			for _, a := range tt.addrs {
				elements = append(elements, nftables.Element{Key: netip.MustParseAddr(a).AsSlice()})
			}
			ips.Add(&nftables.Elements{Elements: elements})
			ips.Done()
			table.Sets[ips.Name] = ips
			var got []string
			for _, r := range TapRefusals(kubeproxy.NewNativeView(rs), nil, NewNames(nil)) {
				if r.Way.Port != 30081 {
					continue
				}
				got = append(got, r.Addr.String())
				if r.Port != tapName("api", "") || r.Reason != NoLocalEndpoints || r.Protocol != service.TCP.Number() {
					t.Errorf("%+v", r)
				}
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("addresses (-want +got):\n%s", d)
			}
		})
	}
}
