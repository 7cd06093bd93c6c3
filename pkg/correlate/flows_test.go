// SPDX-License-Identifier: Apache-2.0

package correlate

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/conntrack"
	"github.com/svcscope/svcscope/pkg/service"
)

// demoCatalog has a Service in both families with every kind of address, and
// one of UDP whose endpoint is on another node.
func demoCatalog(webEndpoints ...string) *service.Catalog {
	addr, pod := netip.MustParseAddr, func(node string, as ...string) (out []service.Endpoint) {
		for _, a := range as {
			out = append(out, service.Endpoint{Addr: netip.MustParseAddrPort(a), NodeName: node, Ready: true, Serving: true})
		}
		return out
	}
	web := service.PortName{Name: service.Name{Namespace: "shop", Name: "web"}, Port: "http", Protocol: service.TCP}
	dns := service.PortName{Name: service.Name{Namespace: "kube-system", Name: "dns"}, Protocol: service.UDP}
	return &service.Catalog{
		Synced: true,
		Services: []*service.Service{
			{
				Name: dns.Name, ClusterIPs: []netip.Addr{addr("10.96.0.11")},
				Ports: []service.Port{{Protocol: service.UDP, Port: 53}},
			},
			{
				Name: web.Name, ClusterIPs: []netip.Addr{addr("10.96.0.10"), addr("fd00:10:96::a")},
				ExternalIPs: []netip.Addr{addr("203.0.113.9")}, LoadBalancerIPs: []netip.Addr{addr("198.51.100.9")},
				Ports: []service.Port{{Name: "http", Protocol: service.TCP, Port: 80, NodePort: 30080}},
			},
		},
		Endpoints: map[service.PortName][]service.Endpoint{
			web: append(pod("node-a", webEndpoints...), pod("node-a", "[fd00:10:244:1::5]:8080")...),
			dns: pod("node-b", "10.244.2.6:5353"),
		},
		Node: service.Node{
			Name: "node-a", IPs: []netip.Addr{addr("192.168.50.1")},
			PodRanges: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")},
		},
	}
}

// flow is an entry from words: protocol, the original's source and destination,
// where it really goes, the masqueraded source or -, and flags.
func flow(t *testing.T, protocol uint8, src, dst, to, masq string, state conntrack.State, status conntrack.Status) *conntrack.Flow {
	t.Helper()
	f := &conntrack.Flow{Protocol: protocol, State: state, HasState: protocol == 6, Status: status}
	f.Orig = conntrack.Tuple{Src: netip.MustParseAddrPort(src), Dst: netip.MustParseAddrPort(dst)}
	f.Reply = conntrack.Tuple{Src: f.Orig.Dst, Dst: f.Orig.Src}
	f.Family = netfilter.IPv4
	if f.Orig.Src.Addr().Is6() {
		f.Family = netfilter.IPv6
	}
	if to != "" {
		f.Reply.Src = netip.MustParseAddrPort(to)
		f.Status |= conntrack.DstNAT
	}
	if masq != "" {
		f.Reply.Dst = netip.MustParseAddrPort(masq)
		f.Status |= conntrack.SrcNAT
	}
	return f
}

const (
	tcp = 6
	udp = 17
)

