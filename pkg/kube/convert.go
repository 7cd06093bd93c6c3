// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"net/netip"
	"slices"
	"strings"
	"unique"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	netutils "k8s.io/utils/net"

	"github.com/svcscope/svcscope/pkg/service"
)

// labelProxyName is LabelServiceProxyName of pkg/proxy/apis/well_known_labels.go.
const labelProxyName = "service.kubernetes.io/service-proxy-name"

// convertService keeps of a Service what newBaseServiceInfo of
// pkg/proxy/serviceport.go reads. Where ShouldSkipService is true (no cluster
// IP, or ExternalName) the result is headless.
func convertService(s *corev1.Service) *service.Service {
	out := &service.Service{
		Name:                     service.Name{Namespace: intern(s.Namespace), Name: s.Name},
		Type:                     intern(string(s.Spec.Type)),
		ExternalIPs:              parseAddrs(s.Spec.ExternalIPs),
		LoadBalancerIPs:          loadBalancerIPs(s.Status.LoadBalancer.Ingress, true),
		ProxyModeIPs:             loadBalancerIPs(s.Status.LoadBalancer.Ingress, false),
		LoadBalancerSourceRanges: sourceRanges(s.Spec.LoadBalancerSourceRanges),
		ClientIPAffinity:         s.Spec.SessionAffinity == corev1.ServiceAffinityClientIP,
		ProxyName:                intern(s.Labels[labelProxyName]),
		UID:                      string(s.UID),
		Ports:                    convertPorts(s.Spec.Ports),
	}
	if p := s.Spec.InternalTrafficPolicy; p != nil {
		out.InternalLocal = *p == corev1.ServiceInternalTrafficPolicyLocal
	}
	if externallyAccessible(s) {
		out.ExternalLocal = s.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal
	}
	if s.Spec.Type == corev1.ServiceTypeLoadBalancer && out.ExternalLocal {
		out.HealthCheckNodePort = uint16(s.Spec.HealthCheckNodePort)
	}
	if c := s.Spec.SessionAffinityConfig; out.ClientIPAffinity && c != nil && c.ClientIP != nil && c.ClientIP.TimeoutSeconds != nil {
		out.AffinitySeconds = *c.ClientIP.TimeoutSeconds
	}
	if ip := s.Spec.ClusterIP; ip != "" && ip != corev1.ClusterIPNone && s.Spec.Type != corev1.ServiceTypeExternalName {
		out.ClusterIPs = parseAddrs(s.Spec.ClusterIPs)
		if len(s.Spec.ClusterIPs) == 0 {
			out.ClusterIPs = parseAddrs([]string{ip})
		}
	}
	return out
}

func convertPorts(ports []corev1.ServicePort) []service.Port {
	if len(ports) == 0 {
		return nil
	}
	out := make([]service.Port, len(ports))
	for i := range ports {
		p := &ports[i]
		out[i] = service.Port{
			Name: intern(p.Name), Protocol: protocol(&p.Protocol),
			Port: uint16(p.Port), NodePort: uint16(p.NodePort),
		}
	}
	return out
}

// externallyAccessible is ExternallyAccessible of pkg/api/v1/service/util.go:
// elsewhere the API may still hold an externalTrafficPolicy, without effect.
func externallyAccessible(s *corev1.Service) bool {
	switch s.Spec.Type {
	case corev1.ServiceTypeLoadBalancer, corev1.ServiceTypeNodePort:
		return true
	case corev1.ServiceTypeClusterIP:
		return len(s.Spec.ExternalIPs) > 0
	}
	return false
}

// loadBalancerIPs leaves out host names, and takes the addresses with ipMode VIP,
// which is the default, or those with another.
func loadBalancerIPs(ingress []corev1.LoadBalancerIngress, vip bool) []netip.Addr {
	var out []netip.Addr
	for i := range ingress {
		in := &ingress[i]
		if (in.IPMode == nil || *in.IPMode == corev1.LoadBalancerIPModeVIP) != vip {
			continue
		}
		if a, ok := parseAddr(in.IP); ok {
			out = append(out, a)
		}
	}
	return exact(out)
}

