// SPDX-License-Identifier: Apache-2.0

package correlate

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/svcscope/svcscope/pkg/kubeproxy"
	"github.com/svcscope/svcscope/pkg/ledger"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/service"
)

// Rules is the newest reading of one backend and family. Of one that cannot be
// read any more it is the last one that could.
type Rules struct {
	View  *kubeproxy.View
	Sizes []TableSize
	// NFTablesMode is true where a table of kube-proxy's nftables mode is
	// present in this family.
	NFTablesMode bool
}

// Inputs is all that Build joins.
type Inputs struct {
	NodeName string
	Kernel   string // uname -r
	Kube     KubeState
	Names    *Names
	Rules    []Rules
	// Unread has the families whose rules are not known: some source that
	// may hold kube-proxy's was never read, and no other one holds them.
	Unread []Family
	// IPVS is true where the kernel has virtual servers of IPVS.
	IPVS   bool
	Ledger *ledger.Ledger
	// SinceRule tells that the ledger's totals are the rules' own counters.
	SinceRule bool
	Changes   []RulesetChanges
	Conntrack *Conntrack
	Self      Self
}

// Build joins what the kernel holds with what the API says. It keeps nothing of
// in but the slices of Changes and Self, and copies the ledger's totals.
func Build(in Inputs, now time.Time) *Snapshot {
	s := &Snapshot{
		Time: now, Node: node(&in), Kube: in.Kube, Changes: in.Changes, Conntrack: in.Conntrack, Self: in.Self,
	}
	for i := range in.Rules {
		v := in.Rules[i].View
		s.Tables = append(s.Tables, in.Rules[i].Sizes...)
		if v.Present {
			s.Dispatch = append(s.Dispatch, DispatchSize{Backend: v.Backend, Family: v.Family, Rules: v.DispatchRules})
		}
	}
	s.Counting = counting(&in, s.Node.ProxyMode)
	j := newJoin(&in)
	j.kernel()
	j.totals()
	s.Services, s.Other = j.result()
	s.uncounted(in.Unread)
	s.Self.SeriesDropped = in.Ledger.Folded()
	return s
}

// uncounted marks what nothing counts: 0 would be wrong. That is all of a node
// without kube-proxy's iptables rules, and the families whose rules are unread.
func (s *Snapshot) uncounted(unread []Family) {
	all := slices.Contains([]string{"nftables", "ipvs", "unknown"}, s.Node.ProxyMode)
	for i := range s.Services {
		p := &s.Services[i]
		if all || slices.Contains(unread, p.Family) {
			p.Uncounted, p.KernelCount = true, -1
		}
	}
	for i := range s.Other {
		s.Other[i].Uncounted = all || slices.Contains(unread, s.Other[i].Family)
	}
}

// node tells the proxy's mode from what is in the kernel. Others have virtual
// servers too (kube-vip, keepalived), and kube-proxy's IPVS mode has a
// KUBE-SERVICES, but no chain of a Service.
func node(in *Inputs) NodeInfo {
	n := NodeInfo{Name: in.NodeName, Kernel: in.Kernel, ProxyMode: "none"}
	backends := map[string]bool{}
	native, chains := false, false
	for i := range in.Rules {
		r := &in.Rules[i]
		native = native || r.NFTablesMode
		chains = chains || hasServiceChains(r.View)
		if r.View.Present {
			backends[string(r.View.Backend)] = true
		}
	}
	n.Backend = strings.Join(slices.Sorted(maps.Keys(backends)), ",")
	present := n.Backend != ""
	switch {
	case native && !present:
		n.ProxyMode = "nftables"
	case in.IPVS && !chains && (present || len(in.Unread) == 0):
		n.ProxyMode = "ipvs"
	case present:
		n.ProxyMode = "iptables"
	case len(in.Unread) > 0:
		n.ProxyMode = "unknown"
	}
	return n
}

func hasServiceChains(v *kubeproxy.View) bool {
	for _, p := range v.Ports {
		if p.Service != nil || p.Local != nil {
			return true
		}
	}
	return false
}

// counting says how the numbers are made: from the rules, or not at all.
func counting(in *Inputs, mode string) []CountingMethod {
	method := "none"
	if mode == "iptables" && in.Ledger.Counting() {
		method = "rules"
	}
	return []CountingMethod{{What: "connections", Method: method}, {What: "refusals", Method: method}}
}

// portKey names a Service port in one family.
type portKey struct {
	name   service.PortName
	family Family
}

// join collects the Service ports of a snapshot.
type join struct {
	in    *Inputs
	ports map[portKey]*ServicePort
	other map[ledger.OtherKey]ledger.Totals
}

// newJoin begins with the API's Services, or with none where it is not known.
func newJoin(in *Inputs) *join {
	j := &join{in: in, ports: make(map[portKey]*ServicePort), other: in.Ledger.Others()}
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

// totals adds what the ledger has counted.
func (j *join) totals() {
	for t := range j.in.Ledger.Ports() {
		name := service.PortName{
			Name: service.Name{Namespace: t.Port.Service.Namespace, Name: t.Port.Service.Name},
			Port: t.Port.Name, Protocol: service.Protocol(t.Port.Protocol),
		}
		p := j.port(name, Family(t.Port.Family))
		if p == nil {
			continue
		}
		p.Exposed, p.Created = true, t.Created
		p.Cluster, p.External, p.Rejected = t.Cluster, t.External, reasons(t.Rejected)
		byAddr := make(map[netip.AddrPort]*ledger.EndpointTotal, len(t.Endpoints))
		for i := range t.Endpoints {
			byAddr[t.Endpoints[i].Addr] = &t.Endpoints[i]
		}
		for i := range p.Endpoints {
			if e := byAddr[p.Endpoints[i].Addr]; e != nil {
				p.Endpoints[i].Connections, p.Endpoints[i].Created = e.Connections, e.Created
			}
		}
	}
}

func reasons(m map[string]uint64) map[Reason]uint64 {
	if len(m) == 0 {
		return nil
	}
	out := make(map[Reason]uint64, len(m))
	for r, n := range m {
		out[Reason(r)] = n
	}
	return out
}

// result sorts the ports and folds those without totals of their own.
func (j *join) result() ([]ServicePort, []OtherTotal) {
	ports := make([]ServicePort, 0, len(j.ports))
	others := make(map[ledger.OtherKey]*OtherTotal)
	for key, t := range j.other {
		o := otherTotal(others, key)
		o.Created, o.Cluster, o.External, o.Rejected = t.Created, t.Cluster, t.External, reasons(t.Rejected)
	}
	all := !j.in.Ledger.Counting() && j.few()
	for _, p := range j.ports {
		slices.SortFunc(p.Endpoints, compareEndpoints)
		if p.Exposed = p.Exposed || all; !p.Exposed {
			otherTotal(others, ledger.OtherKey{Protocol: string(p.Port.Protocol), Family: uint8(p.Family)}).fold(p)
		}
		ports = append(ports, *p)
	}
	slices.SortFunc(ports, func(a, b ServicePort) int {
		return cmp.Or(a.Port.Compare(b.Port), cmp.Compare(a.Family, b.Family))
	})
	var out []OtherTotal
	for _, key := range slices.SortedFunc(maps.Keys(others), func(a, b ledger.OtherKey) int {
		return cmp.Or(cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.Family, b.Family))
	}) {
		out = append(out, *others[key])
	}
	return ports, out
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
