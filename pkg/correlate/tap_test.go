// SPDX-License-Identifier: Apache-2.0

package correlate

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/nflog"
	"github.com/svcscope/svcscope/pkg/ruleset"
	"github.com/svcscope/svcscope/pkg/service"
)

func way(addr string, protocol service.Protocol, port uint16) Way {
	return Way{netip.MustParseAddr(addr), protocol.Number(), port}
}

func tapName(name, port string) service.PortName {
	return service.PortName{Name: service.Name{Namespace: "shop", Name: name}, Port: port, Protocol: service.TCP}
}

// tapCatalog has a Service of all kinds of addresses in both families, and one of the
// same external address.
func tapCatalog() *service.Catalog {
	addrs := func(all ...string) (out []netip.Addr) {
		for _, a := range all {
			out = append(out, netip.MustParseAddr(a))
		}
		return out
	}
	return &service.Catalog{Synced: true, Services: []*service.Service{
		{Name: service.Name{Namespace: "shop", Name: "away"}, Type: "ClusterIP", Ports: []service.Port{{Protocol: service.TCP, Port: 80}}}, // headless
		{
			Name: service.Name{Namespace: "shop", Name: "api"}, Type: "ClusterIP", ClusterIPs: addrs("10.96.0.11"), ExternalIPs: addrs("192.0.2.1"),
			Ports: []service.Port{{Protocol: service.TCP, Port: 80}},
		},
		{
			Name: service.Name{Namespace: "shop", Name: "web"}, Type: "LoadBalancer", ClusterIPs: addrs("10.96.0.10", "fd96::10"),
			ExternalIPs: addrs("192.0.2.1", "192.0.2.2"), LoadBalancerIPs: addrs("2001:db8::1"),
			Ports: []service.Port{{Name: "http", Protocol: service.TCP, Port: 80, NodePort: 30080}},
		},
	}}
}

// TestTapPlan: each way by which kube-proxy serves a port, and whose it is.
func TestTapPlan(t *testing.T) {
	web, api := tapName("web", "http"), tapName("api", "")
	want := map[Way]TapPort{
		way("10.96.0.11", service.TCP, 80):  {api, netfilter.IPv4, false},
		way("192.0.2.1", service.TCP, 80):   {api, netfilter.IPv4, true},
		way("10.96.0.10", service.TCP, 80):  {web, netfilter.IPv4, false},
		way("192.0.2.2", service.TCP, 80):   {web, netfilter.IPv4, true},
		way("0.0.0.0", service.TCP, 30080):  {web, netfilter.IPv4, true},
		way("fd96::10", service.TCP, 80):    {web, netfilter.IPv6, false},
		way("2001:db8::1", service.TCP, 80): {web, netfilter.IPv6, true},
		way("::", service.TCP, 30080):       {web, netfilter.IPv6, true},
	}
	got := NewTapPlan(tapCatalog(), nil, nil).Services
	if d := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); d != "" {
		t.Errorf("plan (-want +got):\n%s", d)
	}
}

// TestTapTally sums counters that grow, begin anew and end, and gives each to the port
// whose way it is.
func TestTapTally(t *testing.T) {
	web, node := way("10.96.0.10", service.TCP, 80), way("0.0.0.0", service.TCP, 30080)
	refused := way("10.96.0.11", service.TCP, 80)
	plan := NewTapPlan(tapCatalog(), nil, []TapRefusal{{Way: refused, Port: tapName("api", ""), Reason: NoEndpoints}})
	n := func(attempts, translated, refused uint64) TapCount {
		return TapCount{TapFlows: TapFlows{attempts, translated}, Refused: refused}
	}
	tally := NewTapTally()
	tally.Plan(plan)
	tally.Count(web, n(5, 4, 0))
	tally.Count(web, n(7, 6, 0))
	tally.Count(node, n(3, 3, 0))
	tally.Count(refused, n(10, 0, 10))
	tally.Count(refused, n(2, 0, 12)) // its set of Services was made anew
	tally.End(refused, n(0, 0, 15))   // it is no longer refused; attempts go on
	tally.Count(refused, n(4, 0, 0))
	tally.End(web, n(8, 7, 0))
	tally.Count(web, n(1, 1, 0)) // the same way, made anew
	taken := tally.Take()
	flows, packets := taken.Flows, taken.Refused
	for port, want := range map[TapPort]TapFlows{
		{tapName("web", "http"), netfilter.IPv4, false}: {9, 8},
		{tapName("web", "http"), netfilter.IPv4, true}:  {3, 3},
		{tapName("web", "http"), netfilter.IPv6, false}: {},
		{tapName("api", ""), netfilter.IPv4, false}:     {14, 0},
	} {
		if got, ok := flows[port]; !ok || got != want {
			t.Errorf("%+v: %+v, want %+v", port, got, want)
		}
	}
	want := map[WitnessKey]uint64{{SourceTap, string(NoEndpoints), service.Name{Namespace: "shop", Name: "api"}}: 15}
	if d := cmp.Diff(want, packets); d != "" {
		t.Errorf("refused (-want +got):\n%s", d)
	}
	if again := tally.Take(); len(again.Flows)+len(again.Refused)+len(again.Drops)+len(taken.Drops) != 0 {
		t.Errorf("taken twice: %+v", again)
	}
	tally.Reset()
	tally.Count(web, n(1, 1, 0))
	if flows := tally.Take().Flows; flows[TapPort{tapName("web", "http"), netfilter.IPv4, false}] != (TapFlows{1, 1}) {
		t.Errorf("after another table: %v", flows)
	}
}

