// SPDX-License-Identifier: Apache-2.0

package nodediff

import (
	"errors"
	"slices"

	"github.com/svcscope/svcscope/pkg/capture"
	"github.com/svcscope/svcscope/pkg/kubeproxy"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/service"
)

// ErrNoService says that neither node knows the Service that was selected.
var ErrNoService = errors.New("on neither node")

// Compare returns what differs between two nodes. It returns ErrNoService where none of
// them knows a selected Service.
func Compare(a, b *capture.Node, sel Selection) (*Report, error) {
	c := &comparison{a: newSide(a), b: newSide(b)}
	c.findPorts()
	r := &Report{A: c.a.head(), B: c.b.head(), Node: []Difference{}, Services: []ServiceDiff{}, NotCompared: c.gaps()}
	r.Node = append(r.Node, c.node()...)
	ports := c.selected(sel)
	if sel.Name != "" && len(ports) == 0 {
		return nil, ErrNoService
	}
	for _, p := range ports {
		for _, f := range ipFamilies() {
			if all := c.port(p, f); len(all) > 0 {
				r.Services = append(r.Services, ServiceDiff{
					Namespace: p.Namespace, Name: p.Name.Name, PortName: p.Port, Protocol: string(p.Protocol), IPFamily: f.String(),
					Differences: all,
				})
			}
		}
	}
	r.Same = len(r.NotCompared) == 0 && !r.Differ()
	return r, nil
}

// comparison is of two nodes.
type comparison struct {
	a, b *side
	// ports are those that the API or the rules of one of the nodes have, each with the
	// numbers that it has there. known are their hashes in chains' names.
	ports map[service.PortName][]uint16
	known map[string]bool
}

// findPorts looks for ports in the API, and in all rules that name one.
func (c *comparison) findPorts() {
	c.ports, c.known = make(map[service.PortName][]uint16), make(map[string]bool)
	add := func(p service.PortName, number uint16) {
		c.ports[p] = append(c.ports[p], number)
		c.known[kubeproxy.Hash(p)] = true
	}
	for _, s := range []*side{c.a, c.b} {
		if s.node.Catalog != nil {
			for _, svc := range s.node.Catalog.Services {
				for i := range svc.Ports {
					add(svc.PortName(&svc.Ports[i]), svc.Ports[i].Port)
				}
			}
		}
		for _, f := range s.at {
			f.eachPort(add)
		}
	}
}

// eachPort calls add for all that names a port, with the number of a Service's address,
// or 0.
func (f *familyRules) eachPort(add func(service.PortName, uint16)) {
	number := func(at *kubeproxy.Frontend) uint16 {
		if at.Kind == kubeproxy.NodePort {
			return 0
		}
		return at.Port
	}
	for _, p := range f.View.Ports {
		if p.Named {
			add(p.Name, 0)
		}
	}
	for i := range f.View.Dispatch {
		if d := &f.View.Dispatch[i]; d.Named {
			add(d.Name, number(&d.Frontend))
		}
	}
	for i := range f.View.Refusals {
		if r := &f.View.Refusals[i]; r.Named && r.Name.Protocol != "" {
			add(r.Name, number(&r.Frontend))
		}
	}
}

// selected are the ports that are asked for, in order.
func (c *comparison) selected(sel Selection) []service.PortName {
	var all []service.PortName
	for p, numbers := range c.ports {
		if sel.has(p, numbers) {
			all = append(all, p)
		}
	}
	slices.SortFunc(all, service.PortName.Compare)
	return all
}

// port compares one port in one family.
func (c *comparison) port(p service.PortName, f netfilter.Family) []Difference {
	a, b := c.a.port(p, f), c.b.port(p, f)
	label(&a, &b)
	out := c.api(&a, &b)
	why := ByPolicy
	if len(out) > 0 {
		why = ByAPI
	}
	if c.a.at[f] != nil && c.b.at[f] != nil {
		for _, d := range c.kernel(&a, &b) {
			if d.expected {
				d.Explained = why
			}
			out = append(out, d.Difference)
		}
	}
	for _, d := range lines(Drift, "this port", c.a.drifts(p, f), c.b.drifts(p, f)) {
		// Of Services on a node of which all is wrong at once nothing is said.
		if d.A != "" && !c.b.silent(f) || d.B != "" && !c.a.silent(f) {
			out = append(out, d)
		}
	}
	return out
}

// aspect is a Difference of rules; expected tells that each node has what the API gives
// to it.
type aspect struct {
	Difference
	expected bool
}

// compareAspects compares what two nodes have under each name, and looks whether it is
// what they should have.
func compareAspects(what What, a, b, wantA, wantB map[string]string) []aspect {
	var out []aspect
	for _, object := range keys(a, b) {
		for _, d := range value(what, object, a[object], b[object]) {
			known := wantA != nil && wantB != nil
			out = append(out, aspect{d, known && a[object] == wantA[object] && b[object] == wantB[object]})
		}
	}
	return out
}
