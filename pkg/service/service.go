// SPDX-License-Identifier: Apache-2.0

package service

import (
	"net/netip"
	"strings"
)

// Protocol is a transport protocol in the API's spelling.
type Protocol string

// The protocols a Service port may have.
const (
	TCP  Protocol = "TCP"
	UDP  Protocol = "UDP"
	SCTP Protocol = "SCTP"
)

// Number is IANA's (IPPROTO_*), and 0 for what no Service may have.
func (p Protocol) Number() uint8 {
	switch p {
	case TCP:
		return 6
	case UDP:
		return 17
	case SCTP:
		return 132
	}
	return 0
}

// Name is a namespace and a name in it: of a Service, where nothing else is said.
type Name struct {
	Namespace string
	Name      string
}

// String is namespace/name.
func (n Name) String() string { return n.Namespace + "/" + n.Name }

// Compare orders names by namespace, then by name.
func (n Name) Compare(m Name) int {
	if c := strings.Compare(n.Namespace, m.Namespace); c != 0 {
		return c
	}
	return strings.Compare(n.Name, m.Name)
}

// PortName identifies one port of a Service, as kube-proxy's ServicePortName
// does (pkg/proxy/types.go).
type PortName struct {
	Name
	Port     string // the port's name; empty where a single port has none
	Protocol Protocol
}

// String is kube-proxy's spelling: namespace/name[:port], without protocol.
func (p PortName) String() string {
	if p.Port == "" {
		return p.Name.String()
	}
	return p.Name.String() + ":" + p.Port
}

// Compare orders ports by Service, port name and protocol.
func (p PortName) Compare(q PortName) int {
	if c := p.Name.Compare(q.Name); c != 0 {
		return c
	}
	if c := strings.Compare(p.Port, q.Port); c != 0 {
		return c
	}
	return strings.Compare(string(p.Protocol), string(q.Protocol))
}

// Port is one port of a Service.
type Port struct {
	Name     string
	Protocol Protocol
	Port     uint16
	NodePort uint16 // 0 where there is none
}

// Service is what svcscope keeps of a v1.Service.
type Service struct {
	Name                     Name
	Type                     string // ClusterIP, NodePort, LoadBalancer, ExternalName
	ClusterIPs               []netip.Addr
	ExternalIPs              []netip.Addr
	LoadBalancerIPs          []netip.Addr // ingress addresses with ipMode VIP only
	ProxyModeIPs             []netip.Addr // the others; kube-proxy before Kubernetes 1.30 has rules for them, too
	LoadBalancerSourceRanges []netip.Prefix
	Ports                    []Port
	InternalLocal            bool   // internalTrafficPolicy: Local
	ExternalLocal            bool   // externalTrafficPolicy: Local
	ClientIPAffinity         bool   // sessionAffinity: ClientIP
	AffinitySeconds          int32  // its timeout
	HealthCheckNodePort      uint16 // 0 where there is none
	// ProxyName is the label service.kubernetes.io/service-proxy-name:
	// another proxy serves it, kube-proxy skips it.
	ProxyName string
	// UID is metadata.uid: another one under the same name is another Service.
	UID string
}

// Headless reports whether the Service has no address of its own, so that
// kube-proxy writes nothing for it.
func (s *Service) Headless() bool { return len(s.ClusterIPs) == 0 }

// PortName names one port of the Service.
func (s *Service) PortName(p *Port) PortName {
	return PortName{Name: s.Name, Port: p.Name, Protocol: p.Protocol}
}

// ClusterIP returns the Service's cluster IP of one family, or the zero Addr:
// kube-proxy for that family then skips the Service
// (pkg/proxy/servicechangetracker.go).
func (s *Service) ClusterIP(ipv6 bool) netip.Addr { return firstOf(s.ClusterIPs, ipv6) }

// ExternallyAccessible reports whether a port is reachable in one family by
// something else than a cluster IP: a node port, an external or a
// load-balancer address (ExternallyAccessible in pkg/proxy/serviceport.go).
func (s *Service) ExternallyAccessible(p *Port, ipv6 bool) bool {
	return p.NodePort != 0 || firstOf(s.ExternalIPs, ipv6).IsValid() ||
		firstOf(s.LoadBalancerIPs, ipv6).IsValid()
}

func firstOf(addrs []netip.Addr, ipv6 bool) netip.Addr {
	for _, a := range addrs {
		if a.Is6() == ipv6 {
			return a
		}
	}
	return netip.Addr{}
}

// Endpoint is one address of a Service port, from an EndpointSlice.
type Endpoint struct {
	Addr        netip.AddrPort
	Ready       bool // nil in the API counts as true
	Serving     bool // likewise
	Terminating bool
	Undecided   bool // two EndpointSlices say different things of it: kube-proxy takes either, by chance
	NodeName    string
	Zone        string
	ForNodes    []string // hints
	ForZones    []string // hints
}

// Node is this node as the API knows it.
type Node struct {
	Name string
	Zone string // label topology.kubernetes.io/zone
	IPs  []netip.Addr
	// PodRanges is spec.podCIDRs: where the addresses of this node's pods are
	// from. Empty where the network gives them otherwise.
	PodRanges []netip.Prefix
}