func TestFlowCounter(t *testing.T) {
	const web4 = "10.244.1.5:8080"
	c := &FlowCounter{}
	catalog := demoCatalog(web4)
	now := time.Unix(1e9, 0)
	c.Begin(FlowInputs{Catalog: catalog, Routed: []netip.Addr{netip.MustParseAddr("172.20.1.7")}}, now)
	for _, f := range []*conntrack.Flow{
		flow(t, tcp, "10.244.1.7:40001", "10.96.0.10:80", web4, "", conntrack.TCPEstablished, conntrack.SeenReply),
		flow(t, tcp, "10.244.1.7:40002", "10.96.0.10:80", web4, "", conntrack.TCPTimeWait, conntrack.SeenReply),
		flow(t, tcp, "192.168.50.2:40003", "192.168.50.1:30080", web4, "10.244.1.1:61234", conntrack.TCPSynSent, 0),
		flow(t, tcp, "192.168.50.2:40004", "203.0.113.9:80", web4, "10.244.1.1:61235", conntrack.TCPEstablished, conntrack.SeenReply),
		flow(t, tcp, "192.168.50.2:40005", "198.51.100.9:80", web4, "", conntrack.TCPEstablished, conntrack.SeenReply),
		flow(t, tcp, "[fd00::7]:40008", "[fd00:10:96::a]:80", "[fd00:10:244:1::5]:8080", "", conntrack.TCPEstablished, conntrack.SeenReply),
		flow(t, udp, "10.244.1.7:40009", "10.96.0.11:53", "10.244.2.6:5353", "", 0, 0),
		// As IPVS leaves it: without the status bit.
		func() *conntrack.Flow {
			f := flow(t, udp, "10.244.1.7:40010", "10.96.0.11:53", "10.244.2.6:5353", "", 0, conntrack.SeenReply)
			f.Status &^= conntrack.DstNAT
			return f
		}(),
		flow(t, tcp, "10.244.1.1:61234", web4, "", "", conntrack.TCPEstablished, conntrack.SeenReply),            // what another node sent here
		flow(t, tcp, "10.244.1.7:40011", "192.0.2.1:443", "", "192.168.50.1:40011", conntrack.TCPEstablished, 0), // egress
		flow(t, tcp, "192.168.50.1:40012", "192.0.2.1:443", "", "", conntrack.TCPEstablished, 0),
		flow(t, 1, "198.51.100.77:0", "192.168.50.1:0", "", "", 0, 0), // ping
		flow(t, 47, "198.51.100.77:0", "198.51.100.78:0", "", "", 0, 0),
		flow(t, tcp, "198.51.100.77:9", "10.96.0.10:80", "", "", conntrack.TCPSynSent, 0),      // to a Service's address, without NAT
		flow(t, tcp, "172.20.1.7:40016", "192.0.2.1:443", "", "", conntrack.TCPEstablished, 0), // a pod outside the node's ranges
		// A port of the host, a Service that is not there any more, and the number of a
		// node port elsewhere, which an egress proxy takes.
		flow(t, tcp, "192.168.50.2:40013", "192.168.50.1:8888", "10.244.1.9:80", "", conntrack.TCPEstablished, conntrack.SeenReply),
		flow(t, tcp, "10.244.1.7:40014", "10.96.0.99:80", "10.244.1.9:80", "", conntrack.TCPEstablished, conntrack.SeenReply),
		flow(t, tcp, "10.244.1.7:40015", "203.0.113.50:30080", "10.244.1.9:3128", "", conntrack.TCPEstablished, conntrack.SeenReply),
	} {
		c.Add(f)
	}
	got := c.End()
	owners, sum := map[string]uint64{}, uint64(0)
	for o, n := range got.Owners {
		owners[Owner(o).String()] = n
		sum += n
	}
	if got.Entries != 18 || sum != 18 {
		t.Errorf("%d entries, of owners %d", got.Entries, sum)
	}
	// The finder of one flow knows the same.
	finder := NewFlowFinder(FlowInputs{Catalog: catalog})
	elsewhere := flow(t, tcp, "10.244.1.7:40015", "203.0.113.50:30080", "10.244.1.9:3128", "", conntrack.TCPEstablished, conntrack.SeenReply)
	if name, _, ok := finder.Find(elsewhere); ok {
		t.Errorf("a flow that something else redirects is taken for one of %s", name)
	}
	if d := cmp.Diff(map[string]uint64{"service": 8, "redirected": 3, "endpoint": 1, "pod": 2, "node": 2, "unknown": 2}, owners); d != "" {
		t.Errorf("owners (-want +got):\n%s", d)
	}
	web := service.PortName{Name: service.Name{Namespace: "shop", Name: "web"}, Port: "http", Protocol: service.TCP}
	dns := service.PortName{Name: service.Name{Namespace: "kube-system", Name: "dns"}, Protocol: service.UDP}
	want := []ServiceFlows{
		{Port: dns, Family: netfilter.IPv4, Replied: 1, Unreplied: 1, UnansweredRemote: 1},
		{Port: web, Family: netfilter.IPv4, Replied: 3, Unreplied: 1, Closing: 1, UnansweredLocal: 1},
		{Port: web, Family: netfilter.IPv6, Replied: 1},
	}
	if d := cmp.Diff(want, got.Services); d != "" {
		t.Errorf("Services (-want +got):\n%s", d)
	}
	states := []StateEntries{
		{"icmp", "unreplied", 1},
		{"other", "unreplied", 1},
		{"tcp", "established", 11},
		{"tcp", "syn_sent", 2},
		{"tcp", "time_wait", 1},
		{"udp", "replied", 1},
		{"udp", "unreplied", 1},
	}
	if d := cmp.Diff(states, got.States); d != "" {
		t.Errorf("states (-want +got):\n%s", d)
	}
	if len(got.Ports) != 2 || got.Ports[0].Used != 2 || got.Ports[0].Destination.String() != web4 || got.Ports[0].Source.String() != "10.244.1.1" {
		t.Errorf("ports: %+v", got.Ports)
	}
}

