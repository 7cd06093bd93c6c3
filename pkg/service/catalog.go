// SPDX-License-Identifier: Apache-2.0

package service

import (
	"net/netip"
	"slices"
	"sync"
)

// Catalog is an immutable picture of the API: every Service, the endpoints of
// every Service port, and this node. Slices in it are shared: do not write.
// It may be read by any number of goroutines; pass it by pointer.
type Catalog struct {
	// Synced is false until the first complete list has arrived; such a
	// catalog is empty and means "unknown", not "no Services".
	Synced bool
	// Services is sorted by name.
	Services []*Service
	// Endpoints holds both families, sorted by address, IPv4 first;
	// duplicates across slices are collapsed as kube-proxy collapses them.
	Endpoints map[PortName][]Endpoint
	Node      Node

	once  sync.Once
	index index
}

// Frontend is the kind of address by which a Service port is reached, in the
// words of the label frontend.
type Frontend string

// The frontends.
const (
	ClusterFrontend      Frontend = "cluster"      // a cluster IP
	NodePortFrontend     Frontend = "nodeport"     // any address of the node
	ExternalFrontend     Frontend = "external"     // spec.externalIPs
	LoadBalancerFrontend Frontend = "loadbalancer" // status.loadBalancer.ingress
)

// Match is a Service port and how it was found.
type Match struct {
	Service  *Service
	Port     *Port
	Frontend Frontend
}

// PortName names the port that was found.
func (m Match) PortName() PortName { return m.Service.PortName(m.Port) }

// Service returns the Service of that name, or nil.
func (c *Catalog) Service(n Name) *Service {
	i, ok := slices.BinarySearchFunc(c.Services, n, func(s *Service, n Name) int {
		return s.Name.Compare(n)
	})
	if !ok {
		return nil
	}
	return c.Services[i]
}

// ByAddr finds the Service port that has a cluster, external or load-balancer
// address with this port number. Where several have, a cluster IP goes before
// the others and then the lower name; kube-proxy leaves their order open.
// The first look-up in a catalog costs an index over all Services.
func (c *Catalog) ByAddr(addr netip.AddrPort, protocol Protocol) (Match, bool) {
	c.once.Do(c.buildIndex)
	addr = netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port())
	r, ok := c.index.addrs[addrKey{addr, protocol}]
	return c.match(r), ok
}

// ByNodePort finds the Service port that is reached on every address of the
// node by this port number.
func (c *Catalog) ByNodePort(port uint16, protocol Protocol) (Match, bool) {
	c.once.Do(c.buildIndex)
	r, ok := c.index.nodePorts[nodePortKey{port, protocol}]
	return c.match(r), ok
}

// EndpointsOf returns the endpoints of a Service port in one IP family: a part
// of the shared slice, sorted by address.
func (c *Catalog) EndpointsOf(p PortName, ipv6 bool) []Endpoint {
	eps := c.Endpoints[p]
	i, _ := slices.BinarySearchFunc(eps, true, func(e Endpoint, _ bool) int {
		if e.Addr.Addr().Is4() {
			return -1
		}
		return 1
	})
	if ipv6 {
		return eps[i:]
	}
	return eps[:i:i]
}

// index finds Service ports by their frontends. References are numbers, not
// pointers, so that the garbage collector has nothing to follow.
type index struct {
	addrs     map[addrKey]ref
	nodePorts map[nodePortKey]ref
}

type addrKey struct {
	addr     netip.AddrPort
	protocol Protocol
}

type nodePortKey struct {
	port     uint16
	protocol Protocol
}

type ref struct {
	service  int32
	port     uint16
	frontend uint8 // into frontends
}

// frontends lists what a ref counts, in the order of precedence.
var frontends = [...]Frontend{ClusterFrontend, ExternalFrontend, LoadBalancerFrontend, NodePortFrontend}

func (c *Catalog) match(r ref) Match {
	if int(r.service) >= len(c.Services) {
		return Match{}
	}
	s := c.Services[r.service]
	if int(r.port) >= len(s.Ports) {
		return Match{}
	}
	return Match{Service: s, Port: &s.Ports[r.port], Frontend: frontends[r.frontend]}
}

func (c *Catalog) buildIndex() {
	c.index = index{
		addrs:     make(map[addrKey]ref, len(c.Services)),
		nodePorts: make(map[nodePortKey]ref),
	}
	for f := range frontends {
		for i, s := range c.Services {
			if !s.Headless() {
				c.index.add(s, ref{service: int32(i), frontend: uint8(f)})
			}
		}
	}
}

// add enters what is reached by one frontend of s; the first entry stays.
func (x *index) add(s *Service, r ref) {
	addrs := s.addrs(frontends[r.frontend])
	for i := range s.Ports {
		p := &s.Ports[i]
		r.port = uint16(i)
		for _, a := range addrs {
			k := addrKey{netip.AddrPortFrom(a, p.Port), p.Protocol}
			if _, ok := x.addrs[k]; !ok {
				x.addrs[k] = r
			}
		}
		if frontends[r.frontend] == NodePortFrontend && p.NodePort != 0 {
			k := nodePortKey{p.NodePort, p.Protocol}
			if _, ok := x.nodePorts[k]; !ok {
				x.nodePorts[k] = r
			}
		}
	}
}

func (s *Service) addrs(f Frontend) []netip.Addr {
	switch f {
	case ClusterFrontend:
		return s.ClusterIPs
	case ExternalFrontend:
		return s.ExternalIPs
	case LoadBalancerFrontend:
		return s.LoadBalancerIPs
	}
	return nil
}
