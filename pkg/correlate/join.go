// SPDX-License-Identifier: Apache-2.0

package correlate

import (
	"cmp"
	"maps"
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

// join collects the Service ports of a snapshot.
type join struct {
	in    *Inputs
	ports map[portKey]*ServicePort
	rows  []*ServicePort // the same; the API's are nearly sorted
}

// sameNames reports whether two names give the same.
func sameNames(a, b *Names) bool {
	return a == b || a != nil && b != nil && a.catalog == b.catalog && maps.Equal(a.endpoints, b.endpoints)
}

// newJoin begins with the API's Services, or with none where it is not known.
func newJoin(in *Inputs) *join {
	j := &join{in: in, ports: make(map[portKey]*ServicePort)}
	c := in.Names.catalog
	if c == nil {
		return j
	}
	for _, svc := range c.Services {
		for _, f := range families(svc) {
			for i := range svc.Ports {
				j.fromAPI(c, svc, &svc.Ports[i], f)
			}
		}
	}
	return j
}

func (j *join) fromAPI(c *service.Catalog, svc *service.Service, port *service.Port, f Family) {
	v6 := f == netfilter.IPv6
	p := j.add(portKey{svc.PortName(port), f})
	p.Type, p.ClusterIP, p.Number, p.NodePort = svc.Type, svc.ClusterIP(v6), port.Port, port.NodePort
	sel := kubeproxy.SelectEndpoints(c, svc, port, v6)
	if j.nodeless(c) && dependsOnNode(&sel, c.EndpointsOf(svc.PortName(port), v6)) {
		return // which endpoints are this node's is not known
	}
	expected := sel.Reachable
	p.APICount = len(expected)
	for i := range expected {
		p.Endpoints = append(p.Endpoints, Endpoint{Addr: expected[i].Addr, InAPI: true})
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

func (j *join) add(key portKey) *ServicePort {
	p := j.ports[key]
	if p == nil {
		p = &ServicePort{Port: key.name, Family: key.family, APICount: -1, SinceRule: j.in.SinceRule}
		j.ports[key] = p
		j.rows = append(j.rows, p)
	}
	return p
}

// port returns the port of that name; nil for one that the API does not have.
func (j *join) port(name service.PortName, f Family) *ServicePort {
	key := portKey{name, f}
	if p := j.ports[key]; p != nil || j.in.Names.catalog != nil {
		return p
	}
	return j.add(key)
}

// kernel adds what the rules hold for each port.
func (j *join) kernel() {
	for i := range j.in.Rules {
		v := j.in.Rules[i].View
		hashes := make(map[string]*ServicePort, len(v.Ports))
		for hash, chains := range v.Ports {
			name, ok := j.in.Names.port(chains)
			if !ok {
				continue
			}
			if p := j.port(name, v.Family); p != nil {
				hashes[hash] = p
				j.endpoints(p, chains)
			}
		}
		for i := range v.Refusals {
			if name, ok := j.in.Names.refusal(&v.Refusals[i]); ok {
				if p := j.port(name, v.Family); p != nil {
					hashes[v.Refusals[i].Hash] = p
				}
			}
		}
		if j.in.Names.catalog == nil {
			addresses(v, hashes)
		}
		for hash, cost := range v.RulesByPort() {
			p := hashes[hash]
			if p == nil {
				continue
			}
			p.addRules("nat", cost.NAT)
			p.addRules("filter", cost.Filter)
		}
	}
}

// addresses gives ports the addresses that the rules show, where no API does.
func addresses(v *kubeproxy.View, hashes map[string]*ServicePort) {
	set := func(hash string, f kubeproxy.Frontend) {
		p := hashes[hash]
		switch {
		case p == nil:
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

func (s *ServicePort) addRules(table string, n int) {
	if n == 0 {
		return
	}
	if s.Rules == nil {
		s.Rules = make(map[string]int, 2)
	}
	s.Rules[table] += n
}

// endpoints marks those that the chains send to. Both backends may hold one.
func (j *join) endpoints(p *ServicePort, chains *kubeproxy.PortChains) {
	for i := range chains.Endpoints {
		addr := j.in.Names.addr(&chains.Endpoints[i])
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

// totals adds what the ledger has counted, and returns its version.
func (j *join) totals() uint64 {
	totals, version := j.in.Ledger.Changed(0)
	for i := range totals {
		t := &totals[i]
		key := keyOf(&t.Port)
		if p := j.port(key.name, key.family); p != nil {
			p.setTotals(t)
		}
	}
	return version
}

// finish completes the rows and sorts them.
func (j *join) finish(from shape) {
	all := !from.counting && j.few()
	for _, p := range j.rows {
		slices.SortFunc(p.Endpoints, compareEndpoints)
		p.Exposed = p.Exposed || all
		if from.uncounted.has(p.Family) {
			p.Uncounted, p.KernelCount = true, -1
		}
	}
	slices.SortFunc(j.rows, func(a, b *ServicePort) int {
		return cmp.Or(a.Port.Compare(b.Port), cmp.Compare(a.Family, b.Family))
	})
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