// TestStaleEntries takes an endpoint away: entries toward it are stale after
// the grace, and not before, and not if it comes back.
func TestStaleEntries(t *testing.T) {
	now := time.Unix(1e9, 0)
	c := &FlowCounter{Grace: StaleGrace}
	stalled := false
	stale := func(after time.Duration, catalog *service.Catalog, entries int) uint64 {
		c.Begin(FlowInputs{Catalog: catalog, Stalled: stalled}, now.Add(after))
		for i := range entries {
			c.Add(flow(t, tcp, fmt.Sprintf("10.244.1.7:%d", 1024+i), "10.96.0.10:80", "10.244.1.5:8080", "", conntrack.TCPEstablished, conntrack.SeenReply))
		}
		var n uint64
		for _, s := range c.End().Services {
			n += s.Stale
		}
		return n
	}
	with, without := demoCatalog("10.244.1.5:8080"), demoCatalog("10.244.1.6:8080")
	for _, step := range []struct {
		after   time.Duration
		catalog *service.Catalog
		entries int
		stalled bool
		want    uint64
	}{
		{0, with, 3, false, 0},
		{30 * time.Second, without, 3, false, 0},
		{59 * time.Second, without, 3, false, 0},
		{60 * time.Second, without, 2, false, 2},
		{90 * time.Second, with, 2, false, 0},
		{120 * time.Second, without, 2, false, 0}, // gone anew
		{150 * time.Second, without, 2, false, 2},
		{160 * time.Second, without, 2, true, 2}, // it was before the API's news stopped
		{180 * time.Second, without, 0, false, 0},
		{210 * time.Second, without, 1, true, 0}, // it may be an endpoint that came since
		{300 * time.Second, without, 1, true, 0},
		{310 * time.Second, without, 1, false, 0}, // another sighting
		{340 * time.Second, without, 1, false, 1},
	} {
		stalled = step.stalled
		if got := stale(step.after, step.catalog, step.entries); got != step.want {
			t.Errorf("after %v: %d stale, want %d", step.after, got, step.want)
		}
	}
}

// TestReadingsThatBreakOff shows that one which does not see an entry does not
// forget since when it leads nowhere.
func TestReadingsThatBreakOff(t *testing.T) {
	now := time.Unix(1e9, 0)
	c := &FlowCounter{Grace: StaleGrace}
	in := FlowInputs{Catalog: demoCatalog("10.244.1.6:8080")}
	read := func(after time.Duration) uint64 {
		c.Begin(in, now.Add(after))
		c.Add(flow(t, tcp, "10.244.1.7:1", "10.96.0.10:80", "10.244.1.5:8080", "", conntrack.TCPEstablished, conntrack.SeenReply))
		c.Add(flow(t, tcp, "10.244.1.7:2", "10.96.0.10:80", "10.244.1.5:8080", "", conntrack.TCPTimeWait, conntrack.SeenReply))
		return c.End().Services[0].Stale
	}
	first := read(0)
	c.Begin(in, now.Add(15*time.Second))
	c.Abort()
	if second := read(30 * time.Second); first != 0 || second != 1 {
		t.Errorf("%d stale at first, %d after the grace; want 0 and the one that is not closing", first, second)
	}
}

