// SPDX-License-Identifier: Apache-2.0

package correlate

import (
	"cmp"
	"slices"

	"github.com/svcscope/svcscope/pkg/kubeproxy"
	"github.com/svcscope/svcscope/pkg/ledger"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/service"
)

// portKey names a Service port in one family.
type portKey struct {
	name   service.PortName
	family Family
}

// maxViews is how many views there may be of a family: of iptables in both backends, and of
// the nftables mode.
const maxViews = 3

// origin is what a row is made of but for its totals. Of a Service's endpoints
// and of chains it has what is replaced where they change.
type origin struct {
	service   *service.Service // nil: the API has none
	port      int              // its index
	endpoints *service.Endpoint
	count     int // of endpoints
	chains    [maxViews]*kubeproxy.PortChains
	cost      kubeproxy.Cost
}

// entry is one Service port in one family.
type entry struct {
	key    portKey
	origin origin
	row    *ServicePort
	index  int // in the order in which they were added
}

// join collects the Service ports of a snapshot.
type join struct {
	in      *Inputs
	entries []entry // the API's are nearly sorted
	at      map[portKey]int
	hashes  []map[string]int // of each of in.Rules: the entries of chains' hashes
	refused []map[string]int // and those of refusals'
	costs   map[kubeproxy.Cost]map[string]int
}

// sameNames reports whether two names give the same.
func sameNames(a, b *Names) bool {
	return a == b || a != nil && b != nil && a.catalog == b.catalog
}

// newJoin begins with the API's Services, or with none where it is not known.
func newJoin(in *Inputs) *join {
	c := in.Names.catalog
	if c == nil {
		return &join{in: in, at: make(map[portKey]int), costs: make(map[kubeproxy.Cost]map[string]int)}
	}
	j := &join{
		in: in, costs: make(map[kubeproxy.Cost]map[string]int),
		// Mostly a Service has one port in one family.
		at: make(map[portKey]int, len(c.Services)), entries: make([]entry, 0, len(c.Services)),
	}
	for _, svc := range c.Services {
		for _, f := range families(svc) {
			for i := range svc.Ports {
				name := svc.PortName(&svc.Ports[i])
				o := &j.entries[j.add(portKey{name, f})].origin
				o.service, o.port = svc, i
				o.list(c, name, f)
			}
		}
	}
	return j
}

// list notes the endpoints that the API has.
func (o *origin) list(c *service.Catalog, name service.PortName, f Family) {
	o.endpoints, o.count = nil, 0
	if all := c.EndpointsOf(name, f == netfilter.IPv6); len(all) > 0 {
		o.endpoints, o.count = &all[0], len(all)
	}
}

// fromAPI begins a row with what the API says.
func (j *join) fromAPI(p *ServicePort, o *origin) {
	c, svc, port, v6 := j.in.Names.catalog, o.service, &o.service.Ports[o.port], p.Family == netfilter.IPv6
	p.Type, p.ClusterIP, p.Number, p.NodePort = svc.Type, svc.ClusterIP(v6), port.Port, port.NodePort
	sel := kubeproxy.SelectEndpoints(c, svc, port, v6)
	if j.nodeless(c) && dependsOnNode(&sel, c.EndpointsOf(p.Port, v6)) {
		return // which endpoints are this node's is not known
	}
	p.APICount = len(sel.Reachable)
	p.Endpoints = make([]Endpoint, 0, p.APICount)
	for i := range sel.Reachable {
		p.Endpoints = append(p.Endpoints, Endpoint{Addr: sel.Reachable[i].Addr, InAPI: true})
	}
}

// nodeless reports whether the API knows nothing of this node.
func (j *join) nodeless(c *service.Catalog) bool { return j.in.Kube.NodeMissing || c.Node.Name == "" }

// dependsOnNode reports whether another node or zone may get other endpoints.
func dependsOnNode(sel *kubeproxy.Selection, all []service.Endpoint) bool {
	return sel.UsesLocal || slices.ContainsFunc(all, func(e service.Endpoint) bool {
		return len(e.ForNodes) > 0 || len(e.ForZones) > 0
	})
}

// add returns the index of a port's entry.
func (j *join) add(key portKey) int {
	i, ok := j.at[key]
	if !ok {
		i = len(j.entries)
		j.at[key] = i
		j.entries = append(j.entries, entry{key: key, index: i})
	}
	return i
}

// port returns the index of a port's entry; ok is false for a port that the API
// does not have.
func (j *join) port(name service.PortName, f Family) (i int, ok bool) {
	key := portKey{name, f}
	if i, ok = j.at[key]; ok || j.in.Names.catalog != nil {
		return i, ok
	}
	return j.add(key), true
}

// kernel finds what the rules hold for each port.
func (j *join) kernel() {
	backends := make(map[Family]int)
	for i := range j.in.Rules {
		v := j.in.Rules[i].View
		hashes := make(map[string]int, len(v.Ports))
		for hash, chains := range v.Ports {
			name, ok := j.in.Names.port(chains)
			if !ok {
				continue
			}
			if p, ok := j.port(name, v.Family); ok {
				hashes[hash] = p
				j.entries[p].origin.chains[backends[v.Family]] = chains
			}
		}
		refused := make(map[string]int)
		for i := range v.Refusals {
			if name, ok := j.in.Names.refusal(&v.Refusals[i]); ok {
				if p, ok := j.port(name, v.Family); ok {
					refused[v.Refusals[i].Hash] = p
				}
			}
		}
		backends[v.Family]++
		j.hashes, j.refused = append(j.hashes, hashes), append(j.refused, refused)
		for hash, cost := range v.Costs {
			if p, ok := j.entryOf(len(j.hashes)-1, hash); ok {
				c := &j.entries[p].origin.cost
				*c = c.Add(cost)
			}
		}
	}
}

