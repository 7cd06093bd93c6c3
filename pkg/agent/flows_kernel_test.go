// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/svcscope/svcscope/pkg/correlate"
	"github.com/svcscope/svcscope/pkg/internal/kernelflows"
	"github.com/svcscope/svcscope/pkg/internal/kerneltest"
	"github.com/svcscope/svcscope/pkg/kernel"
	"github.com/svcscope/svcscope/pkg/service"
)

// flowWorld is a cluster as a table of connection tracking may show it.
type flowWorld struct {
	*service.Catalog
	rng  *rand.Rand
	next int // of the entry, from which its client has its address and port
}

// newFlowWorld has Services of every transport, some dual-stack, with every
// kind of address, and endpoints on this node and on another.
func newFlowWorld() *flowWorld {
	w := &flowWorld{rng: rand.New(rand.NewPCG(5, 6))}
	w.Catalog = &service.Catalog{
		Synced: true, Endpoints: make(map[service.PortName][]service.Endpoint),
		Node: service.Node{
			Name: "node-a", IPs: []netip.Addr{netip.MustParseAddr("192.168.50.1"), netip.MustParseAddr("fd00:192::1")},
			PodRanges: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24"), netip.MustParsePrefix("fd00:10:244:1::/64")},
		},
	}
	for i := range 40 {
		w.add(i)
	}
	// A pod in the node's network has the node's address.
	exporter := &service.Service{
		Name: service.Name{Namespace: "shop", Name: "svc-99"}, ClusterIPs: []netip.Addr{netip.MustParseAddr("10.96.0.99")},
		Ports: []service.Port{{Name: "main", Protocol: service.TCP, Port: 9100}},
	}
	w.Services = append(w.Services, exporter)
	w.Endpoints[exporter.PortName(&exporter.Ports[0])] = []service.Endpoint{
		{Addr: netip.MustParseAddrPort("192.168.50.1:9100"), NodeName: "node-a"},
	}
	return w
}

func (w *flowWorld) add(i int) {
	addr := func(format string, args ...any) netip.Addr { return netip.MustParseAddr(fmt.Sprintf(format, args...)) }
	svc := &service.Service{
		Name:       service.Name{Namespace: "shop", Name: fmt.Sprintf("svc-%02d", i)},
		ClusterIPs: []netip.Addr{addr("10.96.0.%d", i+1)},
		Ports: []service.Port{
			{Name: "main", Protocol: []service.Protocol{service.TCP, service.UDP, service.SCTP}[i%3], Port: 80, NodePort: uint16(30000 + i)},
			{Name: "more", Protocol: service.TCP, Port: 8443},
		},
	}
	if i%2 == 0 {
		svc.ClusterIPs = append(svc.ClusterIPs, addr("fd00:10:96::%x", i+1))
		svc.ExternalIPs = []netip.Addr{addr("203.0.113.%d", i+1)}
	}
	if i%4 == 0 {
		svc.LoadBalancerIPs = []netip.Addr{addr("198.51.100.%d", i+1), addr("2001:db8::%x", i+1)}
	}
	w.Services = append(w.Services, svc)
	for p := range svc.Ports {
		name := svc.PortName(&svc.Ports[p])
		for e := range 3 {
			node := []string{"node-a", "node-b"}[e%2]
			w.Endpoints[name] = append(w.Endpoints[name], service.Endpoint{
				Addr: netip.AddrPortFrom(addr("10.244.%d.%d", 1+e%2, 10+i), uint16(8080+p+10*e)), NodeName: node,
			})
		}
		for e := range 2 {
			w.Endpoints[name] = append(w.Endpoints[name], service.Endpoint{
				Addr: netip.AddrPortFrom(addr("fd00:10:244:%d::%x", 1+e, 10+i), uint16(8080+p)), NodeName: []string{"node-a", "node-b"}[e],
			})
		}
		slices.SortFunc(w.Endpoints[name], func(a, b service.Endpoint) int { return a.Addr.Compare(b.Addr) })
	}
}

// port is the client's of the entry at hand, and cycle how many had it before.
func (w *flowWorld) port() uint16 { return uint16(1025 + w.next%60000) }
func (w *flowWorld) cycle() int   { return w.next / 60000 }

