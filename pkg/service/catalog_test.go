// SPDX-License-Identifier: Apache-2.0

package service

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func addrs(ss ...string) []netip.Addr {
	var out []netip.Addr
	for _, s := range ss {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

func testCatalog() *Catalog {
	return &Catalog{
		Synced: true,
		Services: []*Service{
			{
				Name: Name{"a", "none"}, ExternalIPs: addrs("203.0.113.9"),
				Ports: []Port{{Name: "p", Protocol: TCP, Port: 80}},
			},
			{
				Name: Name{"a", "web"}, ClusterIPs: addrs("10.0.0.1", "fd00::1"), ExternalIPs: addrs("203.0.113.1"),
				Ports: []Port{{Name: "http", Protocol: TCP, Port: 80, NodePort: 30080}, {Name: "dns", Protocol: UDP, Port: 53, NodePort: 30080}},
			},
			{
				Name: Name{"b", "lb"}, ClusterIPs: addrs("10.0.0.2"), ExternalIPs: addrs("203.0.113.1", "10.0.0.1"), LoadBalancerIPs: addrs("198.51.100.1"),
				Ports: []Port{{Protocol: TCP, Port: 80, NodePort: 30081}},
			},
		},
	}
}

func TestByAddr(t *testing.T) {
	tests := []struct {
		name, addr string
		protocol   Protocol
		want       string
	}{
		{"cluster IP", "10.0.0.2:80", TCP, "b/lb cluster"},
		{"second cluster IP", "[fd00::1]:80", TCP, "a/web:http cluster"},
		{"second port of another protocol", "10.0.0.1:53", UDP, "a/web:dns cluster"},
		{"protocol differs", "10.0.0.1:53", TCP, ""},
		{"port differs", "10.0.0.1:81", TCP, ""},
		{"load-balancer address", "198.51.100.1:80", TCP, "b/lb loadbalancer"},
		{"external address of two Services goes to the lower name", "203.0.113.1:80", TCP, "a/web:http external"},
		{"cluster IP wins over an external address", "10.0.0.1:80", TCP, "a/web:http cluster"},
		{"external address of a headless Service is not served", "203.0.113.9:80", TCP, ""},
		{"IPv4 in IPv6", "[::ffff:10.0.0.2]:80", TCP, "b/lb cluster"},
	}
	c := testCatalog()
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m, ok := c.ByAddr(netip.MustParseAddrPort(tt.addr), tt.protocol)
			got := ""
			if ok {
				got = fmt.Sprintf("%s %s", m.PortName(), m.Frontend)
			}
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestByNodePort(t *testing.T) {
	c := testCatalog()
	for _, tt := range []struct {
		port     uint16
		protocol Protocol
		want     string
	}{{30080, TCP, "a/web:http"}, {30080, UDP, "a/web:dns"}, {30081, TCP, "b/lb"}, {30081, UDP, ""}, {0, TCP, ""}} {
		m, ok := c.ByNodePort(tt.port, tt.protocol)
		got := ""
		if ok {
			got = m.PortName().String()
			if m.Frontend != NodePortFrontend {
				t.Errorf("%d/%s: frontend %q", tt.port, tt.protocol, m.Frontend)
			}
		}
		if got != tt.want {
			t.Errorf("%d/%s: got %q, want %q", tt.port, tt.protocol, got, tt.want)
		}
	}
}

func TestEmptyCatalogFindsNothing(t *testing.T) {
	c := &Catalog{}
	if m, ok := c.ByAddr(netip.MustParseAddrPort("10.0.0.1:80"), TCP); ok || m.Service != nil {
		t.Errorf("ByAddr: %v, %v", m, ok)
	}
	if m, ok := c.ByNodePort(1, TCP); ok || m.Service != nil {
		t.Errorf("ByNodePort: %v, %v", m, ok)
	}
	if s := c.Service(Name{"a", "b"}); s != nil {
		t.Errorf("Service: %v", s)
	}
	if e := c.EndpointsOf(PortName{}, false); len(e) != 0 {
		t.Errorf("EndpointsOf: %v", e)
	}
}

func TestServiceByName(t *testing.T) {
	c := testCatalog()
	for _, s := range c.Services {
		if got := c.Service(s.Name); got != s {
			t.Errorf("%s: got %v", s.Name, got)
		}
	}
	for _, n := range []Name{{"a", "nobody"}, {"", ""}, {"z", "z"}, {"b", "web"}} {
		if got := c.Service(n); got != nil {
			t.Errorf("%s: got %s", n, got.Name)
		}
	}
}

func TestEndpointsOfOneFamily(t *testing.T) {
	p := PortName{Name: Name{"a", "web"}, Port: "http", Protocol: TCP}
	v4 := []string{"10.1.0.1:80", "10.1.0.2:80"}
	v6 := []string{"[fd01::1]:80"}
	for _, tt := range [][2][]string{{v4, v6}, {v4, nil}, {nil, v6}, {nil, nil}} {
		c := &Catalog{Endpoints: map[PortName][]Endpoint{}}
		for _, s := range slices.Concat(tt[0], tt[1]) {
			c.Endpoints[p] = append(c.Endpoints[p], Endpoint{Addr: netip.MustParseAddrPort(s)})
		}
		for i, ipv6 := range []bool{false, true} {
			var got []string
			for _, e := range c.EndpointsOf(p, ipv6) {
				got = append(got, e.Addr.String())
			}
			if diff := cmp.Diff(tt[i], got); diff != "" {
				t.Errorf("ipv6 %v of %v (-want +got):\n%s", ipv6, tt, diff)
			}
		}
	}
}

func TestLookupsByManyReaders(t *testing.T) {
	c := testCatalog()
	done := make(chan bool)
	for range 8 {
		go func() {
			_, ok := c.ByAddr(netip.MustParseAddrPort("10.0.0.2:80"), TCP)
			done <- ok
		}()
	}
	for range 8 {
		if !<-done {
			t.Error("not found")
		}
	}
}

func TestExternallyAccessible(t *testing.T) {
	s := &Service{ClusterIPs: addrs("10.0.0.1", "fd00::1"), ExternalIPs: addrs("203.0.113.1"), LoadBalancerIPs: addrs("2001:db8::1")}
	for _, tt := range []struct {
		name string
		s    *Service
		p    Port
		ipv6 bool
		want bool
	}{
		{"external address of the family", &Service{ExternalIPs: s.ExternalIPs}, Port{}, false, true},
		{"external address of the other family", &Service{ExternalIPs: s.ExternalIPs}, Port{}, true, false},
		{"load-balancer address of the family", &Service{LoadBalancerIPs: s.LoadBalancerIPs}, Port{}, true, true},
		{"node port counts in both", &Service{}, Port{NodePort: 30000}, true, true},
		{"nothing", &Service{ClusterIPs: s.ClusterIPs}, Port{}, false, false},
	} {
		if got := tt.s.ExternallyAccessible(&tt.p, tt.ipv6); got != tt.want {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
	}
	if got := s.ClusterIP(true).String(); got != "fd00::1" {
		t.Errorf("ClusterIP(ipv6) = %s", got)
	}
}

func BenchmarkIndex(b *testing.B) {
	c := &Catalog{}
	for i := range 10000 {
		c.Services = append(c.Services, &Service{
			Name:       Name{"ns", fmt.Sprintf("svc-%05d", i)},
			ClusterIPs: []netip.Addr{netip.AddrFrom4([4]byte{10, 96, byte(i >> 8), byte(i)})},
			Ports:      []Port{{Name: "http", Protocol: TCP, Port: 80}},
		})
	}
	b.ReportAllocs()
	for b.Loop() {
		(&index{}).build(c.Services)
	}
}
