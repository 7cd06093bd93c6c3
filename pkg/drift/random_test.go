// SPDX-License-Identifier: Apache-2.0

package drift

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/service"
)

// cluster makes objects of chance.
type cluster struct {
	rng *rand.Rand
	// n numbers Services: addresses and node ports are made of it.
	n int
}

func (c *cluster) one(of int) bool { return c.rng.IntN(of) == 0 }

func addrs(third byte, n int) (v4, v6 netip.Addr) {
	return netip.AddrFrom4([4]byte{10, third, byte(n >> 8), byte(n)}), netip.AddrFrom16([16]byte{0xfd, 0, 0, third, 14: byte(n >> 8), 15: byte(n)})
}

// service makes a Service; its UID makes every one another.
func (c *cluster) service(name service.Name) *service.Service {
	c.n++
	n := c.n
	s := &service.Service{Name: name, Type: "ClusterIP", UID: fmt.Sprint(n)}
	family := func(third byte) (out []netip.Addr) {
		v4, v6 := addrs(third, n)
		switch c.rng.IntN(4) {
		case 0:
			return []netip.Addr{v4}
		case 1:
			return []netip.Addr{v6}
		}
		return []netip.Addr{v4, v6}
	}
	switch {
	case c.one(15): // headless
	case c.one(15):
		s.ClusterIPs, s.ProxyName = family(96), "other"
	default:
		s.ClusterIPs = family(96)
	}
	if c.one(3) {
		s.ExternalIPs = family(20)
	}
	if c.one(3) {
		s.Type = "LoadBalancer"
		s.LoadBalancerIPs = family(30)
		if c.one(5) && len(s.ExternalIPs) > 0 {
			s.LoadBalancerIPs = append(s.LoadBalancerIPs, s.ExternalIPs[0])
		}
		for range c.rng.IntN(3) {
			v4, v6 := addrs(40, n+c.rng.IntN(9))
			bits := []int{0, 8, 24, 31, 32}[c.rng.IntN(5)]
			s.LoadBalancerSourceRanges = append(s.LoadBalancerSourceRanges, netip.PrefixFrom(v4, bits), netip.PrefixFrom(v6, bits*4))
		}
	}
	s.InternalLocal, s.ExternalLocal = c.one(4), c.one(3)
	if s.ClientIPAffinity = c.one(4); s.ClientIPAffinity {
		s.AffinitySeconds = int32(10 + c.rng.IntN(10000))
	}
	if s.Type == "LoadBalancer" && s.ExternalLocal {
		s.HealthCheckNodePort = uint16(20000 + n)
	}
	nodePort := c.one(2)
	for i, proto := range []service.Protocol{service.TCP, service.UDP, service.SCTP}[:1+c.rng.IntN(3)] {
		p := service.Port{Name: fmt.Sprintf("p%d", i), Protocol: proto, Port: uint16(80 + i)}
		if nodePort {
			p.NodePort = uint16(30000 + n)
		}
		s.Ports = append(s.Ports, p)
	}
	if len(s.Ports) == 1 && c.one(2) {
		s.Ports[0].Name = ""
	}
	return s
}

// endpoints makes those of a Service's ports.
func (c *cluster) endpoints(s *service.Service) []service.PortEndpoints {
	var out []service.PortEndpoints
	hints := c.rng.IntN(5)
	count := []int{0, 1, 2, 3, 5, 12}[c.rng.IntN(6)]
	for _, p := range s.Ports {
		eps := service.PortEndpoints{Port: p.Name, Protocol: p.Protocol}
		for i := range 2 * count {
			v4, v6 := addrs(100, c.rng.IntN(5000))
			e := service.Endpoint{Addr: netip.AddrPortFrom(v4, 8080), Ready: !c.one(4), Serving: true}
			if i >= count {
				e.Addr = netip.AddrPortFrom(v6, 8080)
			}
			if !e.Ready {
				e.Serving, e.Terminating = c.one(2), c.one(2)
			}
			e.NodeName = []string{"node1", "node2", "node3"}[c.rng.IntN(3)]
			e.Zone = "zone-" + e.NodeName
			if hints == 0 || hints == 1 && !c.one(9) {
				e.ForNodes = []string{e.NodeName}
			}
			if hints < 2 || hints == 2 && !c.one(9) {
				e.ForZones = []string{e.Zone}
			}
			eps.Endpoints = append(eps.Endpoints, e)
		}
		slices.SortFunc(eps.Endpoints, func(a, b service.Endpoint) int { return a.Addr.Compare(b.Addr) })
		eps.Endpoints = slices.CompactFunc(eps.Endpoints, func(a, b service.Endpoint) bool { return a.Addr == b.Addr })
		out = append(out, eps)
	}
	return out
}

func testNode() service.Node {
	v4, v6 := addrs(40, 3)
	return service.Node{Name: "node1", Zone: "zone-node1", IPs: []netip.Addr{v4, v6}}
}

// catalog has n Services.
func (c *cluster) catalog(n int) *service.Catalog {
	ch := service.Change{Version: 1, Services: map[service.Name]*service.Service{}, Endpoints: map[service.Name][]service.PortEndpoints{}, Node: testNode()}
	for i := range n {
		name := service.Name{Namespace: "ns", Name: fmt.Sprintf("svc-%03d", i)}
		ch.Services[name] = c.service(name)
		ch.Endpoints[name] = c.endpoints(ch.Services[name])
	}
	return new(service.Catalog).Next(&ch)
}

