// SPDX-License-Identifier: Apache-2.0

package service

import (
	"maps"
	"slices"
)

// Change is what a catalog has that its predecessor has not.
type Change struct {
	// Version is the new catalog's.
	Version uint64
	// Services holds those that are new or different; nil under a name means
	// that the Service is gone.
	Services map[Name]*Service
	// Endpoints holds all ports of the Services whose endpoints are
	// different; no ports means no endpoints.
	Endpoints map[Name][]PortEndpoints
	Node      Node
}

// PortEndpoints is one port of a Service with the endpoints of both families,
// sorted by address, IPv4 first.
type PortEndpoints struct {
	Port      string // the port's name
	Protocol  Protocol
	Endpoints []Endpoint
}

// Next returns the catalog after c. It is Synced, and shares with c and with
// ch whatever did not change: the cost is that of what changed, of one copy of
// Services if one of them did, and of some KiB.
func (c *Catalog) Next(ch *Change) *Catalog {
	next := &Catalog{
		Synced: true, Version: ch.Version, Node: ch.Node,
		Services: c.Services, Endpoints: c.Endpoints, parts: c.nextParts(ch.Endpoints),
	}
	if len(ch.Services) == 0 {
		next.index = c.sharedIndex()
		return next
	}
	names := slices.SortedFunc(maps.Keys(ch.Services), Name.Compare)
	next.Services = merge(c.Services, names, func(n Name) *Service { return ch.Services[n] })
	return next
}

// named is what merge works on.
type named interface {
	comparable
	key() Name
}

func (s *Service) key() Name { return s.Name }

func search[T named](sorted []T, n Name) (int, bool) {
	return slices.BinarySearchFunc(sorted, n, func(v T, n Name) int { return v.key().Compare(n) })
}

// merge returns old with other values under some names, all sorted by name.
// A zero value takes the name out.
func merge[T named](old []T, names []Name, value func(Name) T) []T {
	var none T
	out := make([]T, 0, len(old)+len(names))
	for _, n := range names {
		i, known := search(old, n)
		out = append(out, old[:i]...)
		if v := value(n); v != none {
			out = append(out, v)
		}
		if known {
			i++
		}
		old = old[i:]
	}
	out = append(out, old...)
	if cap(out) > len(out)+len(out)/8 {
		return slices.Clone(out) // one more copy is less than what stays allocated
	}
	return out
}

// parts holds endpoints by Service, spread by the Service's name, so that a
// new catalog copies one part of many. A part is sorted by name.
type parts [64][]*serviceEndpoints

type serviceEndpoints struct {
	name  Name
	ports []PortEndpoints
}

// partOf is the name's part: FNV-1a, folded.
func partOf(n Name) uint8 {
	h := uint32(2166136261)
	for _, s := range [...]string{n.Namespace, n.Name} {
		for i := range len(s) {
			h = (h ^ uint32(s[i])) * 16777619
		}
	}
	return uint8((h ^ h>>8 ^ h>>16 ^ h>>24) % uint32(len(parts{})))
}

func (e *serviceEndpoints) key() Name { return e.name }

// endpoints reports false where p knows nothing of the Service.
func (p *parts) endpoints(port PortName) ([]Endpoint, bool) {
	if p == nil {
		return nil, false
	}
	part := p[partOf(port.Name)]
	i, ok := search(part, port.Name)
	if !ok {
		return nil, false
	}
	for _, e := range part[i].ports {
		if e.Port == port.Port && e.Protocol == port.Protocol {
			return e.Endpoints, true
		}
	}
	return nil, true
}

// EndpointsChanged lists the Services whose endpoints may be others in c than in
// old. It returns false where the two do not share enough to tell.
func (c *Catalog) EndpointsChanged(old *Catalog) ([]Name, bool) {
	if c.parts == old.parts && len(c.Endpoints) == 0 && len(old.Endpoints) == 0 {
		return nil, true
	}
	if len(c.Endpoints) > 0 || len(old.Endpoints) > 0 || c.parts == nil || old.parts == nil {
		return nil, false
	}
	var changed []Name
	for i := range c.parts {
		now, was := c.parts[i], old.parts[i]
		if len(now) == len(was) && (len(now) == 0 || &now[0] == &was[0]) {
			continue
		}
		for len(now) > 0 || len(was) > 0 {
			switch {
			case len(was) == 0 || len(now) > 0 && now[0].name.Compare(was[0].name) < 0:
				changed, now = append(changed, now[0].name), now[1:]
			case len(now) == 0 || now[0].name.Compare(was[0].name) > 0:
				changed, was = append(changed, was[0].name), was[1:]
			default:
				if now[0] != was[0] {
					changed = append(changed, now[0].name)
				}
				now, was = now[1:], was[1:]
			}
		}
	}
	return changed, true
}

func (c *Catalog) nextParts(changed map[Name][]PortEndpoints) *parts {
	if len(changed) == 0 {
		return c.parts
	}
	next := &parts{}
	if c.parts != nil {
		*next = *c.parts
	}
	value := func(n Name) *serviceEndpoints {
		// An entry without ports is needed where Endpoints may have some.
		if len(changed[n]) == 0 && c.Endpoints == nil {
			return nil
		}
		return &serviceEndpoints{n, changed[n]}
	}
	names := map[uint8][]Name{}
	for n := range changed {
		i := partOf(n)
		names[i] = append(names[i], n)
	}
	for i, of := range names {
		slices.SortFunc(of, Name.Compare)
		next[i] = merge(next[i], of, value)
	}
	return next
}
