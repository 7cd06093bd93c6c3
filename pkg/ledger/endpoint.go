// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"net/netip"
	"slices"
	"time"
)

type endpoint struct {
	port        *port // nil for one that only a counter knows
	addr        netip.AddrPort
	created     time.Time
	connections uint64
	counters    int    // in all sources
	gone        bool   // it is in no rule: kept for the grace, exposed to nobody
	over        bool   // so is the grace
	left        uint64 // the round in which it went
}

// endpointList is the endpoints of one port: few are searched, many have an index.
type endpointList struct {
	all   []*endpoint
	index map[netip.AddrPort]*endpoint // nil while they are few
}

// find returns the endpoint of an address, or nil.
func (s *endpointList) find(addr netip.AddrPort) *endpoint {
	if s.index != nil {
		return s.index[addr]
	}
	for _, e := range s.all {
		if e.addr == addr {
			return e
		}
	}
	return nil
}

func (s *endpointList) add(e *endpoint) {
	s.all = append(s.all, e)
	switch {
	case s.index != nil:
		s.index[e.addr] = e
	case len(s.all) > indexAbove:
		s.index = make(map[netip.AddrPort]*endpoint, 2*len(s.all))
		for _, e := range s.all {
			s.index[e.addr] = e
		}
	}
}

// remove takes out endpoints. Without any it keeps no memory.
func (s *endpointList) remove(gone func(*endpoint) bool) {
	s.all = slices.DeleteFunc(s.all, func(e *endpoint) bool {
		if !gone(e) {
			return false
		}
		delete(s.index, e.addr)
		return true
	})
	if len(s.all) == 0 {
		*s = endpointList{}
	}
}

// departure is an endpoint that went in a round and may have come back since.
type departure struct {
	endpoint *endpoint
	round    uint64
	since    time.Time
}

// endpoint returns the state of an address that is in the port's rules.
func (p *port) endpoint(addr netip.AddrPort, l *Ledger, now time.Time) *endpoint {
	e := p.endpoints.find(addr)
	switch {
	case e == nil:
		e = &endpoint{port: p, addr: addr, created: now}
		p.endpoints.add(e)
		l.touch(p)
	case e.gone:
		e.gone = false
		l.touch(p)
	}
	return e
}

// unbind takes a counter from its endpoint.
func (rd *round) unbind(c *counter) {
	e := c.ep
	c.ep = nil
	if e == nil || e.port == nil {
		return
	}
	e.counters--
	if e.counters == 0 {
		rd.emptied = append(rd.emptied, e)
	}
}

// creditEndpoint adds connections to an endpoint of a Service with totals of
// its own.
func (rd *round) creditEndpoint(c *counter, n uint64) {
	if c.ep == nil || c.ep.port == nil {
		return
	}
	t := rd.totals(c.ep.port, rd.now)
	if t == &c.ep.port.Totals {
		c.ep.connections += n
	}
}

// leave hides the endpoints that are in no rule any more. A writer may flush
// the rules and write them again: an endpoint that comes back within the grace
// goes on from where it was.
func (rd *round) leave() {
	for _, e := range rd.emptied {
		if e.counters == 0 && !e.gone && e.port.endpoints.find(e.addr) == e {
			e.gone, e.left = true, rd.round
			rd.departed = append(rd.departed, departure{endpoint: e, round: rd.round, since: rd.now})
			rd.touch(e.port)
		}
	}
	clear(rd.emptied)
	rd.emptied = rd.emptied[:0]
}

// forgetEndpoints removes the endpoints whose grace is over.
func (l *Ledger) forgetEndpoints(now time.Time) {
	n := 0
	var of []*port
	for ; n < len(l.departed) && now.Sub(l.departed[n].since) >= grace; n++ {
		d := l.departed[n]
		if e := d.endpoint; e.gone && e.left == d.round {
			e.over = true
			of = append(of, e.port)
		}
	}
	for i, p := range of {
		if i == 0 || p != of[i-1] {
			p.endpoints.remove(func(e *endpoint) bool { return e.over })
		}
	}
	l.departed = slices.Delete(l.departed, 0, n)
	if len(l.departed) == 0 {
		l.departed = nil
	}
}