// flows are n entries of any kind. Above 60,000 some are the same.
func (w *flowWorld) flows(n int) []kernelflows.Flow {
	var out []kernelflows.Flow
	for range n {
		w.next++
		if w.rng.IntN(5) == 0 {
			out = append(out, w.foreign())
		} else {
			out = append(out, w.toService())
		}
	}
	return out
}

func (w *flowWorld) toService() kernelflows.Flow {
	svc := w.Services[w.rng.IntN(len(w.Services))]
	p := &svc.Ports[w.rng.IntN(len(svc.Ports))]
	frontends := slices.Concat(svc.ClusterIPs, svc.ExternalIPs, svc.LoadBalancerIPs) // in both families, where there are endpoints
	dst := netip.AddrPortFrom(frontends[w.rng.IntN(len(frontends))], p.Port)
	if p.NodePort != 0 && w.rng.IntN(3) == 0 {
		ips := w.Node.IPs[:len(svc.ClusterIPs)]
		dst = netip.AddrPortFrom(ips[w.rng.IntN(len(ips))], p.NodePort)
	}
	v6 := dst.Addr().Is6()
	endpoints := w.EndpointsOf(svc.PortName(p), v6)
	f := kernelflows.Flow{
		Protocol: map[service.Protocol]uint8{service.TCP: 6, service.UDP: 17, service.SCTP: 132}[p.Protocol],
		Src:      w.client(v6), Dst: dst, From: endpoints[w.rng.IntN(len(endpoints))].Addr, Replied: w.rng.IntN(4) != 0,
	}
	if w.rng.IntN(10) == 0 { // to what is no endpoint of it
		f.From = netip.AddrPortFrom(f.From.Addr(), 9)
	}
	f.To = f.Src
	if w.rng.IntN(2) == 0 {
		f.To = netip.AddrPortFrom(w.Node.IPs[map[bool]int{true: 1}[v6]], w.port())
	}
	switch f.Protocol {
	case 6:
		f.State = uint8(1 + w.rng.IntN(9))
	case 132:
		f.State = uint8(1 + w.rng.IntN(7))
	}
	return f
}

// client is a pod of this node, or somebody outside.
func (w *flowWorld) client(v6 bool) netip.AddrPort {
	from := []string{"10.244.1.%d", "192.168.50.1%d"}
	if v6 {
		from = []string{"fd00:10:244:1::7%d", "fd00:192::2%d"}
	}
	return netip.AddrPortFrom(netip.MustParseAddr(fmt.Sprintf(from[w.rng.IntN(2)], 70+w.cycle())), w.port())
}

// foreign is an entry of no Service's address.
func (w *flowWorld) foreign() kernelflows.Flow {
	ap := netip.MustParseAddrPort
	at := func(a string) netip.AddrPort { return netip.AddrPortFrom(netip.MustParseAddr(a), w.port()) }
	switch w.rng.IntN(9) {
	case 8: // the number of a node port, elsewhere, by way of a proxy
		f := kernelflows.Flow{Protocol: 6, Src: at("10.244.1.8"), Dst: ap("203.0.113.250:30000"), From: ap("10.244.1.201:3128"), State: 3, Replied: true}
		f.To = f.Src
		return f
	case 7: // a probe of the node, from the address of its bridge
		return kernelflows.Flow{Protocol: 6, Src: at("10.244.1.1"), Dst: ap("10.244.1.99:9999"), Replied: true, State: 3}
	case 0: // what another node sent to an endpoint here
		e := w.Endpoints[w.Services[0].PortName(&w.Services[0].Ports[1])][0]
		return kernelflows.Flow{Protocol: 6, Src: at("10.244.2.1"), Dst: e.Addr, Replied: true, State: 3}
	case 1: // a pod's way out, masqueraded
		f := kernelflows.Flow{Protocol: 6, Src: at("10.244.1.7"), Dst: ap("192.0.2.1:443"), From: ap("192.0.2.1:443"), Replied: true, State: 3}
		f.To = at("192.168.50.1")
		return f
	case 2:
		return kernelflows.Flow{Protocol: 17, Src: at("192.168.50.1"), Dst: ap("192.0.2.1:123")}
	case 3:
		return kernelflows.Flow{Protocol: 1, Src: at("10.244.1.7"), Dst: ap("192.0.2.1:0")}
	case 4:
		return kernelflows.Flow{Protocol: 58, Src: at("2001:db8:9::1"), Dst: ap("[2001:db8:9::2]:0"), Replied: true}
	case 5: // somebody else's port of this node
		f := kernelflows.Flow{Protocol: 6, Src: at("192.168.50.9"), Dst: ap("192.168.50.1:8888"), From: ap("10.244.1.200:80"), State: 7, Replied: true}
		f.To = f.Src
		return f
	}
	return kernelflows.Flow{Protocol: 6, Src: at("192.0.2.77"), Dst: ap("192.0.2.78:25"), State: 8, Replied: true}
}

