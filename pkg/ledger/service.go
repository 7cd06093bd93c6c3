// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"container/list"
	"slices"
	"time"
)

const (
	// absentAfter is how long a port must be absent from all rules before it
	// is forgotten, where no API tells which Services exist. A rewrite takes
	// chains away for a moment, and a Service without endpoints has few
	// rules or none.
	absentAfter = 10 * time.Minute
	// grace is how long the state of a Service that is gone is kept, for the
	// same Service to come back.
	grace = 5 * time.Minute
)

// service is a Service that is known.
type service struct {
	uid    string
	round  uint64  // the call of Know that named it last
	member bool    // it has totals of its own, until it is gone
	joined uint64  // the round that made it a member by what it counted: see Ledger.totals
	was    bool    // it is gone and was a member
	folded bool    // it was counted as folded into others
	here   int     // ports that are not gone
	ports  []*port // few, mostly one
}

// port returns the port of that name, or nil.
func (s *service) port(name Port) *port {
	for _, p := range s.ports {
		if p.name == name {
			return p
		}
	}
	return nil
}

type port struct {
	Totals
	name      Port
	svc       *service
	seen      time.Time // when it was last known
	round     uint64    // the call of Know that named it last
	endpoints endpointList

	gone bool   // it is kept for the grace, exposed to nobody
	dead bool   // it is forgotten
	left uint64 // the round in which it went
	// floor is the round up to which packets belong to an earlier Service of
	// the same name, and born that of the packets of counters that had been
	// such a Service's already.
	floor, born uint64

	changed uint64 // the round that changed it last
	element *list.Element
}

// Know says which Service ports exist. If the list is complete a port that
// does not any more is not exposed from now on, and is forgotten after five
// minutes; should it come back before with the same UID it goes on from where
// it was, and else from 0. If the list is not complete a port is forgotten
// after ten minutes of absence.
func (l *Ledger) Know(k Known, now time.Time) {
	l.round++
	l.forget(now)
	var fresh []*port
	for _, name := range k.Ports {
		if name == (Port{}) {
			continue
		}
		svc := l.services[name.Service]
		if svc == nil {
			svc = &service{}
			l.services[name.Service] = svc
		}
		if svc.round != l.round {
			svc.round = l.round
			l.identify(svc, k.UIDs[name.Service], now)
		}
		p := svc.port(name)
		if p == nil {
			p = &port{name: name, svc: svc, born: l.round}
			svc.ports = append(svc.ports, p)
			svc.here++
			l.renew(p, now)
			fresh = append(fresh, p)
		} else if p.gone {
			p.gone = false
			svc.here++
			if svc.uid == "" {
				p.floor = p.left
				l.renew(p, now)
			}
			l.touch(p)
		}
		p.seen, p.round = now, l.round
	}
	l.miss(k.Complete, now)
	if l.counting {
		l.admit(now)
	}
	for _, src := range l.sources {
		src.forgetDebts(l.round, now)
		for _, p := range fresh {
			l.settleDebts(p, src, now)
		}
	}
}

// identify notes a Service's UID. It starts the Service anew where it is not
// the one that it was.
func (l *Ledger) identify(svc *service, uid string, now time.Time) {
	absent := svc.here == 0 && len(svc.ports) > 0
	same := uid == svc.uid && uid != "" || !absent && (uid == "" || svc.uid == "")
	if uid != "" || absent {
		svc.uid = uid
	}
	switch {
	case same && absent && svc.was:
		svc.member, svc.was = true, false
		l.members++
	case !same:
		l.leave(svc)
		svc.was, svc.folded = false, false
		for _, p := range svc.ports {
			p.floor = l.round
			if p.gone {
				p.floor = p.left
			}
			l.renew(p, now)
		}
	}
}

// renew starts a port's totals at 0.
func (l *Ledger) renew(p *port, now time.Time) {
	p.Totals = Totals{Created: now}
	for _, e := range p.endpoints.all {
		e.created, e.connections = now, 0
	}
	l.touch(p)
}

// miss takes note of the ports that the list of this round lacks.
func (l *Ledger) miss(complete bool, now time.Time) {
	for _, svc := range l.services {
		for _, p := range slices.Backward(svc.ports) { // remove takes it out
			switch {
			case p.round == l.round || p.gone:
			case complete:
				p.gone, p.left = true, l.round
				l.gone = append(l.gone, absence{port: p, round: l.round, since: now})
				l.touch(p)
				svc.here--
			case now.Sub(p.seen) >= absentAfter:
				svc.here--
				l.remove(p)
			}
		}
		if svc.here == 0 && svc.member {
			l.leave(svc)
			svc.was = true
		}
	}
}

// leave takes a Service's membership.
func (l *Ledger) leave(svc *service) {
	if svc.member {
		svc.member = false
		l.members--
	}
}

// absence is a port that went in a round and may have come back since.
type absence struct {
	port  *port
	round uint64
	since time.Time
}

// forget removes the ports and endpoints whose grace is over.
func (l *Ledger) forget(now time.Time) {
	n := 0
	for ; n < len(l.gone) && now.Sub(l.gone[n].since) >= grace; n++ {
		if a := l.gone[n]; a.port.gone && a.port.left == a.round {
			l.remove(a.port)
		}
	}
	l.forgetEndpoints(now)
	l.gone = slices.Delete(l.gone, 0, n)
	if len(l.gone) == 0 {
		l.gone = nil
	}
}

func (l *Ledger) remove(p *port) {
	p.dead = true
	if p.element != nil {
		l.recent.Remove(p.element)
	}
	p.svc.ports = slices.DeleteFunc(p.svc.ports, func(q *port) bool { return q == p })
	if len(p.svc.ports) == 0 && l.services[p.name.Service] == p.svc {
		delete(l.services, p.name.Service)
	}
}

// admit gives all Services totals of their own while they are few enough.
// Above that only those that count something get them, in totals.
func (l *Ledger) admit(now time.Time) {
	here := 0
	for _, svc := range l.services {
		if svc.here > 0 {
			here++
		}
	}
	few := here <= l.max
	for _, svc := range l.services {
		switch {
		case svc.member || svc.here == 0:
		case few:
			l.join(svc, now)
		default:
			for _, p := range svc.ports {
				l.other(p.name, now)
			}
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
		l.renew(p, now)
	}
}

// port returns the state of a known port, or nil.
func (l *Ledger) port(name Port) *port {
	svc := l.services[name.Service]
	if svc == nil {
		return nil
	}
	return svc.port(name)
}