// TestTapTallyOfRulesWithoutCounters: what they refuse the tap alone counts, by the hook, and is a witness of.
func TestTapTallyOfRulesWithoutCounters(t *testing.T) {
	refused := way("10.96.0.11", service.TCP, 80)
	hooks := ruleset.Hooks(1<<netfilter.HookInput | 1<<netfilter.HookForward | 1<<netfilter.HookOutput)
	tally := NewTapTally()
	tally.Plan(NewTapPlan(tapCatalog(), nil, []TapRefusal{{Way: refused, Port: tapName("api", ""), Reason: NoEndpoints, Hooks: hooks, Uncounted: true}}))
	tally.Count(refused, TapCount{Refused: 5, RefusedHere: 3})
	tally.Count(refused, TapCount{Refused: 6, RefusedHere: 3})
	taken := tally.Take()
	label := func(hook string) DropLabels {
		return DropLabels{Reason: string(NoEndpoints), Hook: hook, Owner: "kube-proxy", Service: service.Name{Namespace: "shop", Name: "api"}}
	}
	if d := cmp.Diff(map[DropLabels]uint64{label("input+forward"): 6, label("output"): 3}, taken.Drops); d != "" {
		t.Errorf("counted (-want +got):\n%s", d)
	}
	witness := WitnessKey{Source: SourceTap, Reason: string(NoEndpoints), Service: service.Name{Namespace: "shop", Name: "api"}}
	if d := cmp.Diff(map[WitnessKey]uint64{witness: 9}, taken.Refused); d != "" {
		t.Errorf("witnessed (-want +got):\n%s", d)
	}
	drops := NewDrops(func(service.Name) bool { return true })
	drops.Tapped(taken.Drops, time.Unix(1, 0))
	drops.Tapped(taken.Drops, time.Unix(2, 0))
	var sum uint64
	for _, d := range drops.Totals(func(service.Name) bool { return true }) {
		sum += d.Packets
	}
	if sum != 18 {
		t.Errorf("%d packets in the totals, want 18", sum)
	}
}

// TestTapped sums for each port, and what has no totals of its own together.
func TestTapped(t *testing.T) {
	own := map[string]bool{"web": true}
	totals := NewTapped(func(n service.Name) bool { return own[n.Name] })
	now := time.Unix(100, 0)
	totals.Add(map[TapPort]TapFlows{
		{tapName("web", "http"), netfilter.IPv4, false}: {5, 4},
		{tapName("web", "http"), netfilter.IPv4, true}:  {2, 1},
		{tapName("api", ""), netfilter.IPv4, false}:     {7, 7},
		{tapName("db", "x"), netfilter.IPv4, false}:     {1, 1},
	}, now)
	totals.Add(map[TapPort]TapFlows{{tapName("web", "http"), netfilter.IPv4, false}: {1, 1}}, now.Add(time.Second))
	other := service.PortName{Name: service.Name{Name: OtherServices}, Protocol: service.TCP}
	all := func(service.Name) bool { return true }
	want := []TapTotal{
		{Port: other, Family: netfilter.IPv4, Cluster: TapFlows{8, 8}, Created: now},
		{Port: tapName("web", "http"), Family: netfilter.IPv4, Cluster: TapFlows{6, 5}, External: TapFlows{2, 1}, Created: now},
	}
	if d := cmp.Diff(want, totals.Totals(all)); d != "" {
		t.Errorf("totals (-want +got):\n%s", d)
	}
	if got := totals.Totals(func(service.Name) bool { return false }); len(got) != 1 || got[0].Port != other {
		t.Errorf("without the Service: %+v", got)
	}
}

// TestTapReader: a packet of the tap tells the Service and the rule that is about to
// refuse it by the way that it came.
func TestTapReader(t *testing.T) {
	plan := NewTapPlan(tapCatalog(), nil, []TapRefusal{
		{Way: way("10.96.0.11", service.UDP, 53), Port: tapName("api", ""), Reason: NoEndpoints, Table: "filter", Chain: "KUBE-SERVICES"},
		{Way: way("0.0.0.0", service.UDP, 30053), Port: tapName("api", ""), Reason: NoLocalEndpoints, Table: "filter", Chain: "KUBE-EXTERNAL-SERVICES"},
	})
	r := NewTapReader(plan, FlowInputs{Catalog: tapCatalog()})
	for _, c := range []struct {
		to     string
		reason Reason
	}{{"10.96.0.11:53", NoEndpoints}, {"198.51.100.7:30053", NoLocalEndpoints}, {"10.96.0.11:54", ""}} {
		to := netip.MustParseAddrPort(c.to)
		p := nflog.Packet{Group: 10988, Family: netfilter.IPv4, Hook: netfilter.HookForward, Payload: udp4(netip.MustParseAddrPort("10.0.0.9:4000"), to)}
		var e DropEvent
		ok := r.Read(&p, time.Unix(7, 0), &e)
		if ok != (c.reason != "") {
			t.Errorf("%s: %t", c.to, ok)
		}
		if !ok {
			continue
		}
		if string(e.Reason) != string(c.reason) || e.Source != SourceTap || e.Hook != "forward" || !e.Refused || e.Service != tapName("api", "") || e.Frontend != to || e.Owner != "kube-proxy" {
			t.Errorf("%s: got %+v of %+v", c.to, e, e.DropRule)
		}
	}
}

// udp4 is a datagram's headers.
func udp4(from, to netip.AddrPort) []byte {
	b := make([]byte, 28)
	b[0], b[3], b[8], b[9] = 0x45, 28, 64, 17
	copy(b[12:], from.Addr().AsSlice())
	copy(b[16:], to.Addr().AsSlice())
	b[20], b[21], b[22], b[23], b[25] = byte(from.Port()>>8), byte(from.Port()), byte(to.Port()>>8), byte(to.Port()), 8
	return b
}
