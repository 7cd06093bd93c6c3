// SPDX-License-Identifier: Apache-2.0

package service

import (
	"net/netip"
	"sync"
)

// index finds Service ports by their frontends. Keys and references are
// numbers, without pointers that the garbage collector would have to follow.
type index struct {
	once      sync.Once
	addrs     map[addrKey]ref
	nodePorts map[nodePortKey]ref
}

// addrKey has an IPv4 address as IPv6 has it.
type addrKey struct {
	addr     [16]byte
	port     uint16
	protocol uint8
}

type nodePortKey struct {
	port     uint16
	protocol uint8
}

type ref struct {
	service  int32
	port     uint16
	frontend uint8 // into frontends
}

// frontends lists what a ref counts, in the order of precedence.
var frontends = [...]Frontend{ClusterFrontend, ExternalFrontend, LoadBalancerFrontend, NodePortFrontend}

// sharedIndex returns the index, which may not be built yet.
func (c *Catalog) sharedIndex() *index {
	c.once.Do(func() {
		if c.index == nil {
			c.index = &index{}
		}
	})
	return c.index
}

// indexed returns the index, built.
func (c *Catalog) indexed() *index {
	x := c.sharedIndex()
	x.once.Do(func() { x.build(c.Services) })
	return x
}

func (c *Catalog) match(r ref) Match {
	if int(r.service) >= len(c.Services) {
		return Match{}
	}
	s := c.Services[r.service]
	if int(r.port) >= len(s.Ports) {
		return Match{}
	}
	return Match{
		Service: s, Port: &s.Ports[r.port], Frontend: frontends[r.frontend], At: int(r.service), PortAt: int(r.port),
	}
}

func (x *index) build(all []*Service) {
	x.addrs = make(map[addrKey]ref, len(all))
	x.nodePorts = map[nodePortKey]ref{}
	for f := range frontends {
		for i, s := range all {
			if !s.Headless() {
				x.add(s, ref{service: int32(i), frontend: uint8(f)})
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
			k := addrKey{a.As16(), p.Port, p.Protocol.Number()}
			if _, ok := x.addrs[k]; !ok {
				x.addrs[k] = r
			}
		}
		if frontends[r.frontend] == NodePortFrontend && p.NodePort != 0 {
			k := nodePortKey{p.NodePort, p.Protocol.Number()}
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
