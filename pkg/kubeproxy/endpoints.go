// SPDX-License-Identifier: Apache-2.0

package kubeproxy

import (
	"slices"

	"github.com/svcscope/svcscope/pkg/service"
)

// Selection is which endpoints of one Service port and family kube-proxy uses
// on a node. Its slices keep the order of the endpoints they were chosen from.
type Selection struct {
	// Cluster serves traffic under the policy Cluster (chain KUBE-SVC), Local
	// under the policy Local (KUBE-SVL).
	Cluster []service.Endpoint
	Local   []service.Endpoint
	// Reachable is the union: what this node's rules should hold.
	Reachable []service.Endpoint
	// UsesCluster and UsesLocal tell which of the two the port has at all.
	UsesCluster bool
	UsesLocal   bool
	// HasAny is true where an endpoint anywhere in the cluster could serve,
	// be it reachable from here or not: it decides between "no endpoints"
	// and "no local endpoints".
	HasAny bool
}

// topology is how hints restrict the endpoints of the policy Cluster.
type topology int

const (
	anywhere topology = iota
	sameNode          // PreferSameNode
	sameZone          // PreferSameZone
)

// SelectEndpoints chooses among the endpoints that c has for one port of svc in
// one family, for c's node. It follows CategorizeEndpoints of Kubernetes 1.37
// (pkg/proxy/topology.go) and UsesClusterEndpoints, UsesLocalEndpoints of
// pkg/proxy/serviceport.go. A Service that kube-proxy skips in this family
// gets the zero Selection: headless, of another proxy, or without a cluster
// IP of the family.
//
// Releases before 1.34 have no node hints (feature PreferSameTrafficDistribution);
// they are taken as heeded wherever the API has them.
func SelectEndpoints(c *service.Catalog, svc *service.Service, port *service.Port, ipv6 bool) Selection {
	if svc.ProxyName != "" || !svc.ClusterIP(ipv6).IsValid() {
		return Selection{}
	}
	external := svc.ExternallyAccessible(port, ipv6)
	sel := Selection{
		UsesCluster: !svc.InternalLocal || external,
		UsesLocal:   svc.InternalLocal || svc.ExternalLocal && external,
	}
	sel.choose(c.EndpointsOf(svc.PortName(port), ipv6), c.Node)
	return sel
}

func (s *Selection) choose(eps []service.Endpoint, node service.Node) {
	if s.UsesCluster {
		s.Cluster = readyFor(eps, node, hintedTopology(eps, node, true))
		// Topology was dropped already if it left no ready endpoint, so
		// there is none anywhere: terminating ones are better than nothing.
		if len(s.Cluster) == 0 {
			s.Cluster = filter(eps, servesTerminating)
		}
		s.HasAny = len(s.Cluster) > 0
	}
	if !s.UsesLocal {
		s.Reachable = s.Cluster
		return
	}
	isLocal := func(e *service.Endpoint) bool { return node.Name != "" && e.NodeName == node.Name }
	s.HasAny = s.HasAny || slices.ContainsFunc(eps, func(e service.Endpoint) bool {
		return e.Ready || servesTerminating(&e)
	})
	// Hints say nothing about local traffic.
	s.Local = filter(eps, func(e *service.Endpoint) bool { return isLocal(e) && e.Ready })
	if len(s.Local) == 0 {
		s.Local = filter(eps, func(e *service.Endpoint) bool { return isLocal(e) && servesTerminating(e) })
	}
	if !s.UsesCluster {
		s.Reachable = s.Local
		return
	}
	s.Reachable = union(s.Cluster, s.Local)
}

// OlderCluster returns the sets that supported releases before 1.37 may choose in place
// of Selection.Cluster, of a port that has one: before 1.34 hints for nodes are not heeded,
// and before 1.31 hints for zones only where the Service's annotation
// service.kubernetes.io/topology-mode asks for that (canUseTopology in
// pkg/proxy/topology.go), which is not known here. There are none where hints
// change nothing.
func OlderCluster(eps []service.Endpoint, node service.Node) [][]service.Endpoint {
	var older [][]service.Endpoint
	topo := hintedTopology(eps, node, true)
	if topo == sameNode {
		if zone := hintedTopology(eps, node, false); zone == sameZone {
			older = append(older, readyFor(eps, node, zone))
		}
	}
	if topo != anywhere {
		older = append(older, readyFor(eps, node, anywhere))
	}
	return older
}

func readyFor(eps []service.Endpoint, node service.Node, topo topology) []service.Endpoint {
	return filter(eps, func(e *service.Endpoint) bool { return e.Ready && topo.allows(e, node) })
}

// hintedTopology takes hints into account only if every ready endpoint has
// them and one is meant for this node, where hints for nodes are heeded, or else
// for its zone.
func hintedTopology(eps []service.Endpoint, node service.Node, nodes bool) topology {
	ready, byNode, byZone, forNode, forZone := false, nodes, true, false, false
	for i := range eps {
		e := &eps[i]
		if !e.Ready {
			continue
		}
		ready = true
		byNode = byNode && len(e.ForNodes) > 0
		byZone = byZone && len(e.ForZones) > 0
		forNode = forNode || slices.Contains(e.ForNodes, node.Name)
		forZone = forZone || slices.Contains(e.ForZones, node.Zone)
	}
	switch {
	case ready && byNode && forNode:
		return sameNode
	case ready && byZone && forZone:
		return sameZone
	}
	return anywhere
}

func (t topology) allows(e *service.Endpoint, node service.Node) bool {
	switch t {
	case sameNode:
		return slices.Contains(e.ForNodes, node.Name)
	case sameZone:
		return slices.Contains(e.ForZones, node.Zone)
	}
	return true
}

func servesTerminating(e *service.Endpoint) bool { return e.Serving && e.Terminating }

// filter returns eps itself where all of them pass, which is the common case.
func filter(eps []service.Endpoint, keep func(*service.Endpoint) bool) []service.Endpoint {
	n := 0
	for i := range eps {
		if keep(&eps[i]) {
			n++
		}
	}
	if n == len(eps) {
		return eps
	}
	if n == 0 {
		return nil
	}
	out := make([]service.Endpoint, 0, n)
	for i := range eps {
		if keep(&eps[i]) {
			out = append(out, eps[i])
		}
	}
	return out
}

// union merges two selections from the same sorted endpoints.
func union(a, b []service.Endpoint) []service.Endpoint {
	missing := filter(b, func(e *service.Endpoint) bool {
		_, ok := slices.BinarySearchFunc(a, *e, compareAddr)
		return !ok
	})
	if len(missing) == 0 {
		return a
	}
	out := slices.Concat(a, missing)
	slices.SortFunc(out, compareAddr)
	return out
}

func compareAddr(a, b service.Endpoint) int { return a.Addr.Compare(b.Addr) }
