// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"reflect"
	"slices"

	"github.com/svcscope/svcscope/pkg/service"
)

// kind is one of the resources that are followed.
type kind int

const (
	servicesKind kind = iota
	slicesKind
	nodeKind
	catalogKinds // those before it make the catalog
)

// Kinds that are followed where they are asked for.
const (
	podsKind = catalogKinds + iota
	policiesKind
	kinds
)

func (k kind) String() string {
	return [kinds]string{"services", "endpointslices", "node", "pods", "networkpolicies"}[k]
}

// tables holds the newest converted objects and remembers which of them are
// not in the last catalog yet. It is not safe for concurrent use.
type tables struct {
	nodeName string
	services map[service.Name]*entry
	slices   map[service.Name]*slice // by the slice's own name
	node     service.Node
	nodeless bool        // the API has no Node of that name
	refused  bool        // the API does not let it be read
	listed   [kinds]bool // a complete list has arrived

	pending     map[service.Name]parts
	nodeChanged bool
	news        news

	others
}

// entry is what there is under a Service's name.
type entry struct {
	service *service.Service // nil where there are only slices
	slices  []*slice         // sorted by name
}

// parts says what of an entry is not in the last catalog.
type parts uint8

const (
	servicePart parts = 1 << iota
	endpointsPart
)

func newTables(nodeName string) *tables {
	return &tables{
		nodeName: nodeName,
		services: map[service.Name]*entry{},
		slices:   map[service.Name]*slice{},
		node:     service.Node{Name: nodeName},
		pending:  map[service.Name]parts{},
		others:   others{pods: map[service.Name]*service.Pod{}, policies: map[service.Name]struct{}{}},
	}
}

// complete reports whether all kinds of the catalog have been listed.
func (t *tables) complete() bool { return !slices.Contains(t.listed[:catalogKinds], false) }

func (t *tables) changed() bool { return t.nodeChanged || len(t.pending) > 0 }

// entry returns what there is under n, which may be nothing yet.
func (t *tables) entry(n service.Name) *entry {
	e := t.services[n]
	if e == nil {
		e = &entry{}
		t.services[n] = e
	}
	return e
}

func (t *tables) setService(s *service.Service) {
	e := t.entry(s.Name)
	old := e.service
	if old != nil && reflect.DeepEqual(old, s) {
		return // status, annotations and the like
	}
	e.service = s
	t.pending[s.Name] |= servicePart
	t.announce(s.Name, served(old) || served(s))
}

func (t *tables) deleteService(n service.Name) {
	e := t.services[n]
	if e == nil || e.service == nil {
		return
	}
	t.announce(n, served(e.service))
	e.service = nil
	t.pending[n] |= servicePart
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
	e := t.entry(s.service)
	if e.service != nil {
		s.service = e.service.Name // one string of two
	}
	i, ok := e.find(s.name)
	if ok {
		e.slices[i] = s
	} else {
		e.slices = exact(slices.Insert(e.slices, i, s))
	}
	t.endpointsChanged(s.service, e)
}

func (t *tables) deleteSlice(n service.Name) {
	s, ok := t.slices[n]
	if !ok {
		return
	}
	delete(t.slices, n)
	e := t.services[s.service]
	if i, ok := e.find(n); ok {
		e.slices = exact(slices.Delete(e.slices, i, i+1))
	}
	t.endpointsChanged(s.service, e)
}

func (t *tables) endpointsChanged(n service.Name, e *entry) {
	t.pending[n] |= endpointsPart
	t.announce(n, e.service == nil || served(e.service))
}

// announce notes a change under the name n; rules says whether kube-proxy has
// something to write for it. The first list is one piece of news.
func (t *tables) announce(n service.Name, rules bool) {
	t.news.version++
	if rules && t.complete() {
		t.news.add(n)
	}
}

// hasListed notes that a complete list of k has arrived.
func (t *tables) hasListed(k kind) {
	before := t.complete()
	t.listed[k] = true
	if !before && t.complete() {
		t.news.all()
	}
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
	t.nodeless, t.refused = n == nil && t.nodeName != "", false
	if n == nil {
		n = &service.Node{Name: t.nodeName}
	}
	if !reflect.DeepEqual(t.node, *n) {
		t.node = *n
		t.nodeChanged = true
		t.news.version++
	}
}

func (e *entry) find(n service.Name) (int, bool) {
	return slices.BinarySearchFunc(e.slices, n, func(s *slice, n service.Name) int {
		return s.name.Compare(n)
	})
}

// catalog returns the next catalog after prev, which shares with prev and with
// the tables whatever did not change.
func (t *tables) catalog(prev *service.Catalog) *service.Catalog {
	ch := &service.Change{
		Version: t.news.version, Node: t.node,
		Services:  make(map[service.Name]*service.Service, len(t.pending)),
		Endpoints: make(map[service.Name][]service.PortEndpoints, len(t.pending)),
	}
	for n, what := range t.pending {
		e := t.services[n]
		if what&servicePart != 0 {
			ch.Services[n] = e.service
		}
		if what&endpointsPart != 0 {
			ch.Endpoints[n] = e.endpoints()
		}
		if e.service == nil && len(e.slices) == 0 {
			delete(t.services, n)
		}
	}
	t.nodeChanged = false
	// A map keeps the size of its largest day, the first list.
	t.pending = map[service.Name]parts{}
	return prev.Next(ch)
}

// endpoints joins the slices of one Service; mostly there is one, which is
// shared.
func (e *entry) endpoints() []service.PortEndpoints {
	switch len(e.slices) {
	case 0:
		return nil
	case 1:
		return e.slices[0].ports
	}
	var ports []service.PortEndpoints
	joined := map[int]bool{} // those are not shared any more
	for _, s := range e.slices {
		for _, p := range s.ports {
			i := findPort(ports, p)
			if i < 0 {
				ports = append(ports, p)
				continue
			}
			ports[i].Endpoints = slices.Concat(ports[i].Endpoints, p.Endpoints)
			joined[i] = true
		}
	}
	for i := range joined {
		doubt(ports[i].Endpoints)
		ports[i].Endpoints = collapse(ports[i].Endpoints)
	}
	return exact(ports)
}

// doubt finds addresses of which slices say different things. kube-proxy walks along a map
// of its slices (endpointInfoByServicePort in pkg/proxy/endpointslicecache.go): only that an endpoint
// which does not terminate goes before one that does is sure.
func doubt(eps []service.Endpoint) {
	sortByAddr(eps)
	for i := range eps {
		for j := i + 1; j < len(eps) && eps[j].Addr == eps[i].Addr; j++ {
			if a, b := &eps[i], &eps[j]; a.Terminating == b.Terminating && !sameToProxy(a, b) {
				a.Undecided, b.Undecided = true, true
			}
		}
	}
}

// sameToProxy reports whether kube-proxy chooses two endpoints alike.
func sameToProxy(a, b *service.Endpoint) bool {
	return a.Ready == b.Ready && a.Serving == b.Serving && a.NodeName == b.NodeName &&
		slices.Equal(a.ForNodes, b.ForNodes) && slices.Equal(a.ForZones, b.ForZones)
}
