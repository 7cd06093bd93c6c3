// SPDX-License-Identifier: Apache-2.0

package service

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// model is what a catalog should hold.
type model struct {
	services  map[Name]*Service
	endpoints map[Name][]PortEndpoints
}

func (m *model) check(t *testing.T, c *Catalog, what string) {
	t.Helper()
	want := slices.SortedFunc(maps.Values(m.services), func(a, b *Service) int { return a.Name.Compare(b.Name) })
	if !slices.Equal(want, c.Services) {
		t.Fatalf("%s: Services %v, want %v", what, names(c.Services), names(want))
	}
	got := map[Name][]PortEndpoints{}
	for _, part := range c.parts {
		for _, e := range part {
			got[e.name] = e.ports
		}
	}
	if diff := cmp.Diff(m.endpoints, got, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
		t.Fatalf("%s: endpoints (-want +got):\n%s", what, diff)
	}
	for n, ports := range m.endpoints {
		for _, p := range ports {
			name := PortName{Name: n, Port: p.Port, Protocol: p.Protocol}
			if eps := c.EndpointsOf(name, false); len(eps) != 1 || eps[0].Addr != p.Endpoints[0].Addr {
				t.Fatalf("%s: EndpointsOf(%s) = %v, want %v", what, name, eps, p.Endpoints)
			}
		}
	}
	for _, s := range c.Services {
		m, ok := c.ByAddr(netip.AddrPortFrom(s.ClusterIPs[0], 80), TCP)
		if !ok || m.Service != s {
			t.Fatalf("%s: ByAddr(%s) = %v, %v", what, s.ClusterIPs[0], m, ok)
		}
	}
}

func names(ss []*Service) (out []Name) {
	for _, s := range ss {
		out = append(out, s.Name)
	}
	return out
}

func (m *model) clone() *model {
	return &model{maps.Clone(m.services), maps.Clone(m.endpoints)}
}

// TestNextFollowsAnyChanges makes catalogs from their predecessors, and checks
// that the predecessors stay as they were.
func TestNextFollowsAnyChanges(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 2))
		m := &model{map[Name]*Service{}, map[Name][]PortEndpoints{}}
		c := (&Catalog{}).Next(&Change{Endpoints: map[Name][]PortEndpoints{{"a", "b"}: nil}})
		for step := range 200 {
			before, prev := m.clone(), c
			ch := &Change{Version: uint64(step), Services: map[Name]*Service{}, Endpoints: map[Name][]PortEndpoints{}}
			for range r.IntN(5) {
				i := r.IntN(40)
				n := Name{fmt.Sprintf("ns%d", i%3), fmt.Sprintf("s%02d", i)}
				switch r.IntN(4) {
				case 0:
					ch.Services[n] = nil
					delete(m.services, n)
				case 1:
					ch.Services[n] = &Service{
						Name: n, ClusterIPs: []netip.Addr{netip.AddrFrom4([4]byte{10, 96, byte(r.IntN(3)), byte(i)})},
						Ports: []Port{{Protocol: TCP, Port: 80}},
					}
					m.services[n] = ch.Services[n]
				case 2:
					ch.Endpoints[n] = nil
					delete(m.endpoints, n)
				case 3:
					ch.Endpoints[n] = []PortEndpoints{{Protocol: TCP, Endpoints: []Endpoint{
						{Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, byte(r.IntN(9)), byte(i)}), 8080)},
					}}}
					m.endpoints[n] = ch.Endpoints[n]
				}
			}
			c = c.Next(ch)
			what := fmt.Sprintf("seed %d, step %d", seed, step)
			if !c.Synced || c.Version != uint64(step) {
				t.Fatalf("%s: synced %v, version %d", what, c.Synced, c.Version)
			}
			m.check(t, c, what)
			if step > 0 {
				before.check(t, prev, what+", the catalog before")
			}
		}
	}
}

func TestNextOverWrittenEndpoints(t *testing.T) {
	web, dns := PortName{Name: Name{"a", "web"}, Protocol: TCP}, PortName{Name: Name{"a", "dns"}, Protocol: UDP}
	one := []Endpoint{{Addr: netip.MustParseAddrPort("10.1.0.1:80")}}
	c := &Catalog{Endpoints: map[PortName][]Endpoint{web: one, dns: one}}
	next := c.Next(&Change{Endpoints: map[Name][]PortEndpoints{web.Name: nil}})
	for p, want := range map[PortName][2]int{web: {1, 0}, dns: {1, 1}} {
		if got := [2]int{len(c.EndpointsOf(p, false)), len(next.EndpointsOf(p, false))}; got != want {
			t.Errorf("%s: %v endpoints before and after, want %v", p, got, want)
		}
	}
}

func TestNextSharesWhatDidNotChange(t *testing.T) {
	c := testCatalog()
	c.ByNodePort(30080, TCP)
	n := Name{"a", "web"}
	same := c.Next(&Change{Endpoints: map[Name][]PortEndpoints{n: {{Port: "http", Protocol: TCP}}}})
	if same.index != c.index || &same.Services[0] != &c.Services[0] {
		t.Error("Services did not change, but they or their index were made again")
	}
	other := same.Next(&Change{Services: map[Name]*Service{n: nil}})
	if other.parts != same.parts {
		t.Error("endpoints did not change, but they were copied")
	}
	if _, ok := other.ByNodePort(30080, TCP); ok {
		t.Error("the index has a Service that is gone")
	}
}

func BenchmarkNextAfterOneSlice(b *testing.B) {
	for _, n := range []int{1000, 10000, 30000} {
		b.Run(fmt.Sprintf("services=%d", n), func(b *testing.B) {
			ch := &Change{Services: map[Name]*Service{}, Endpoints: map[Name][]PortEndpoints{}}
			for i := range n {
				s := &Service{Name: Name{"ns", fmt.Sprintf("svc-%05d", i)}}
				ch.Services[s.Name], ch.Endpoints[s.Name] = s, []PortEndpoints{{Protocol: TCP}}
			}
			c := (&Catalog{}).Next(ch)
			one := &Change{Endpoints: map[Name][]PortEndpoints{{"ns", "svc-00007"}: {{Protocol: TCP}}}}
			b.ReportAllocs()
			for b.Loop() {
				c = c.Next(one)
			}
		})
	}
}
