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

// refuseAll adds refusals by reason; nil drops them.
func (t *Totals) refuseAll(refused map[string]uint64) {
	if t == nil {
		return
	}
	for reason, n := range refused {
		t.refuse(reason, n)
	}
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

// totals returns where packets of a known port are to be added: to its own
// totals if there is room for its Service, else to those shared. It returns
// nil where they are to be dropped.
func (l *Ledger) totals(p *port, now time.Time) *Totals {
	svc := p.svc
	if p.gone {
		if svc.member || svc.was {
			return &p.Totals
		}
		return nil
	}
	if svc.member && svc.joined <= l.told {
		l.touch(p)
		return &p.Totals
	}
	if !svc.member && l.members < l.max {
		// Its own totals are exposed at 0 first: a Prometheus that scrapes them
		// sees no growth in a first sample. What is counted until they are told of
		// is added to those shared, which are there: in the same pass there may be
		// more of it, in another family.
		l.join(svc, now)
		svc.joined = l.round
		l.touch(p)
	}
	if !svc.member && !svc.folded {
		svc.folded = true
		l.folded++
	}
	return l.other(p.name, now)
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

// Has reports whether a Service has totals of its own.
func (l *Ledger) Has(name Service) bool {
	svc := l.services[name]
	return svc != nil && svc.member
}

// touch notes that a port's totals change in this round.
func (l *Ledger) touch(p *port) {
	switch {
	case p.dead || p.changed == l.round && p.element != nil:
		return
	case p.element == nil:
		p.element = l.recent.PushFront(p)
	default:
		l.recent.MoveToFront(p.element)
	}
	p.changed = l.round
}

func (p *port) exposed() bool { return p.svc.member && !p.gone }

// Changed returns the totals that have changed, or come to be exposed, after a
// version that an earlier call returned, in no order, and the version of now;
// 0 is before all. A Service that passed the cap counts for itself once a call
// has told of it, at 0. The cost follows what has changed. A port that is not
// exposed any more is not told: see Total.
func (l *Ledger) Changed(since uint64) (ports []PortTotal, version uint64) {
	for e := l.recent.Front(); e != nil; e = e.Next() {
		p := e.Value.(*port)
		if p.changed <= since {
			break
		}
		if p.exposed() {
			ports = append(ports, p.total())
		}
	}
	l.told = l.round
	return ports, l.round
}

// Total returns the totals of one port. ok is false where the port has none of
// its own.
func (l *Ledger) Total(name Port) (t PortTotal, ok bool) {
	p := l.port(name)
	if p == nil || !p.exposed() {
		return PortTotal{}, false
	}
	return p.total(), true
}

// Ports returns the ports of all Services that have totals of their own, in
// no order. The values do not change with later readings.
func (l *Ledger) Ports() iter.Seq[PortTotal] {
	return func(yield func(PortTotal) bool) {
		for e := l.recent.Front(); e != nil; e = e.Next() {
			if p := e.Value.(*port); p.exposed() && !yield(p.total()) {
				return
			}
		}
	}
}

func (p *port) total() PortTotal {
	t := PortTotal{Port: p.name, Totals: p.Totals}
	t.Rejected = maps.Clone(p.Rejected)
	for _, e := range p.endpoints.all {
		if e.gone {
			continue
		}
		t.Endpoints = append(t.Endpoints, EndpointTotal{Addr: e.addr, Created: e.created, Connections: e.connections})
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