// sourceRanges leaves out what is no prefix, and all of a family that has a
// prefix of length 0: that means no restriction.
func sourceRanges(texts []string) []netip.Prefix {
	var out []netip.Prefix
	var open4, open6 bool
	for _, text := range texts {
		p, ok := parsePrefix(strings.TrimSpace(text)) // validation lets spaces pass
		if !ok {
			continue
		}
		open4 = open4 || p.Bits() == 0 && p.Addr().Is4()
		open6 = open6 || p.Bits() == 0 && p.Addr().Is6()
		out = append(out, p)
	}
	out = slices.DeleteFunc(out, func(p netip.Prefix) bool {
		return p.Addr().Is4() && open4 || p.Addr().Is6() && open6
	})
	return exact(out)
}

// slice is what is kept of an EndpointSlice: its endpoints by Service port, in
// the shape that the catalog shares: each port's sorted by address, each
// address once.
type slice struct {
	name    service.Name // of the EndpointSlice
	service service.Name
	ports   []service.PortEndpoints
}

// convertSlice follows EndpointSliceCache in pkg/proxy/endpointslicecache.go.
// The result is nil where kube-proxy does not look at the slice: host names,
// or no Service named.
func convertSlice(s *discoveryv1.EndpointSlice) *slice {
	svc := s.Labels[discoveryv1.LabelServiceName]
	ipv6 := s.AddressType == discoveryv1.AddressTypeIPv6
	if svc == "" || !ipv6 && s.AddressType != discoveryv1.AddressTypeIPv4 {
		return nil
	}
	namespace := intern(s.Namespace)
	out := &slice{
		name:    service.Name{Namespace: namespace, Name: s.Name},
		service: service.Name{Namespace: namespace, Name: svc},
	}
	eps := convertEndpoints(s.Endpoints, ipv6)
	for i := range s.Ports {
		p := &s.Ports[i]
		if p.Name == nil || p.Port == nil || *p.Port == 0 {
			continue
		}
		out.add(service.PortEndpoints{
			Port: intern(*p.Name), Protocol: protocol(p.Protocol), Endpoints: withPort(eps, uint16(*p.Port)),
		})
	}
	out.ports = exact(out.ports)
	return out
}

// withPort gives the endpoints their port.
func withPort(eps []service.Endpoint, port uint16) []service.Endpoint {
	out := slices.Clone(eps)
	for i := range out {
		out[i].Addr = netip.AddrPortFrom(out[i].Addr.Addr(), port)
	}
	return collapse(out)
}

// add enters a port. Its name may occur twice in a slice, with two numbers.
func (s *slice) add(p service.PortEndpoints) {
	if len(p.Endpoints) == 0 {
		return
	}
	if i := findPort(s.ports, p); i >= 0 {
		s.ports[i].Endpoints = collapse(slices.Concat(s.ports[i].Endpoints, p.Endpoints))
		return
	}
	s.ports = append(s.ports, p)
}

func findPort(ports []service.PortEndpoints, p service.PortEndpoints) int {
	return slices.IndexFunc(ports, func(q service.PortEndpoints) bool { return q.Port == p.Port && q.Protocol == p.Protocol })
}

// convertEndpoints leaves the port open. Only the first address of an endpoint
// counts. ready already says true where the Service publishes addresses that
// are not ready.
func convertEndpoints(eps []discoveryv1.Endpoint, ipv6 bool) []service.Endpoint {
	out := make([]service.Endpoint, 0, len(eps))
	for i := range eps {
		e := &eps[i]
		if len(e.Addresses) == 0 {
			continue
		}
		addr, ok := parseAddr(e.Addresses[0])
		if !ok || addr.Is6() != ipv6 {
			continue
		}
		ep := service.Endpoint{
			Addr:        netip.AddrPortFrom(addr, 0),
			Ready:       e.Conditions.Ready == nil || *e.Conditions.Ready,
			Serving:     e.Conditions.Serving == nil || *e.Conditions.Serving,
			Terminating: e.Conditions.Terminating != nil && *e.Conditions.Terminating,
			NodeName:    internPtr(e.NodeName),
			Zone:        internPtr(e.Zone),
		}
		if e.Hints != nil {
			for _, n := range e.Hints.ForNodes {
				ep.ForNodes = append(ep.ForNodes, intern(n.Name))
			}
			for _, z := range e.Hints.ForZones {
				ep.ForZones = append(ep.ForZones, intern(z.Name))
			}
		}
		out = append(out, ep)
	}
	return out
}

