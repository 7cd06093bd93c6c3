// SPDX-License-Identifier: Apache-2.0

package kubeproxy

import (
	"crypto/sha256"
	"encoding/base32"
	"net/netip"
	"strconv"
	"strings"

	"github.com/svcscope/svcscope/pkg/service"
)

// NativeTable is the table of kube-proxy's nftables mode, in the families ip and ip6
// (kubeProxyTable in pkg/proxy/nftables/proxier.go).
const NativeTable = "kube-proxy"

// Beginnings of the names of chains and sets of one Service port in that mode. The rest
// is eight characters of a hash, "-" and what they are the hash of.
const (
	nativeService  = "service-"
	nativeLocal    = "local-"
	nativeExternal = "external-"
	nativeFirewall = "firewall-"
	nativeEndpoint = "endpoint-"
)

// Names of the sets that are one of a kind.
const (
	nativeClusterIPs  = "cluster-ips"
	nativeNodePortIPs = "nodeport-ips"
	nativeHairpins    = "hairpin-connections" // since Kubernetes 1.36
	nativeServices    = "services"            // the chain that dispatches
	nativeMasquerade  = "mark-for-masquerade" // the chain that marks, before Kubernetes 1.36
)

// NativeName is what the name of a chain of the nftables mode says.
type NativeName struct {
	Kind     Kind // KindService, KindLocal, KindExternal, KindFirewall, KindEndpoint
	Port     service.PortName
	Endpoint netip.AddrPort // of KindEndpoint; not valid where the name was too long for it
}

// OfService reports whether a chain of the nftables mode is one Service port's: no other
// chain's name has a "/" (isServiceChainName in pkg/proxy/nftables/proxier.go).
func OfService(chain string) bool { return strings.Contains(chain, "/") }

// ParseNative reads the name of a Service port's chain in the nftables mode:
// service-ULMVA6XW-ns1/svc1/tcp/p80, the port's name being empty where it has none, and
// endpoint-5OJB2KTY-ns1/svc1/tcp/p80__10.180.0.1/80, with dots in place of an IPv6
// address's colons. ok is false where the hash is not that of the rest.
func ParseNative(chain string) (n NativeName, ok bool) {
	rest, ok := n.kind(chain)
	if !ok || len(rest) < 9 || rest[8] != '-' {
		return NativeName{}, false
	}
	hash, base := rest[:8], rest[9:]
	port, endpoint, hasEndpoint := strings.Cut(base, "__")
	cut := strings.HasSuffix(base, "...") // longer than 240 bytes: an endpoint's alone can be
	if hasEndpoint != (n.Kind == KindEndpoint) || cut && !hasEndpoint || !cut && nativeHash(base) != hash {
		return NativeName{}, false
	}
	if n.Port, ok = parseNativePort(port); !ok {
		return NativeName{}, false
	}
	if hasEndpoint && !cut {
		n.Endpoint, ok = parseNativeEndpoint(endpoint)
	}
	if !ok {
		return NativeName{}, false
	}
	return n, true
}

// kind takes off what the name begins with.
func (n *NativeName) kind(chain string) (rest string, ok bool) {
	for _, p := range [...]struct {
		prefix string
		kind   Kind
	}{
		{nativeService, KindService},
		{nativeLocal, KindLocal},
		{nativeExternal, KindExternal},
		{nativeFirewall, KindFirewall},
		{nativeEndpoint, KindEndpoint},
	} {
		if rest, ok = strings.CutPrefix(chain, p.prefix); ok {
			n.Kind = p.kind
			return rest, true
		}
	}
	return "", false
}

// parseNativePort reads namespace/name/protocol/port.
func parseNativePort(s string) (service.PortName, bool) {
	parts := strings.Split(s, "/")
	if len(parts) != 4 || !isLabel(parts[0]) || !isLabel(parts[1]) || parts[3] != "" && !isLabel(parts[3]) {
		return service.PortName{}, false
	}
	p := service.PortName{Name: service.Name{Namespace: parts[0], Name: parts[1]}, Port: parts[3]}
	switch parts[2] {
	case "tcp":
		p.Protocol = service.TCP
	case "udp":
		p.Protocol = service.UDP
	case "sctp":
		p.Protocol = service.SCTP
	default:
		return service.PortName{}, false
	}
	return p, true
}

// parseNativeEndpoint reads address/port.
func parseNativeEndpoint(s string) (netip.AddrPort, bool) {
	host, number, ok := strings.Cut(s, "/")
	port, err := strconv.ParseUint(number, 10, 16)
	if !ok || err != nil {
		return netip.AddrPort{}, false
	}
	addr, err := netip.ParseAddr(host)
	if err != nil { // fd00.10.244.1..11
		if addr, err = netip.ParseAddr(strings.ReplaceAll(host, ".", ":")); err != nil {
			return netip.AddrPort{}, false
		}
	}
	return netip.AddrPortFrom(addr, uint16(port)), true
}

// nativeHash is the eight characters before a name.
func nativeHash(base string) string {
	sum := sha256.Sum256([]byte(base))
	return base32.StdEncoding.EncodeToString(sum[:5])
}

// NativeChain is the name of a port's chain of a kind in the nftables mode; empty of kinds
// that have no chain of one port.
func NativeChain(kind Kind, p service.PortName) string {
	prefix := map[Kind]string{
		KindService: nativeService, KindLocal: nativeLocal, KindExternal: nativeExternal, KindFirewall: nativeFirewall,
	}[kind]
	if prefix == "" {
		return ""
	}
	base := p.Namespace + "/" + p.Name.Name + "/" + strings.ToLower(string(p.Protocol)) + "/" + p.Port
	return prefix + nativeHash(base) + "-" + base
}