// printed is a line of conntrack -L -o extended.
type printed struct {
	protocol, state    string
	src, dst, from, to netip.AddrPort
	replied            bool
}

var printedRE = regexp.MustCompile(`^ipv[46]\s+\d+ (\S+)\s+\d+ \d+ (?:([A-Z][A-Z_0-9]+) )?src=(\S+) dst=(\S+) (?:sport=(\d+) dport=(\d+) )?` +
	`(?:type=\S+ code=\S+ id=\S+ )?(\[UNREPLIED\] )?src=(\S+) dst=(\S+) (?:sport=(\d+) dport=(\d+) )?`)

func parsePrinted(t *testing.T, text string) (all []printed) {
	t.Helper()
	for line := range strings.Lines(text) {
		m := printedRE.FindStringSubmatch(line)
		if m == nil {
			t.Fatalf("line %q", line)
		}
		addr := func(ip, port string) netip.AddrPort {
			if port == "" {
				port = "0"
			}
			return netip.MustParseAddrPort("[" + ip + "]:" + port)
		}
		if !strings.Contains(m[3], ":") {
			addr = func(ip, port string) netip.AddrPort {
				if port == "" {
					port = "0"
				}
				return netip.MustParseAddrPort(ip + ":" + port)
			}
		}
		all = append(all, printed{
			protocol: m[1], state: strings.ToLower(m[2]), replied: m[7] == "",
			src: addr(m[3], m[5]), dst: addr(m[4], m[6]), from: addr(m[8], m[10]), to: addr(m[9], m[11]),
		})
	}
	return all
}

// tally is what lines of conntrack -L say of Services, owners and states, by
// text.
func (w *flowWorld) tally(lines []printed) map[string]int {
	frontends, ports, endpoints, local := map[string]string{}, map[string]string{}, map[string]bool{}, map[string]bool{}
	for _, svc := range w.Services {
		for i := range svc.Ports {
			p := &svc.Ports[i]
			proto := strings.ToLower(string(p.Protocol))
			for _, a := range slices.Concat(svc.ClusterIPs, svc.ExternalIPs, svc.LoadBalancerIPs) {
				frontends[proto+netip.AddrPortFrom(a, p.Port).String()] = svc.Name.Name + ":" + p.Name
			}
			if p.NodePort != 0 {
				ports[fmt.Sprint(proto, p.NodePort)] = svc.Name.Name + ":" + p.Name
			}
			for _, e := range w.Endpoints[svc.PortName(p)] {
				endpoints[svc.Name.Name+":"+p.Name+" "+e.Addr.String()] = true
				endpoints[e.Addr.String()] = true
				local[e.Addr.String()] = e.NodeName == "node-a"
				local[e.Addr.Addr().String()] = local[e.Addr.Addr().String()] || e.NodeName == "node-a"
			}
		}
	}
	n := map[string]int{}
	for _, l := range lines {
		n["all"]++
		state := l.state
		if state == "" {
			state = map[bool]string{true: "replied", false: "unreplied"}[l.replied]
		}
		n["state "+l.protocol+" "+state]++
		name := frontends[l.protocol+l.dst.String()]
		src, dst := l.src.Addr().String(), l.dst.Addr().String()
		if name == "" && (dst == "192.168.50.1" || dst == "fd00:192::1") {
			name = ports[fmt.Sprint(l.protocol, l.dst.Port())]
		}
		switch {
		case name != "" && l.from != l.dst:
			n["owner service"]++
			w.tallyService(n, l, name, endpoints, local)
		case l.from != l.dst:
			n["owner redirected"]++
		case endpoints[l.dst.String()]:
			n["owner endpoint"]++
		case src == "192.168.50.1" || src == "fd00:192::1" || src == "10.244.1.1":
			n["owner node"]++
		case strings.HasPrefix(src, "10.244.1.") || strings.HasPrefix(src, "fd00:10:244:1:") || local[src]:
			n["owner pod"]++
		case dst == "192.168.50.1" || dst == "fd00:192::1":
			n["owner node"]++
		default:
			n["owner unknown"]++
		}
	}
	return n
}

