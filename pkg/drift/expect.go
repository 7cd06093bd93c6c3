// SPDX-License-Identifier: Apache-2.0

package drift

import (
	"net/netip"
	"slices"

	"github.com/svcscope/svcscope/pkg/kubeproxy"
	"github.com/svcscope/svcscope/pkg/service"
)

// Expected is what kube-proxy should have written for one Service port in one
// family on this node.
type Expected struct {
	Port service.PortName
	// Hash is in the names of the port's chains.
	Hash string
	// Frontends are the cluster IP, the external IPs, the load balancer's and the node
	// port, in this order.
	Frontends []Frontend
	// Cluster are the endpoints of KUBE-SVC, Local those of KUBE-SVL. Without
	// endpoints there is no such chain.
	Cluster, Local []service.Endpoint
	// Older are other sets that older releases choose for KUBE-SVC.
	Older [][]service.Endpoint
	// External is true where there is KUBE-EXT, and FromOutside the kind of chain that
	// it hands packets from outside to: KindService, KindLocal, or KindOther where it
	// hands them to none.
	External    bool
	FromOutside kubeproxy.Kind
	// Affinity is true where clients come back to their endpoint for so many seconds.
	Affinity        bool
	AffinitySeconds uint32
	// Ranges are the sources that KUBE-FW lets in; without any there is no such chain.
	Ranges []netip.Prefix
	// HealthCheck is the node port at which filter lets health checks in, or 0.
	HealthCheck uint16
}

// Frontend is one address, or the node port, by which a port is reached.
type Frontend struct {
	kubeproxy.Frontend
	// To is the kind of chain that nat sends packets to: KindService, KindLocal,
	// KindExternal or KindFirewall; KindOther where it has no rule for them.
	To kubeproxy.Kind
	// Refusal is why filter refuses what nat sends nowhere: NoEndpoints (REJECT) or
	// NoLocalEndpoints (DROP); empty where it must not.
	Refusal kubeproxy.Reason
}

// label is the kind of address in the words of the label frontend.
func label(k kubeproxy.FrontendKind) service.Frontend {
	switch k {
	case kubeproxy.ClusterIP:
		return service.ClusterFrontend
	case kubeproxy.ExternalIP:
		return service.ExternalFrontend
	case kubeproxy.LoadBalancerIP:
		return service.LoadBalancerFrontend
	case kubeproxy.NodePort:
		return service.NodePortFrontend
	}
	return ""
}

// Expect says what kube-proxy should have for a port in one family on c's node;
// ok is false where it has nothing for it: the Service is headless, of another
// proxy, or without a cluster IP of the family. It follows syncProxyRules of
// pkg/proxy/iptables/proxier.go of Kubernetes 1.37.
//
// AllowServiceExternalIPs is taken to be on (see tolerated in side.go), and hints
// to be heeded as in 1.37 (see Older).
func Expect(c *service.Catalog, svc *service.Service, port *service.Port, ipv6 bool) (e Expected, ok bool) {
	if !served(svc, ipv6) {
		return Expected{}, false
	}
	e.Port = svc.PortName(port)
	e.Hash = kubeproxy.Hash(e.Port)
	sel := kubeproxy.SelectEndpoints(c, svc, port, ipv6)
	e.Cluster, e.Local = sel.Cluster, sel.Local
	if sel.UsesCluster {
		e.Older = kubeproxy.OlderCluster(c.EndpointsOf(e.Port, ipv6), c.Node)
	}
	e.Affinity, e.AffinitySeconds = svc.ClientIPAffinity, uint32(svc.AffinitySeconds)
	e.HealthCheck = svc.HealthCheckNodePort
	e.outside(svc, port, ipv6, &sel)
	e.frontends(svc, port, ipv6, &sel)
	return e, true
}

// served reports whether kube-proxy writes rules for a Service in a family.
func served(svc *service.Service, ipv6 bool) bool {
	return svc != nil && svc.ProxyName == "" && svc.ClusterIP(ipv6).IsValid()
}

