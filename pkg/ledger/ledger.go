// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"maps"
	"time"
)

// absentAfter is how long a port must be absent from all rules before it is
// forgotten, where no API tells which Services exist. A rewrite takes chains
// away for a moment, and a Service without endpoints has few rules or none.
const absentAfter = 10 * time.Minute

// Ledger is the state between readings.
type Ledger struct {
	max      int // Services with totals of their own
	sources  map[Source]*source
	services map[Service]*service
	members  int
	round    uint64 // numbers the calls of Know
	counting bool   // some source has its baseline
	others   map[OtherKey]*Totals
	folded   uint64
}

// New returns an empty ledger that keeps totals of its own for at most
// maxServices Services; the rest share those of Others.
func New(maxServices int) *Ledger {
	return &Ledger{
		max:      maxServices,
		sources:  make(map[Source]*source),
		services: make(map[Service]*service),
		others:   make(map[OtherKey]*Totals),
	}
}

// Counting reports whether any source has its baseline.
func (l *Ledger) Counting() bool { return l.counting }

// Baselined reports whether the source's readings are counted: it has its
// baseline.
func (l *Ledger) Baselined(s Source) bool {
	src := l.sources[s]
	return src != nil && src.baselined
}

// Apply adds what has happened since the source's last reading. The first two
// readings of a source are its baseline and add nothing; counters that appear
// later start at 0, but for those of a table that was restored with its
// counters.
func (l *Ledger) Apply(r Reading, now time.Time) Outcome {
	src := l.sources[r.Source]
	if src == nil {
		src = &source{
			bit:      1 << len(l.sources),
			counters: make(map[ID]*counter),
			splits:   make(map[Port]*split),
		}
		l.sources[r.Source] = src
	}
	src.serial++
	if !src.baselined {
		again := src.baseline(&r)
		if !again {
			l.counting = true
			l.present(src, &r, now)
			l.admit(now)
		}
		return Outcome{Suspect: again}
	}
	l.present(src, &r, now)
	src.carry(&r)
	suspect := l.count(src, &r, now)
	return Outcome{Suspect: suspect, Pending: l.settle(src, &r, now)}
}

// count steps every counter of r and reports whether any is in doubt.
func (l *Ledger) count(src *source, r *Reading, now time.Time) bool {
	suspect := false
	needed := src.needed(r)
	for i := range r.Counters {
		k := &r.Counters[i]
		known := l.port(k.Port) != nil
		c, st := src.take(k, needed, known)
		if c == nil {
			continue
		}
		suspect = suspect || st.change == held
		if k.Kind != Refusal {
			src.split(k.Port).add(c, st, src.serial)
		}
		if !known || st.delta == 0 {
			continue
		}
		switch k.Kind {
		case Connection:
			l.creditEndpoint(k, st.delta, now)
		case Refusal:
			l.totals(k.Port, now).refuse(k.Reason, st.delta)
		}
	}
	return suspect
}

// take steps the counter of k. It returns nil for one whose Service is not
// known and never was: it keeps its packets until its Service is known, which
// the API may tell after the rules do.
func (s *source) take(k *Counter, needed int, known bool) (*counter, step) {
	c := s.counters[k.ID]
	isNew := c == nil
	if isNew {
		c = &counter{}
		s.counters[k.ID] = c
	}
	c.meaning, c.serial = k.meaning(), s.serial
	if !known && !c.credited {
		return nil, step{}
	}
	c.credited = true
	st := c.next(k.Packets, needed, s.serial)
	if isNew {
		st.change = fresh
	}
	return c, st
}

func (s *source) split(p Port) *split {
	sp := s.splits[p]
	if sp == nil {
		sp = &split{}
		s.splits[p] = sp
	}
	return sp
}

// settle forgets the counters that are gone, and gives the connections of
// each port to the way they came in.
func (l *Ledger) settle(src *source, r *Reading, now time.Time) (pending bool) {
	live := make(map[Port]bool, len(src.splits))
	for id, c := range src.counters {
		if c.serial == src.serial {
			live[c.port] = live[c.port] || c.kind != Refusal
			continue
		}
		if sp := src.splits[c.port]; sp != nil && c.credited {
			sp.gone(c.kind)
		}
		delete(src.counters, id)
	}
	for port, sp := range src.splits {
		if !live[port] {
			delete(src.splits, port)
			continue
		}
		cluster, external, open := sp.settle(r, src.serial)
		pending = pending || open
		if cluster+external > 0 && l.port(port) != nil {
			t := l.totals(port, now)
			t.Cluster += cluster
			t.External += external
		}
	}
	return pending
}

// present marks the endpoints that the reading holds and forgets those that
// no source holds any more.
func (l *Ledger) present(src *source, r *Reading, now time.Time) {
	for _, svc := range l.services {
		for _, p := range svc.ports {
			for _, e := range p.endpoints {
				e.in &^= src.bit
			}
		}
	}
	for i := range r.Counters {
		k := &r.Counters[i]
		if k.Kind != Connection || !k.Endpoint.IsValid() {
			continue
		}
		if p := l.port(k.Port); p != nil {
			p.endpoint(k.Endpoint, now).in |= src.bit
		}
	}
	for _, svc := range l.services {
		for _, p := range svc.ports {
			maps.DeleteFunc(p.endpoints, func(_ endpointKey, e *endpoint) bool { return e.in == 0 })
		}
	}
}
