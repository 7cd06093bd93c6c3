// SPDX-License-Identifier: Apache-2.0

package kubeproxy

import (
	"crypto/sha256"
	"encoding/base32"
	"net/netip"
	"strings"

	"github.com/svcscope/svcscope/pkg/service"
)

// The prefixes of chains that belong to one Service port or endpoint; the rest
// of their names is a hash of HashLen characters (kube-proxy's
// pkg/proxy/iptables/proxier.go, the same from Kubernetes 1.24 to 1.37).
const (
	servicePrefix  = "KUBE-SVC-"
	localPrefix    = "KUBE-SVL-"
	externalPrefix = "KUBE-EXT-"
	firewallPrefix = "KUBE-FW-"
	endpointPrefix = "KUBE-SEP-"
	oldLocalPrefix = "KUBE-XLB-"
)

// HashLen is the length of the hash in a chain's name: 80 bits in base32.
const HashLen = 16

// Hash returns the 16 characters that the four chains of a Service port share:
// the start of base32(sha256(namespace/name[:port] + protocol in lower case)).
// The IP family is not part of it.
func Hash(p service.PortName) string {
	var buf [256]byte
	return hash(appendPort(buf[:0], p))
}

// ServiceChain is the chain of a port's endpoints anywhere: KUBE-SVC-….
func ServiceChain(p service.PortName) string { return servicePrefix + Hash(p) }

// LocalChain is the chain of a port's endpoints on this node: KUBE-SVL-….
func LocalChain(p service.PortName) string { return localPrefix + Hash(p) }

// ExternalChain is the chain of a port's traffic to node ports, external and
// load-balancer addresses: KUBE-EXT-….
func ExternalChain(p service.PortName) string { return externalPrefix + Hash(p) }

// FirewallChain is the chain of a port's loadBalancerSourceRanges: KUBE-FW-….
func FirewallChain(p service.PortName) string { return firewallPrefix + Hash(p) }

// EndpointChain is the chain of one endpoint of a port: KUBE-SEP-….
func EndpointChain(p service.PortName, endpoint netip.AddrPort) string {
	var buf [256]byte
	return endpointPrefix + hash(endpoint.AppendTo(appendPort(buf[:0], p)))
}

// NamesFromCatalog returns the Service ports of the API by Hash. Ports of
// headless Services and of those that another proxy serves are among them:
// kube-proxy has no chains for them, so nothing will be looked up there.
func NamesFromCatalog(c *service.Catalog) map[string]service.PortName {
	if c == nil {
		return nil
	}
	names := make(map[string]service.PortName, len(c.Services))
	for _, s := range c.Services {
		for _, port := range s.Ports {
			p := service.PortName{Name: s.Name, Port: port.Name, Protocol: port.Protocol}
			names[Hash(p)] = p
		}
	}
	return names
}

// appendPort appends what kube-proxy hashes of a port: there is no separator
// before the protocol.
func appendPort(b []byte, p service.PortName) []byte {
	b = append(b, p.Namespace...)
	b = append(b, '/')
	b = append(b, p.Name.Name...)
	if p.Port != "" {
		b = append(b, ':')
		b = append(b, p.Port...)
	}
	switch p.Protocol {
	case service.TCP:
		return append(b, "tcp"...)
	case service.UDP:
		return append(b, "udp"...)
	case service.SCTP:
		return append(b, "sctp"...)
	}
	return append(b, strings.ToLower(string(p.Protocol))...)
}

func hash(b []byte) string {
	sum := sha256.Sum256(b)
	var out [HashLen]byte
	base32.StdEncoding.Encode(out[:], sum[:HashLen*5/8])
	return string(out[:])
}
