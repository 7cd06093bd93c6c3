// SPDX-License-Identifier: Apache-2.0

package correlate

import (
	"github.com/svcscope/svcscope/pkg/kubeproxy"
	"github.com/svcscope/svcscope/pkg/service"
)

// refresh makes the rows anew of which rules or endpoints changed, and looks at
// the others only to see that they did not. It returns false where other
// Services, or more than rows, may have changed: then all have to be joined.
func (b *Builder) refresh(in *Inputs, from shape) bool {
	if !b.keeps(from) || !from.names.SameServices(b.shape.names) || len(in.Rules) != len(b.views) {
		return false
	}
	for i := range in.Rules {
		if in.Rules[i].View != b.views[i].view {
			return false
		}
	}
	changed, ok := in.Names.catalog.EndpointsChanged(b.shape.names.catalog)
	if !ok {
		return false
	}
	r := &refresh{Builder: b, in: in, costs: make([]kubeproxy.Cost, len(b.rows)), dirty: make(map[int]bool)}
	backends := make(map[Family]int)
	for i := range in.Rules {
		v := in.Rules[i].View
		if v.Version != b.views[i].version {
			r.chains(v, b.hashes[i], backends[v.Family])
		}
		r.cost(v, b.hashes[i])
		backends[v.Family]++
		b.views[i].version = v.Version
	}
	for i := range r.costs {
		if o := &b.origins[i]; o.cost != r.costs[i] {
			o.cost, r.dirty[i] = r.costs[i], true
		}
	}
	for _, name := range changed {
		if svc := in.Names.catalog.Service(name); svc != nil {
			r.endpoints(svc)
		}
	}
	b.shape = from
	r.make()
	b.update(in)
	if len(r.dirty) > 0 {
		b.folded = fold(b.rows)
	}
	return true
}

// refresh is what has changed under the rows of a Builder.
type refresh struct {
	*Builder
	in    *Inputs
	costs []kubeproxy.Cost // of the rows
	dirty map[int]bool     // rows of which something changed
}

// chains finds the rows of one view's ports whose chains are others than before.
// hashes has the rows of those that had some.
func (r *refresh) chains(v *kubeproxy.View, hashes map[string]int, backend int) {
	set := func(row int, chains *kubeproxy.PortChains) {
		if o := &r.origins[row]; o.chains[backend] != chains {
			o.chains[backend], r.dirty[row] = chains, true
		}
	}
	found := 0
	for hash, chains := range v.Ports {
		row, ok := hashes[hash]
		if !ok {
			name, named := r.in.Names.port(chains)
			if row, ok = r.at[portKey{name, v.Family}]; !ok || !named {
				continue
			}
			hashes[hash] = row
		}
		found++
		set(row, chains)
	}
	if found == len(hashes) {
		return
	}
	for hash, row := range hashes {
		if v.Ports[hash] == nil {
			delete(hashes, hash)
			set(row, nil)
		}
	}
}

// cost adds what one view's ports cost to the rows of its hashes.
func (r *refresh) cost(v *kubeproxy.View, hashes map[string]int) {
	refused := make(map[string]int)
	for i := range v.Refusals {
		if name, ok := r.in.Names.refusal(&v.Refusals[i]); ok {
			if row, ok := r.at[portKey{name, v.Family}]; ok {
				refused[v.Refusals[i].Hash] = row
			}
		}
	}
	for hash, cost := range v.Costs {
		row, ok := refused[hash]
		if !ok {
			row, ok = hashes[hash]
		}
		if ok {
			r.costs[row] = r.costs[row].Add(cost)
		}
	}
}

// endpoints finds the rows of a Service whose endpoints are others than before.
func (r *refresh) endpoints(svc *service.Service) {
	for _, f := range families(svc) {
		for i := range svc.Ports {
			name := svc.PortName(&svc.Ports[i])
			row, ok := r.at[portKey{name, f}]
			if !ok {
				continue
			}
			was := r.origins[row]
			if r.origins[row].list(r.in.Names.catalog, name, f); r.origins[row] != was {
				r.dirty[row] = true
			}
		}
	}
}

// make makes the rows in which something changed, in a copy of all: the last
// snapshot has those there are.
func (r *refresh) make() {
	if len(r.dirty) == 0 {
		return
	}
	j := &join{in: r.in, costs: make(map[kubeproxy.Cost]map[string]int)}
	rows := append(make([]*ServicePort, 0, len(r.rows)), r.rows...)
	for i := range r.dirty {
		e := entry{key: portKey{rows[i].Port, rows[i].Family}, origin: r.origins[i]}
		j.make(&e)
		if t, ok := r.in.Ledger.Total(ledgerPort(e.key.name, e.key.family)); ok {
			e.row.setTotals(&t)
		}
		r.shape.uncounted.mark(e.row)
		if !e.row.same(rows[i]) {
			rows[i] = e.row
		}
	}
	r.rows = rows
}
