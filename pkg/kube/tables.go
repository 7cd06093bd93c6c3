// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"maps"
	"reflect"
	"slices"

	"github.com/svcscope/svcscope/pkg/service"
)

// kind is one of the three resources that are followed.
type kind int

const (
	servicesKind kind = iota
	slicesKind
	nodeKind
	kinds
)

func (k kind) String() string { return [...]string{"services", "endpointslices", "node"}[k] }

// tables holds the newest converted objects and remembers which of them are
// not in the last catalog yet. It is not safe for concurrent use.
type tables struct {
	nodeName string
	services map[service.Name]*service.Service
	slices   map[service.Name]*slice // by the slice's own name
	groups   map[service.Name]*group // by the Service's name
	node     service.Node
	nodeless bool        // the API has no Node of that name
	listed   [kinds]bool // a complete list has arrived

	servicesChanged bool
	nodeChanged     bool
	groupsChanged   map[service.Name]struct{}
}

// group is the slices of one Service, sorted by name, and what the last
// catalog holds of them.
type group struct {
	slices    []*slice
	published []service.PortName
}

func newTables(nodeName string) *tables {
	return &tables{
		nodeName:      nodeName,
		services:      map[service.Name]*service.Service{},
		slices:        map[service.Name]*slice{},
		groups:        map[service.Name]*group{},
		node:          service.Node{Name: nodeName},
		groupsChanged: map[service.Name]struct{}{},
	}
}

// complete reports whether all kinds have been listed.
func (t *tables) complete() bool { return t.listed == [kinds]bool{true, true, true} }

func (t *tables) changed() bool {
	return t.servicesChanged || t.nodeChanged || len(t.groupsChanged) > 0
}

func (t *tables) setService(s *service.Service) {
	if reflect.DeepEqual(t.services[s.Name], s) {
		return // status, annotations and the like
	}
	t.services[s.Name] = s
	t.servicesChanged = true
}

func (t *tables) deleteService(n service.Name) {
	if _, ok := t.services[n]; ok {
		delete(t.services, n)
		t.servicesChanged = true
	}
}

func (t *tables) replaceServices(list []*service.Service) {
	keep := make(map[service.Name]struct{}, len(list))
	for _, s := range list {
		keep[s.Name] = struct{}{}
		t.setService(s)
	}
	for n := range t.services {
		if _, ok := keep[n]; !ok {
			t.deleteService(n)
		}
	}
}

func (t *tables) setSlice(s *slice) {
	old := t.slices[s.name]
	if old != nil && reflect.DeepEqual(old, s) {
		return
	}
	if old != nil && old.service != s.service {
		t.deleteSlice(s.name) // its label changed
	}
	t.slices[s.name] = s
	g := t.groups[s.service]
	if g == nil {
		g = &group{}
		t.groups[s.service] = g
	}
	i, ok := g.find(s.name)
	if ok {
		g.slices[i] = s
	} else {
		g.slices = slices.Insert(g.slices, i, s)
	}
	t.groupsChanged[s.service] = struct{}{}
}

func (t *tables) deleteSlice(n service.Name) {
	s, ok := t.slices[n]
	if !ok {
		return
	}
	delete(t.slices, n)
	g := t.groups[s.service]
	if i, ok := g.find(n); ok {
		g.slices = slices.Delete(g.slices, i, i+1)
	}
	t.groupsChanged[s.service] = struct{}{}
}

func (t *tables) replaceSlices(list []*slice) {
	keep := make(map[service.Name]struct{}, len(list))
	for _, s := range list {
		keep[s.name] = struct{}{}
		t.setSlice(s)
	}
	for n := range t.slices {
		if _, ok := keep[n]; !ok {
			t.deleteSlice(n)
		}
	}
}

// setNode takes nil where the API has no such Node.
func (t *tables) setNode(n *service.Node) {
	t.nodeless = n == nil && t.nodeName != ""
	if n == nil {
		n = &service.Node{Name: t.nodeName}
	}
	if !reflect.DeepEqual(t.node, *n) {
		t.node = *n
		t.nodeChanged = true
	}
}

func (g *group) find(n service.Name) (int, bool) {
	return slices.BinarySearchFunc(g.slices, n, func(s *slice, n service.Name) int {
		return s.name.Compare(n)
	})
}

// catalog returns the next catalog after prev, which shares with prev and with
// the tables whatever did not change.
func (t *tables) catalog(prev *service.Catalog) *service.Catalog {
	c := &service.Catalog{Synced: true, Services: prev.Services, Endpoints: prev.Endpoints, Node: t.node}
	if t.servicesChanged {
		c.Services = slices.SortedFunc(maps.Values(t.services), func(a, b *service.Service) int {
			return a.Name.Compare(b.Name)
		})
	}
	if len(t.groupsChanged) > 0 || c.Endpoints == nil {
		c.Endpoints = maps.Clone(prev.Endpoints)
		if c.Endpoints == nil {
			c.Endpoints = make(map[service.PortName][]service.Endpoint, len(t.groupsChanged))
		}
		for n := range t.groupsChanged {
			t.publish(c.Endpoints, n)
		}
	}
	t.servicesChanged, t.nodeChanged = false, false
	// A map keeps the size of its largest day, the first list.
	t.groupsChanged = map[service.Name]struct{}{}
	return c
}

// publish brings the endpoints of one Service up to date in m.
func (t *tables) publish(m map[service.PortName][]service.Endpoint, n service.Name) {
	g := t.groups[n]
	for _, p := range g.published {
		delete(m, p)
	}
	g.published = g.published[:0]
	for i, s := range g.slices {
		for _, p := range s.ports {
			if slices.Contains(g.published, p.port) {
				continue
			}
			g.published = append(g.published, p.port)
			m[p.port] = mergePort(p, g.slices[i+1:])
		}
	}
	g.published = slices.Clip(g.published)
	if len(g.slices) == 0 {
		delete(t.groups, n)
	}
}

// mergePort joins first with the endpoints of the same port in other slices;
// mostly there are none, and first's own are shared.
func mergePort(first portEndpoints, others []*slice) []service.Endpoint {
	out, own := first.endpoints, false
	for _, s := range others {
		for _, p := range s.ports {
			if p.port == first.port {
				out, own = slices.Concat(out, p.endpoints), true
			}
		}
	}
	if own {
		out = collapse(out)
	}
	return out
}