// TestPortsOfTheNodeItself counts what the node's own connections take.
func TestPortsOfTheNodeItself(t *testing.T) {
	var c FlowCounter
	c.Begin(FlowInputs{Local: []netip.Addr{netip.MustParseAddr("192.168.50.1")}}, time.Unix(1e9, 0))
	for _, f := range []*conntrack.Flow{
		flow(t, tcp, "10.244.1.7:1", "192.0.2.1:443", "", "192.168.50.1:5000", conntrack.TCPEstablished, 0),
		flow(t, tcp, "192.168.50.1:5001", "192.0.2.1:443", "", "", conntrack.TCPEstablished, 0),
		flow(t, tcp, "192.0.2.1:443", "192.168.50.1:22", "", "", conntrack.TCPEstablished, 0), // a server here
		flow(t, tcp, "127.0.0.1:5001", "127.0.0.1:443", "", "", conntrack.TCPEstablished, 0),
	} {
		c.Add(f)
	}
	if got := c.End().Ports; len(got) != 1 || got[0].Used != 2 || got[0].Source.String() != "192.168.50.1" {
		t.Errorf("%+v", got)
	}
}

// TestFlowsWithoutAPI takes the Services from the rows that the rules make.
func TestFlowsWithoutAPI(t *testing.T) {
	port := func(name string, p service.Protocol) service.PortName {
		return service.PortName{Name: service.Name{Namespace: "shop", Name: "web"}, Port: name, Protocol: p}
	}
	endpoint := func(a string, in bool) []Endpoint {
		return []Endpoint{{Addr: netip.MustParseAddrPort(a), InKernel: in}}
	}
	rows := []*ServicePort{
		{Port: port("http", service.TCP), Family: netfilter.IPv4, ClusterIP: netip.MustParseAddr("10.96.0.10"), Number: 80, NodePort: 30080, Endpoints: endpoint("10.244.1.5:8080", true)},
		{Port: port("http", service.TCP), Family: netfilter.IPv6, ClusterIP: netip.MustParseAddr("fd00::a"), Number: 80, NodePort: 30080, Endpoints: endpoint("[fd00::5]:8080", true)},
		{Port: port("quic", service.UDP), Family: netfilter.IPv4, ClusterIP: netip.MustParseAddr("10.96.0.10"), Number: 80, Endpoints: endpoint("10.244.1.5:8080", false)},
	}
	c := &FlowCounter{Grace: StaleGrace}
	for range 2 {
		c.Begin(FlowInputs{Catalog: &service.Catalog{}, Rows: rows}, time.Unix(1e9, 0))
		c.Add(flow(t, tcp, "10.244.1.7:1", "10.96.0.10:80", "10.244.1.5:8080", "", conntrack.TCPEstablished, conntrack.SeenReply))
		c.Add(flow(t, tcp, "[fd00::7]:1", "[fd00::99]:30080", "[fd00::5]:8080", "", conntrack.TCPSynSent, 0))
		c.Add(flow(t, udp, "10.244.1.7:1", "10.96.0.10:80", "10.244.1.5:8080", "", 0, 0))
		got := c.End()
		want := []ServiceFlows{
			{Port: port("http", service.TCP), Family: netfilter.IPv4, Replied: 1},
			{Port: port("http", service.TCP), Family: netfilter.IPv6, Unreplied: 1, UnansweredRemote: 1},
			{Port: port("quic", service.UDP), Family: netfilter.IPv4, Unreplied: 1},
		}
		if d := cmp.Diff(want, got.Services); d != "" {
			t.Errorf("(-want +got):\n%s", d)
		}
	}
}

// TestIndexIsKept: without the API the rows of each snapshot are others, and mostly
// say the same.
func TestIndexIsKept(t *testing.T) {
	row := func(to string, connections uint64) []*ServicePort {
		return []*ServicePort{{
			Port:   service.PortName{Name: service.Name{Namespace: "shop", Name: "web"}, Protocol: service.TCP},
			Family: netfilter.IPv4, ClusterIP: netip.MustParseAddr("10.96.0.10"), Number: 80, KernelCount: int(connections),
			Endpoints: []Endpoint{{Addr: netip.MustParseAddrPort(to), InKernel: true}},
		}}
	}
	c, now := &FlowCounter{}, time.Unix(1e9, 0)
	c.Begin(FlowInputs{Rows: row("10.244.1.5:8080", 1)}, now)
	first := c.index
	if c.Begin(FlowInputs{Rows: row("10.244.1.5:8080", 2)}, now); c.index != first {
		t.Error("rows that say the same have another index")
	}
	if c.Begin(FlowInputs{Rows: row("10.244.1.6:8080", 2)}, now); c.index == first {
		t.Error("another endpoint has the same index")
	}
	catalog := demoCatalog("10.244.1.5:8080")
	c.Begin(FlowInputs{Catalog: catalog, Rows: row("10.244.1.6:8080", 2)}, now)
	if c.index.catalog != catalog {
		t.Error("the API's catalog is not taken")
	}
	if c.Begin(FlowInputs{Rows: row("10.244.1.6:8080", 2)}, now); c.index.catalog == catalog {
		t.Error("without the API its catalog is kept")
	}
}