// change makes another catalog, and names the Services that are others in it.
func (c *cluster) change(old *service.Catalog, n int) (*service.Catalog, []service.Name) {
	ch := service.Change{Version: old.Version + 1, Services: map[service.Name]*service.Service{}, Endpoints: map[service.Name][]service.PortEndpoints{}, Node: old.Node}
	var names []service.Name
	for range 1 + c.rng.IntN(3) {
		name := service.Name{Namespace: "ns", Name: fmt.Sprintf("svc-%03d", c.rng.IntN(n))}
		names = append(names, name)
		svc := old.Service(name)
		switch {
		case svc == nil, c.one(4):
			svc = c.service(name)
			ch.Services[name], ch.Endpoints[name] = svc, c.endpoints(svc)
		case c.one(8):
			ch.Services[name], ch.Endpoints[name] = nil, nil
		default:
			ch.Endpoints[name] = c.endpoints(svc)
		}
	}
	return old.Next(&ch), names
}

// seeds are 150 in the long run.
var seeds = func() (out []uint64) {
	n := uint64(6)
	if os.Getenv("SVCSCOPE_LONG") == "1" {
		n = 150
	}
	for i := range n {
		out = append(out, 1000+i)
	}
	return out
}()

// variants are flags and releases that explain what they change.
var variants = map[string]flags{
	"defaults":                  {detectLocal: "-s 10.100.0.0/16", localhost: true},
	"masquerade all":            {masqueradeAll: true, localhost: true},
	"no local detector":         {localhost: true},
	"bridge, no localhost":      {detectLocal: "-i cni0"},
	"addresses of node ports":   {detectLocal: "-i cni+", nodePortAddresses: []string{"10.40.0.3", "10.40.0.4"}, localhost: true},
	"no address of node ports":  {detectLocal: "-i cni+", nodePortAddresses: []string{}, localhost: true},
	"more than 1,000 endpoints": {detectLocal: "-i cni+", large: true},
	"no external IPs":           {noExternalIPs: true},
	"Kubernetes 1.27":           {older: true, detectLocal: "-i cni+"},
}

// TestRandomServices: what kube-proxy writes of any Service is right, with every flag.
func TestRandomServices(t *testing.T) {
	for name, f := range variants {
		for _, seed := range seeds {
			for _, family := range []netfilter.Family{netfilter.IPv4, netfilter.IPv6} {
				t.Run(fmt.Sprintf("%s/%d/%s", name, seed, family), func(t *testing.T) {
					f := f
					if family == netfilter.IPv6 {
						f.nodePortAddresses = nil
						if f.detectLocal == "-s 10.100.0.0/16" {
							f.detectLocal = "-s fd00:0:0:64::/64"
						}
					}
					rng := rand.New(rand.NewPCG(seed, 0))
					c := cluster{rng: rng}
					catalog := c.catalog(40)
					n := newNode(t, family)
					n.sync(t, catalog, f, rng)
					got := Compare(&Input{Catalog: catalog, Rules: []Rules{n.rules()}})
					for _, d := range got.Differences {
						t.Errorf("seed %d: %+v", seed, d)
					}
					if len(got.Families) != 1 {
						t.Errorf("families %v", got.Families)
					}
				})
			}
		}
	}
}

// TestOneAfterTheOther: a Comparer that has seen what was before says what one without a
// past says.
func TestOneAfterTheOther(t *testing.T) {
	const services = 15
	for _, seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 1))
			c := cluster{rng: rng}
			catalog := c.catalog(services)
			n := newNode(t, netfilter.IPv4)
			n.sync(t, catalog, flags{}, rng)
			var all Comparer
			differed := 0
			for step := range 300 {
				if rng.IntN(3) > 0 {
					catalog, _ = c.change(catalog, services)
				}
				if rng.IntN(20) == 0 {
					ch := service.Change{Version: catalog.Version + 1, Node: testNode()}
					ch.Node.Zone = fmt.Sprintf("zone-node%d", 1+rng.IntN(3))
					catalog = catalog.Next(&ch)
				}
				switch rng.IntN(3) {
				case 0:
					n.sync(t, catalog, flags{}, rng)
				case 1:
					n.damage(rng)
					n.read(t)
				}
				in := Input{Catalog: catalog, NodeMissing: rng.IntN(30) == 0, Rules: []Rules{n.rules()}}
				if rng.IntN(30) == 0 {
					in.Catalog = nil
				}
				got, want := all.Compare(&in), Compare(&in)
				if diff := cmp.Diff(want.Differences, got.Differences); diff != "" {
					t.Fatalf("seed %d, step %d (-fresh +kept)\n%s", seed, step, diff)
				}
				if len(got.Differences) > 0 {
					differed++
				}
				if again := all.Compare(&in); len(again.Changed) > 0 || !slices.Equal(again.Differences, got.Differences) {
					t.Fatalf("seed %d, step %d: a second look differs", seed, step)
				}
			}
			if differed < 50 {
				t.Errorf("only %d of the steps differed", differed)
			}
		})
	}
}

// damage edits rules by hand.
func (n *node) damage(rng *rand.Rand) {
	table := []string{"filter", "nat", "nat", "nat"}[rng.IntN(4)]
	var names []string
	for name := range n.lines[table] {
		names = append(names, name)
	}
	slices.Sort(names)
	name := names[rng.IntN(len(names))]
	lines := slices.Clone(n.lines[table][name])
	switch {
	case len(lines) == 0:
		return
	case rng.IntN(3) == 0:
		lines = []string{}
	case rng.IntN(2) == 0:
		shuffle(lines, rng)
	default:
		i := rng.IntN(len(lines))
		lines = slices.Delete(lines, i, i+1)
	}
	n.set1(table, name, lines)
}