func (w *flowWorld) tallyService(n map[string]int, l printed, name string, endpoints, local map[string]bool) {
	name += map[bool]string{true: " IPv6", false: " IPv4"}[l.dst.Addr().Is6()]
	closing := map[string]bool{
		"tcp fin_wait": true, "tcp close_wait": true, "tcp last_ack": true, "tcp time_wait": true, "tcp close": true,
		"sctp closed": true, "sctp shutdown_sent": true, "sctp shutdown_recd": true, "sctp shutdown_ack_sent": true,
	}[l.protocol+" "+l.state]
	switch {
	case closing:
		n[name+" closing"]++
	case l.replied:
		n[name+" replied"]++
	default:
		n[name+" unreplied"]++
	}
	base, _, _ := strings.Cut(name, " ")
	switch {
	case closing:
	case !endpoints[base+" "+l.from.String()]:
		n[name+" stale"]++
	case l.replied:
	case local[l.from.String()]:
		n[name+" unanswered local"]++
	default:
		n[name+" unanswered remote"]++
	}
}

// told is what the counter says, in the words of tally.
func told(f *correlate.Flows) map[string]int {
	n := map[string]int{"all": int(f.Entries)}
	set := func(key string, v uint64) {
		if v > 0 {
			n[key] = int(v)
		}
	}
	for o, v := range f.Owners {
		set("owner "+correlate.Owner(o).String(), v)
	}
	for _, s := range f.States {
		set("state "+s.Protocol+" "+s.State, s.Entries)
	}
	for _, s := range f.Services {
		name := s.Port.Name.Name + ":" + s.Port.Port + " " + s.Family.String()
		set(name+" replied", s.Replied)
		set(name+" unreplied", s.Unreplied)
		set(name+" closing", s.Closing)
		set(name+" stale", s.Stale)
		set(name+" unanswered local", s.UnansweredLocal)
		set(name+" unanswered remote", s.UnansweredRemote)
	}
	return n
}

// TestFlowsAsConntrackCounts fills a table with entries of every kind, and holds
// what is told of it against what conntrack -L -o extended prints. SVCSCOPE_LONG=1
// fills it to nine tenths of the host's limit.
func TestFlowsAsConntrackCounts(t *testing.T) {
	kerneltest.Run(t, func(t *testing.T) {
		w := newFlowWorld()
		n := 4000
		if os.Getenv("SVCSCOPE_LONG") == "1" {
			n = kernelflows.Limit(t)
		}
		made := kernelflows.Make(t, w.flows(n)...)
		text := ""
		for _, family := range []string{"ipv4", "ipv6"} {
			text += kerneltest.Exec(t, "", "conntrack", "-L", "-f", family, "-o", "extended")
		}
		r, err := kernel.OpenConntrack()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		var c correlate.FlowCounter
		c.Begin(correlate.FlowInputs{Catalog: w.Catalog, Local: []netip.Addr{netip.MustParseAddr("10.244.1.1")}}, time.Now())
		dump, err := r.Flows(t.Context(), kernel.FlowFilter{}, c.Add)
		if err != nil || dump.Undecoded > 0 {
			t.Fatalf("%+v, %v", dump, err)
		}
		want := w.tally(parsePrinted(t, text))
		if d := cmp.Diff(want, told(c.End())); d != "" {
			t.Errorf("(-conntrack +svcscope):\n%s", d)
		}
		if want["all"] != made || made < n/10*9 || len(want) < 300 {
			t.Errorf("%d entries of %d in %d kinds: the test sees too little", want["all"], made, len(want))
		}
		kerneltest.Result(t, "%d entries, %d numbers of them by Service, owner, protocol and state: as many as conntrack -L -o extended prints", made, len(want))
	})
}
