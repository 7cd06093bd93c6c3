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
	// Version grows with every change of the API; see Change.
	Version uint64
	// Services is sorted by name.
	Services []*Service
	// Endpoints is for catalogs that are written down as one value: both
	// families, sorted by address, IPv4 first. Those that Next makes hold
	// what came later in parts that they share with their predecessors: read
	// with EndpointsOf, which knows both.
	Endpoints map[PortName][]Endpoint
	Node      Node

	parts *parts // over Endpoints; nil is none
	once  sync.Once
	index *index // shared by all catalogs with the same Services
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
	// At is where the Service is in Catalog.Services, and PortAt the port in
	// Service.Ports.
	At, PortAt int
}

// PortName names the port that was found.
func (m Match) PortName() PortName { return m.Service.PortName(m.Port) }

// Service returns the Service of that name, or nil.
func (c *Catalog) Service(n Name) *Service {
	i, ok := search(c.Services, n)
	if !ok {
		return nil
	}
	return c.Services[i]
}

// SameServices reports whether two catalogs share their list of Services, as those do
// between which only endpoints have changed.
func (c *Catalog) SameServices(d *Catalog) bool {
	a, b := c.Services, d.Services
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

// ByAddr finds the Service port that has a cluster, external or load-balancer
// address with this port number. Where several have, a cluster IP goes before
// the others and then the lower name; kube-proxy leaves their order open.
// The first look-up after a Service changed costs an index over all Services.
func (c *Catalog) ByAddr(addr netip.AddrPort, protocol Protocol) (Match, bool) {
	r, ok := c.indexed().addrs[addrKey{addr.Addr().As16(), addr.Port(), protocol.Number()}]
	return c.match(r), ok && addr.Addr().Zone() == ""
}

// ByNodePort finds the Service port that is reached on every address of the
// node by this port number.
func (c *Catalog) ByNodePort(port uint16, protocol Protocol) (Match, bool) {
	r, ok := c.indexed().nodePorts[nodePortKey{port, protocol.Number()}]
	return c.match(r), ok
}

// EndpointsOf returns the endpoints of a Service port in one IP family: a part
// of the shared slice, sorted by address.
func (c *Catalog) EndpointsOf(p PortName, ipv6 bool) []Endpoint {
	eps, ok := c.parts.endpoints(p)
	if !ok {
		eps = c.Endpoints[p]
	}
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