// TestPortSketch holds the sketch against a count in full.
func TestPortSketch(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	var s portSketch
	s.reset()
	truth := map[portTarget]uint64{}
	sum := uint64(0)
	for range 160_000 {
		n := rng.IntN(100)
		if n >= 20 { // four of five go anywhere, 50,000 targets
			n = 100 + rng.IntN(50_000)
		}
		target := portTarget{
			source: netip.MustParseAddr("192.168.50.1"), protocol: tcp,
			destination: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)}), 443),
		}
		weight := 1 + uint64(rng.IntN(4))
		sum += weight
		truth[target] += weight
		s.add(target, weight)
	}
	if len(s.counts) > portTargets {
		t.Fatalf("%d targets are kept", len(s.counts))
	}
	for _, p := range s.top() {
		is := truth[portTarget{source: p.Source, destination: p.Destination, protocol: tcp}]
		if p.Used > is || is-p.Used > sum/portTargets {
			t.Errorf("%s: %d counted, is %d", p.Destination, p.Used, is)
		}
		if is < sum/200 {
			t.Errorf("%s with %d is not among the busiest", p.Destination, is)
		}
	}
}

// TestManyPairs has more pairs of addresses than are counted at once.
func TestManyPairs(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	vip, node := netip.MustParseAddrPort("10.96.0.10:80"), netip.MustParseAddr("192.168.50.1")
	name := service.PortName{Name: service.Name{Namespace: "ns", Name: "web"}, Port: "http", Protocol: service.TCP}
	catalog := &service.Catalog{
		Synced: true,
		Services: []*service.Service{{
			Name: name.Name, ClusterIPs: []netip.Addr{vip.Addr()}, Ports: []service.Port{{Name: name.Port, Protocol: service.TCP, Port: vip.Port()}},
		}},
		Endpoints: map[service.PortName][]service.Endpoint{},
	}
	at := func(n int) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 244, byte(n >> 8), byte(n)}), 8080)
	}
	for n := range 10_000 {
		catalog.Endpoints[name] = append(catalog.Endpoints[name], service.Endpoint{Addr: at(n)})
	}
	var c FlowCounter
	c.Begin(FlowInputs{Catalog: catalog}, time.Unix(1e9, 0))
	want := ServiceFlows{Port: name, Family: netfilter.IPv4}
	owners := [NumOwners]uint64{}
	for i := range 200_000 {
		from := at(rng.IntN(20_000))
		f := conntrack.Flow{
			Family: netfilter.IPv4, Protocol: tcp, Status: conntrack.DstNAT, HasState: true, State: conntrack.TCPEstablished,
			Orig: conntrack.Tuple{Src: netip.AddrPortFrom(node, uint16(i)), Dst: vip},
		}
		if i%5 == 0 { // another's
			f.Orig.Dst = netip.AddrPortFrom(vip.Addr(), 81)
		}
		f.Reply = conntrack.Tuple{Src: from, Dst: f.Orig.Src}
		if i%2 == 0 {
			f.Status |= conntrack.SeenReply
		}
		c.Add(&f)
		endpoint := from.Compare(at(10_000)) < 0
		switch {
		case i%5 == 0:
			owners[OwnerRedirected]++
			continue
		case i%2 == 0:
			want.Replied++
		default:
			want.Unreplied++
			if endpoint {
				want.UnansweredRemote++
			}
		}
		owners[OwnerService]++
		if !endpoint {
			want.Stale++
		}
	}
	got := c.End()
	if d := cmp.Diff([]ServiceFlows{want}, got.Services); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if got.Owners != owners {
		t.Errorf("owners %v, want %v", got.Owners, owners)
	}
}