// entryOf returns the entry of a hash in one of in.Rules.
func (j *join) entryOf(rules int, hash string) (int, bool) {
	i, ok := j.refused[rules][hash]
	if !ok {
		i, ok = j.hashes[rules][hash]
	}
	return i, ok
}

// make makes the row of an entry, without totals.
func (j *join) make(e *entry) {
	p := &ServicePort{Port: e.key.name, Family: e.key.family, APICount: -1, SinceRule: j.in.SinceRule}
	if e.origin.service != nil {
		j.fromAPI(p, &e.origin)
	}
	for _, chains := range e.origin.chains {
		if chains != nil {
			j.endpoints(p, chains)
		}
	}
	slices.SortFunc(p.Endpoints, compareEndpoints)
	p.Rules = j.rules(e.origin.cost)
	e.row = p
}

// addresses gives ports the addresses that the rules show, where no API does.
func (j *join) addresses(rules int) {
	v := j.in.Rules[rules].View
	set := func(hash string, f kubeproxy.Frontend) {
		i, ok := j.entryOf(rules, hash)
		if !ok {
			return
		}
		p := j.entries[i].row
		switch {
		case f.Kind == kubeproxy.ClusterIP || f.Kind == kubeproxy.UnknownFrontend && !p.ClusterIP.IsValid():
			p.ClusterIP, p.Number = f.Addr, f.Port
		case f.Kind == kubeproxy.NodePort:
			p.NodePort = f.Port
		}
	}
	for i := range v.Dispatch {
		set(v.Dispatch[i].Hash, v.Dispatch[i].Frontend)
	}
	for i := range v.Refusals {
		set(v.Refusals[i].Hash, v.Refusals[i].Frontend)
	}
}

// rules is a cost as rows have it. Ports of one cost share it.
func (j *join) rules(cost kubeproxy.Cost) map[string]int {
	m, ok := j.costs[cost]
	if !ok {
		for table, n := range map[string]int{"nat": cost.NAT, "filter": cost.Filter, kubeproxy.NativeTable: cost.Native} {
			if n == 0 {
				continue
			}
			if m == nil {
				m = make(map[string]int, 2)
			}
			m[table] = n
		}
		j.costs[cost] = m
	}
	return m
}

// endpoints marks those that the chains send to. Both backends may hold one.
func (j *join) endpoints(p *ServicePort, chains *kubeproxy.PortChains) {
	if p.Endpoints == nil && len(chains.Endpoints) > 0 {
		p.Endpoints = make([]Endpoint, 0, len(chains.Endpoints))
	}
	for i := range chains.Endpoints {
		addr := chains.Endpoints[i].Addr
		if !addr.IsValid() {
			p.KernelCount++
			continue
		}
		e := slices.IndexFunc(p.Endpoints, func(e Endpoint) bool { return e.Addr == addr })
		if e < 0 {
			e = len(p.Endpoints)
			p.Endpoints = append(p.Endpoints, Endpoint{Addr: addr})
		}
		if !p.Endpoints[e].InKernel {
			p.Endpoints[e].InKernel = true
			p.KernelCount++
		}
	}
}

// finish makes the rows that keep does not give, with their totals, and sorts
// all of them.
func (j *join) finish(from shape, keep func(*entry) *ServicePort) {
	var made []*ServicePort
	for i := range j.entries {
		e := &j.entries[i]
		if e.row = keep(e); e.row == nil {
			j.make(e)
			made = append(made, e.row)
			if t, ok := j.in.Ledger.Total(ledgerPort(e.key.name, e.key.family)); ok {
				e.row.setTotals(&t)
			}
		}
	}
	if j.in.Names.catalog == nil {
		for i := range j.in.Rules {
			j.addresses(i)
		}
	}
	all := !from.counting && j.few()
	for _, p := range made {
		p.Exposed = p.Exposed || all
		from.uncounted.mark(p)
	}
	slices.SortFunc(j.entries, func(a, b entry) int {
		return cmp.Or(a.key.name.Compare(b.key.name), cmp.Compare(a.key.family, b.key.family))
	})
}

// strays adds the ports that the ledger alone knows, where no API says which
// ones there are, and reports whether there are any.
func (j *join) strays() bool {
	if j.in.Names.catalog != nil {
		return false
	}
	known := len(j.entries)
	for t := range j.in.Ledger.Ports() {
		j.add(keyOf(&t.Port))
	}
	return len(j.entries) > known
}

// keyOf names a port of the ledger as a row.
func keyOf(p *ledger.Port) portKey {
	return portKey{
		name: service.PortName{
			Name: service.Name{Namespace: p.Service.Namespace, Name: p.Service.Name},
			Port: p.Name, Protocol: service.Protocol(p.Protocol),
		},
		family: Family(p.Family),
	}
}

// compareEndpoints puts those in the kernel's rules first.
func compareEndpoints(a, b Endpoint) int {
	if a.InKernel != b.InKernel {
		if a.InKernel {
			return -1
		}
		return 1
	}
	return a.Addr.Compare(b.Addr)
}