// collapse sorts eps by address in place and keeps one of each: the first, but
// a later one that does not terminate instead. An address can be in two slices
// while it moves, and belong to two pods while one of them ends.
func collapse(eps []service.Endpoint) []service.Endpoint {
	sortByAddr(eps)
	n := 0
	for i := range eps {
		switch {
		case n == 0 || eps[n-1].Addr != eps[i].Addr:
			eps[n] = eps[i]
			n++
		case !eps[i].Terminating:
			eps[n-1] = eps[i]
		}
	}
	return exact(eps[:n])
}

func sortByAddr(eps []service.Endpoint) {
	slices.SortStableFunc(eps, func(a, b service.Endpoint) int { return a.Addr.Compare(b.Addr) })
}

// exact returns s, or a copy if s has room that would stay allocated.
func exact[T any](s []T) []T {
	switch {
	case len(s) == 0:
		return nil
	case len(s) == cap(s):
		return s
	}
	return append(make([]T, 0, len(s)), s...)
}

func convertNode(n *corev1.Node) *service.Node {
	out := &service.Node{Name: n.Name, Zone: n.Labels[corev1.LabelTopologyZone]}
	for i := range n.Status.Addresses {
		a := &n.Status.Addresses[i]
		if a.Type != corev1.NodeInternalIP && a.Type != corev1.NodeExternalIP {
			continue
		}
		if ip, ok := parseAddr(a.Address); ok && !slices.Contains(out.IPs, ip) {
			out.IPs = append(out.IPs, ip)
		}
	}
	for _, r := range n.Spec.PodCIDRs {
		if p, err := netip.ParsePrefix(r); err == nil {
			out.PodRanges = append(out.PodRanges, p.Masked())
		}
	}
	return out
}

// protocol returns one of the shared constants where it can.
func protocol(p *corev1.Protocol) service.Protocol {
	if p == nil {
		return service.TCP
	}
	switch *p {
	case "", corev1.ProtocolTCP:
		return service.TCP
	case corev1.ProtocolUDP:
		return service.UDP
	case corev1.ProtocolSCTP:
		return service.SCTP
	}
	return service.Protocol(*p)
}

func parseAddrs(texts []string) []netip.Addr {
	var out []netip.Addr
	for _, text := range texts {
		if a, ok := parseAddr(text); ok {
			out = append(out, a)
		}
	}
	return exact(out)
}

// parseAddr reads what kube-proxy reads: objects written before Kubernetes
// forbade it may have IPv4 addresses with leading zeros, taken as decimal.
func parseAddr(text string) (netip.Addr, bool) {
	a, err := netip.ParseAddr(text)
	if err != nil {
		var ok bool
		if a, ok = netip.AddrFromSlice(netutils.ParseIPSloppy(text)); !ok {
			return netip.Addr{}, false
		}
	}
	return a.Unmap().WithZone(""), true
}

func parsePrefix(text string) (netip.Prefix, bool) {
	_, n, err := netutils.ParseCIDRSloppy(text)
	if err != nil {
		return netip.Prefix{}, false
	}
	a, ok := netip.AddrFromSlice(n.IP)
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(a, bits), ok
}

// intern makes equal strings share memory: namespaces, nodes and zones repeat
// in every object.
func intern(s string) string {
	if s == "" {
		return ""
	}
	return unique.Make(s).Value()
}

func internPtr(s *string) string {
	if s == nil {
		return ""
	}
	return intern(*s)
}
