// SPDX-License-Identifier: Apache-2.0

package drift

import (
	"slices"

	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/service"
)

// intent is what the API wants, as of the last call.
type intent struct {
	catalog     *service.Catalog // nil where it is not known
	nodeMissing bool
}

// news is what has changed in an intent.
type news struct {
	intent *intent
	// first: nothing was known before, or nothing is known any more. all: what is
	// wanted of every port may be another thing, as after a change of the Node.
	first, all bool
	// services are those that came, went, or are others now; endpoints the names of
	// those whose endpoints may be others.
	services  []changedService
	endpoints []service.Name
	changed   []PortFamily
}

// changedService is a Service before and after; nil is none.
type changedService struct{ old, now *service.Service }

func (n *news) any() bool {
	return n.first || n.all || len(n.services) > 0 || len(n.endpoints) > 0
}

// next takes what the API wants now, and tells what has changed.
func (i *intent) next(in *Input) news {
	catalog := in.Catalog
	if catalog != nil && !catalog.Synced {
		catalog = nil
	}
	n := news{intent: i}
	old, wasMissing := i.catalog, i.nodeMissing
	i.catalog, i.nodeMissing = catalog, in.NodeMissing
	switch {
	case old == catalog && wasMissing == in.NodeMissing:
		return n
	case old == nil || catalog == nil:
		n.first = true
		return n
	}
	n.all = wasMissing != in.NodeMissing || old.Node.Name != catalog.Node.Name || old.Node.Zone != catalog.Node.Zone
	if !old.SameServices(catalog) {
		n.services = changedServices(old.Services, catalog.Services)
	}
	var known bool
	if n.endpoints, known = catalog.EndpointsChanged(old); !known {
		n.endpoints = names(catalog.Services)
	}
	n.compare(old, catalog)
	return n
}

// changedServices walks along two lists that are sorted by name.
func changedServices(old, now []*service.Service) []changedService {
	var out []changedService
	for len(old) > 0 || len(now) > 0 {
		switch {
		case len(old) == 0 || len(now) > 0 && now[0].Name.Compare(old[0].Name) < 0:
			out, now = append(out, changedService{nil, now[0]}), now[1:]
		case len(now) == 0 || old[0].Name.Compare(now[0].Name) < 0:
			out, old = append(out, changedService{old[0], nil}), old[1:]
		default:
			if old[0] != now[0] {
				out = append(out, changedService{old[0], now[0]})
			}
			old, now = old[1:], now[1:]
		}
	}
	return out
}

func names(all []*service.Service) []service.Name {
	out := make([]service.Name, len(all))
	for i, s := range all {
		out[i] = s.Name
	}
	return out
}

// compare lists the ports of which something else is wanted.
func (n *news) compare(old, now *service.Catalog) {
	for _, c := range n.services {
		n.list(c.old)
		n.list(c.now)
	}
	if n.all {
		for _, svc := range now.Services {
			n.list(svc)
		}
	} else {
		for _, name := range n.endpoints {
			if svc := now.Service(name); svc != nil {
				n.compareEndpoints(svc, old, now)
			}
		}
	}
	slices.SortFunc(n.changed, func(a, b PortFamily) int {
		if c := a.Port.Compare(b.Port); c != 0 {
			return c
		}
		return int(a.Family) - int(b.Family)
	})
	n.changed = slices.Compact(n.changed)
}

// list notes all ports of a Service, which may be nil.
func (n *news) list(svc *service.Service) {
	eachPort(svc, func(p PortFamily) { n.changed = append(n.changed, p) })
}

// compareEndpoints notes the ports of a Service whose endpoints are others. Those of one
// family stay what they are when the other's change, but not where they are.
func (n *news) compareEndpoints(svc *service.Service, old, now *service.Catalog) {
	eachPort(svc, func(p PortFamily) {
		v6 := p.Family == netfilter.IPv6
		if !slices.EqualFunc(old.EndpointsOf(p.Port, v6), now.EndpointsOf(p.Port, v6), sameEndpoint) {
			n.changed = append(n.changed, p)
		}
	})
}

func sameEndpoint(a, b service.Endpoint) bool {
	return a.Addr == b.Addr && a.Ready == b.Ready && a.Serving == b.Serving && a.Terminating == b.Terminating &&
		a.NodeName == b.NodeName && a.Zone == b.Zone && a.Undecided == b.Undecided &&
		slices.Equal(a.ForNodes, b.ForNodes) && slices.Equal(a.ForZones, b.ForZones)
}

// eachPort calls f for each port and family in which kube-proxy serves a Service.
func eachPort(svc *service.Service, f func(PortFamily)) {
	for _, family := range [...]netfilter.Family{netfilter.IPv4, netfilter.IPv6} {
		if !served(svc, family == netfilter.IPv6) {
			continue
		}
		for i := range svc.Ports {
			f(PortFamily{svc.PortName(&svc.Ports[i]), family})
		}
	}
}