// outside sets what packets to node ports, external and load-balancer addresses
// pass.
func (e *Expected) outside(svc *service.Service, port *service.Port, ipv6 bool, sel *kubeproxy.Selection) {
	if !sel.HasAny {
		return
	}
	if e.External = svc.ExternallyAccessible(port, ipv6); e.External {
		switch {
		case !svc.ExternalLocal:
			e.FromOutside = kubeproxy.KindService
		case len(sel.Local) > 0:
			e.FromOutside = kubeproxy.KindLocal
		}
	}
	if len(ofFamily(svc.LoadBalancerIPs, ipv6)) > 0 {
		e.Ranges = sourceRanges(svc, ipv6)
	}
}

// sourceRanges are the ranges of a family. One that holds every address makes them
// none (newBaseServiceInfo in pkg/proxy/serviceport.go).
func sourceRanges(svc *service.Service, ipv6 bool) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range svc.LoadBalancerSourceRanges {
		if p.Addr().Is6() != ipv6 {
			continue
		}
		if p.Bits() == 0 {
			return nil
		}
		out = append(out, p.Masked())
	}
	return out
}

// frontends lists how the port is reached, and what becomes of the packets.
func (e *Expected) frontends(svc *service.Service, port *service.Port, ipv6 bool, sel *kubeproxy.Selection) {
	inside := Frontend{To: kubeproxy.KindService}
	if svc.InternalLocal {
		inside.To = kubeproxy.KindLocal
	}
	inside.refuse(sel, svc.InternalLocal)
	if inside.Refusal != "" {
		inside.To = kubeproxy.KindOther
	}
	outside := Frontend{To: kubeproxy.KindExternal}
	outside.refuse(sel, svc.ExternalLocal)
	if outside.Refusal == kubeproxy.NoEndpoints {
		outside.To = kubeproxy.KindOther
	}
	balanced := outside
	if len(e.Ranges) > 0 {
		balanced.To = kubeproxy.KindFirewall
	}
	add := func(f Frontend, kind kubeproxy.FrontendKind, addr netip.Addr, number uint16) {
		f.Frontend = kubeproxy.Frontend{Kind: kind, Addr: addr, Port: number, Protocol: port.Protocol}
		e.Frontends = append(e.Frontends, f)
	}
	add(inside, kubeproxy.ClusterIP, svc.ClusterIP(ipv6), port.Port)
	for _, a := range ofFamily(svc.ExternalIPs, ipv6) {
		add(outside, kubeproxy.ExternalIP, a, port.Port)
	}
	for _, a := range ofFamily(svc.LoadBalancerIPs, ipv6) {
		add(balanced, kubeproxy.LoadBalancerIP, a, port.Port)
	}
	if port.NodePort != 0 {
		add(outside, kubeproxy.NodePort, netip.Addr{}, port.NodePort)
	}
}

// refuse sets why packets are refused, if they are; local tells that the policy is
// Local.
func (f *Frontend) refuse(sel *kubeproxy.Selection, local bool) {
	switch {
	case !sel.HasAny:
		f.Refusal = kubeproxy.NoEndpoints
	case local && len(sel.Local) == 0:
		f.Refusal = kubeproxy.NoLocalEndpoints
	}
}

// ofFamily returns the addresses of a family: all of them where all are.
func ofFamily(addrs []netip.Addr, ipv6 bool) []netip.Addr {
	other := func(a netip.Addr) bool { return a.Is6() != ipv6 }
	if !slices.ContainsFunc(addrs, other) {
		return addrs
	}
	return slices.DeleteFunc(slices.Clone(addrs), other)
}

// Undecided reports whether which endpoints are expected of a port is left to chance.
func Undecided(eps []service.Endpoint) bool {
	return slices.ContainsFunc(eps, func(e service.Endpoint) bool { return e.Undecided })
}

// NeedsNode reports whether another node may get other endpoints of a port, so that what
// is expected is not known without the API's Node.
func NeedsNode(svc *service.Service, port *service.Port, eps []service.Endpoint, ipv6 bool) bool {
	if svc.InternalLocal || svc.ExternalLocal && svc.ExternallyAccessible(port, ipv6) {
		return true
	}
	return slices.ContainsFunc(eps, func(e service.Endpoint) bool { return len(e.ForNodes) > 0 || len(e.ForZones) > 0 })
}
