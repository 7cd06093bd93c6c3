// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"iter"
	"maps"
	"net/netip"
	"time"
)

// Totals are numbers of packets (first packets of connections, or refused
// ones) since Created. They only grow.
type Totals struct {
	Created  time.Time
	Cluster  uint64            // by the cluster address
	External uint64            // by a node port, external or load-balancer address
	Rejected map[string]uint64 // by reason; only those seen
}

func (t *Totals) refuse(reason string, n uint64) {
	if t.Rejected == nil {
		t.Rejected = make(map[string]uint64)
	}
	t.Rejected[reason] += n
}

// EndpointTotal is one endpoint's share of a port's connections.
type EndpointTotal struct {
	Addr        netip.AddrPort
	Created     time.Time
	Connections uint64
}

// PortTotal is what a Service port with totals of its own has counted.
type PortTotal struct {
	Port Port
	Totals
	Endpoints []EndpointTotal // in no order; those in the rules now
}

// OtherKey names one of the totals that Services above the cap share.
type OtherKey struct {
	Protocol string
	Family   uint8
}

// service is a Service that is known.
type service struct {
	member bool // it has totals of its own, until it is gone
	folded bool // it was counted as folded into others
	ports  map[Port]*port
}

type port struct {
	Totals
	seen      time.Time // when it was last known
	round     uint64    // the call of Know that named it last
	endpoints map[endpointKey]*endpoint
}

type endpointKey = netip.AddrPort

type endpoint struct {
	created     time.Time
	connections uint64
	in          uint64 // sources that hold it, by their bit
}

func (p *port) endpoint(addr netip.AddrPort, now time.Time) *endpoint {
	e := p.endpoints[addr]
	if e == nil {
		e = &endpoint{created: now}
		if p.endpoints == nil {
			p.endpoints = make(map[endpointKey]*endpoint)
		}
		p.endpoints[addr] = e
	}
	return e
}

// Know says which Service ports exist. A port that does not any more is
// forgotten, and starts from 0 should it come again: at once if the list is
// complete, after ten minutes of absence otherwise.
func (l *Ledger) Know(k Known, now time.Time) {
	l.round++
	for _, name := range k.Ports {
		if name == (Port{}) {
			continue
		}
		svc := l.services[name.Service]
		if svc == nil {
			svc = &service{ports: make(map[Port]*port)}
			l.services[name.Service] = svc
		}
		p := svc.ports[name]
		if p == nil {
			p = &port{}
			svc.ports[name] = p
			if svc.member {
				p.Created = now
			}
		}
		p.seen, p.round = now, l.round
	}
	for name, svc := range l.services {
		maps.DeleteFunc(svc.ports, func(_ Port, p *port) bool {
			return p.round != l.round && (k.Complete || now.Sub(p.seen) >= absentAfter)
		})
		if len(svc.ports) > 0 {
			continue
		}
		if svc.member {
			l.members--
		}
		delete(l.services, name)
	}
	if l.counting {
		l.admit(now)
	}
}

// admit gives all Services totals of their own while they are few enough.
// Above that only those that count something get them, in totals.
func (l *Ledger) admit(now time.Time) {
	if len(l.services) <= l.max {
		for _, svc := range l.services {
			l.join(svc, now)
		}
		return
	}
	for _, svc := range l.services {
		if svc.member {
			continue
		}
		for name := range svc.ports {
			l.other(name, now)
		}
	}
}

// join makes a Service a member; its totals start at 0 now.
func (l *Ledger) join(svc *service, now time.Time) {
	if svc.member {
		return
	}
	svc.member = true
	l.members++
	for _, p := range svc.ports {
		p.Totals = Totals{Created: now}
		for _, e := range p.endpoints {
			e.created, e.connections = now, 0
		}
	}
}

// port returns the state of a known port, or nil.
func (l *Ledger) port(name Port) *port {
	svc := l.services[name.Service]
	if svc == nil {
		return nil
	}
	return svc.ports[name]
}

// totals returns where packets of a known port are to be added: to its own
// totals if there is room for its Service, else to those shared.
func (l *Ledger) totals(name Port, now time.Time) *Totals {
	svc := l.services[name.Service]
	if !svc.member && l.members < l.max {
		l.join(svc, now)
	}
	if svc.member {
		return &svc.ports[name].Totals
	}
	if !svc.folded {
		svc.folded = true
		l.folded++
	}
	return l.other(name, now)
}

func (l *Ledger) other(name Port, now time.Time) *Totals {
	key := OtherKey{Protocol: name.Protocol, Family: name.Family}
	t := l.others[key]
	if t == nil {
		t = &Totals{Created: now}
		l.others[key] = t
	}
	return t
}

// creditEndpoint adds connections to an endpoint of a Service with totals of
// its own.
func (l *Ledger) creditEndpoint(k *Counter, n uint64, now time.Time) {
	if n == 0 || !k.Endpoint.IsValid() {
		return
	}
	l.totals(k.Port, now)
	if svc := l.services[k.Port.Service]; svc.member {
		svc.ports[k.Port].endpoint(k.Endpoint, now).connections += n
	}
}

// Ports returns the ports of all Services that have totals of their own, in
// no order. The values do not change with later readings.
func (l *Ledger) Ports() iter.Seq[PortTotal] {
	return func(yield func(PortTotal) bool) {
		for _, svc := range l.services {
			if !svc.member {
				continue
			}
			for name, p := range svc.ports {
				if !yield(p.total(name)) {
					return
				}
			}
		}
	}
}

func (p *port) total(name Port) PortTotal {
	t := PortTotal{Port: name, Totals: p.Totals}
	t.Rejected = maps.Clone(p.Rejected)
	for addr, e := range p.endpoints {
		t.Endpoints = append(t.Endpoints, EndpointTotal{Addr: addr, Created: e.created, Connections: e.connections})
	}
	return t
}

// Others returns copies of the totals shared by Services above the cap. There
// are at most one for each protocol and family.
func (l *Ledger) Others() map[OtherKey]Totals {
	others := make(map[OtherKey]Totals, len(l.others))
	for k, t := range l.others {
		c := *t
		c.Rejected = maps.Clone(t.Rejected)
		others[k] = c
	}
	return others
}

// Folded returns how many Services have had packets counted in Others since
// the start.
func (l *Ledger) Folded() uint64 { return l.folded }
