// SPDX-License-Identifier: Apache-2.0

package kernelrules

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"

	"github.com/svcscope/svcscope/pkg/kubeproxy"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/service"
)

// EndpointsEach is how many endpoints a Service of Many has.
const EndpointsEach = 3

// largeCluster is above how many endpoints kube-proxy leaves comments out of
// endpoints' rules (largeClusterEndpointsThreshold in
// pkg/proxy/iptables/proxier.go).
const largeCluster = 1000

// Many is the rules of many Services in one family, with the texts, the order
// and the hashed names of kube-proxy's iptables mode. Each Service has one TCP
// port, a cluster IP and three endpoints: 11 rules and 4 chains.
type Many struct {
	Family   netfilter.Family
	Services int
}

// Port names the port of Service i.
func (m Many) Port(i int) service.PortName {
	return service.PortName{
		Name: service.Name{Namespace: fmt.Sprintf("team-%02d", i%40), Name: fmt.Sprintf("service-%05d", i)},
		Port: "http", Protocol: service.TCP,
	}
}

// Address is the cluster IP and port of Service i.
func (m Many) Address(i int) netip.AddrPort {
	return netip.AddrPortFrom(m.addr([4]byte{10, 96, byte(i >> 8), byte(i)}), 80)
}

// Endpoint is number e of Service i.
func (m Many) Endpoint(i, e int) netip.AddrPort {
	return netip.AddrPortFrom(m.addr([4]byte{10, byte(128 + e), byte(i >> 8), byte(i)}), 8080)
}

func (m Many) addr(b [4]byte) netip.Addr {
	if m.Family == netfilter.IPv4 {
		return netip.AddrFrom4(b)
	}
	return netip.AddrFrom16([16]byte{0: 0xfd, 12: b[0], 13: b[1], 14: b[2], 15: b[3]})
}

// Network holds all addresses of Many.
func (m Many) Network() netip.Prefix {
	bits := 8
	if m.Family == netfilter.IPv6 {
		bits = 104
	}
	return netip.PrefixFrom(m.addr([4]byte{10}), bits)
}

// filterJumps and natJumps are what kube-proxy puts into the built-in chains.
const (
	filterJumps = `-A INPUT -m conntrack --ctstate NEW -m comment --comment "kubernetes load balancer firewall" -j KUBE-PROXY-FIREWALL
-A INPUT -m comment --comment "kubernetes health check service ports" -j KUBE-NODEPORTS
-A INPUT -m conntrack --ctstate NEW -m comment --comment "kubernetes externally-visible service portals" -j KUBE-EXTERNAL-SERVICES
-A FORWARD -m conntrack --ctstate NEW -m comment --comment "kubernetes load balancer firewall" -j KUBE-PROXY-FIREWALL
-A FORWARD -m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD
-A FORWARD -m conntrack --ctstate NEW -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A FORWARD -m conntrack --ctstate NEW -m comment --comment "kubernetes externally-visible service portals" -j KUBE-EXTERNAL-SERVICES
-A OUTPUT -m conntrack --ctstate NEW -m comment --comment "kubernetes load balancer firewall" -j KUBE-PROXY-FIREWALL
-A OUTPUT -m conntrack --ctstate NEW -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
`
	natJumps = `-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING
`
)

// All is every rule of every Service and the jumps in the built-in chains, as a
// full sync leaves them: for iptables-restore, which is fast where it need not
// look at what is there.
func (m Many) All() []byte {
	own := make([]int, m.Services)
	for i := range own {
		own[i] = i
	}
	return m.sync(own, EndpointsEach, filterJumps, natJumps)
}

// Sync is a partial sync after Service i has changed to so many endpoints, at
// most EndpointsEach, for iptables-restore --noflush: the chains that every
// sync writes, and the Service's own.
func (m Many) Sync(i, endpoints int) []byte { return m.sync([]int{i}, endpoints, "", "") }

func (m Many) sync(changed []int, endpoints int, filter, nat string) []byte {
	var heads, own, dispatch bytes.Buffer
	for _, i := range changed {
		m.service(&heads, &own, i, endpoints)
	}
	for i := range m.Services {
		fmt.Fprintf(&dispatch, "-A KUBE-SERVICES -m comment --comment \"%s cluster IP\" -m tcp -p tcp -d %s --dport %d -j %s\n",
			m.Port(i), m.Address(i).Addr(), m.Address(i).Port(), kubeproxy.ServiceChain(m.Port(i)))
	}
	return fmt.Appendf(nil, `*filter
:KUBE-SERVICES - [0:0]
:KUBE-EXTERNAL-SERVICES - [0:0]
:KUBE-FORWARD - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-PROXY-FIREWALL - [0:0]
%s-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
-A KUBE-FORWARD -m comment --comment "kubernetes forwarding rules" -m mark --mark 0x4000/0x4000 -j ACCEPT
-A KUBE-FORWARD -m comment --comment "kubernetes forwarding conntrack rule" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
COMMIT
*nat
:KUBE-SERVICES - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-MARK-MASQ - [0:0]
:KUBE-POSTROUTING - [0:0]
%s%s-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MARK --xor-mark 0x4000
-A KUBE-POSTROUTING -m comment --comment "kubernetes service traffic requiring SNAT" -j MASQUERADE --random-fully
%s%s-A KUBE-SERVICES -m comment --comment "kubernetes service nodeports; NOTE: this must be the last rule in this chain" -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS
COMMIT
`, filter, heads.Bytes(), nat, own.Bytes(), dispatch.Bytes())
}

// service writes the chains of one Service.
func (m Many) service(heads, rules *bytes.Buffer, i, endpoints int) {
	port, address := m.Port(i), m.Address(i)
	svc := kubeproxy.ServiceChain(port)
	fmt.Fprintf(heads, ":%s - [0:0]\n", svc)
	fmt.Fprintf(rules, "-A %s -m comment --comment \"%s cluster IP\" -m tcp -p tcp -d %s --dport %d ! -s %s -j KUBE-MARK-MASQ\n",
		svc, port, address.Addr(), address.Port(), m.Network())
	comment := func(string, ...any) string { return "" }
	if m.Services*EndpointsEach <= largeCluster {
		comment = func(format string, args ...any) string {
			return fmt.Sprintf(`-m comment --comment "`+format+`" `, args...)
		}
	}
	for e := range endpoints {
		ep := m.Endpoint(i, e)
		sep := kubeproxy.EndpointChain(port, ep)
		random := ""
		if left := endpoints - e; left > 1 {
			random = fmt.Sprintf("-m statistic --mode random --probability %0.10f ", 1/float64(left))
		}
		fmt.Fprintf(heads, ":%s - [0:0]\n", sep)
		fmt.Fprintf(rules, "-A %s %s%s-j %s\n", svc, comment("%s -> %s", port, ep), random, sep)
		fmt.Fprintf(rules, "-A %s %s-s %s -j KUBE-MARK-MASQ\n", sep, comment("%s", port), ep.Addr())
		fmt.Fprintf(rules, "-A %s %s-m tcp -p tcp -j DNAT --to-destination %s\n", sep, comment("%s", port), ep)
	}
}

// Catalog is the API's picture of these Services; Service changed has so many
// endpoints, the others have all.
func (m Many) Catalog(changed, endpoints int) *service.Catalog {
	c := &service.Catalog{Synced: true, Node: service.Node{Name: "node-a"}, Endpoints: make(map[service.PortName][]service.Endpoint, m.Services)}
	for i := range m.Services {
		p := m.Port(i)
		c.Services = append(c.Services, &service.Service{
			Name: p.Name, Type: "ClusterIP", ClusterIPs: []netip.Addr{m.Address(i).Addr()},
			Ports: []service.Port{{Name: p.Port, Protocol: p.Protocol, Port: m.Address(i).Port()}},
		})
		n := EndpointsEach
		if i == changed {
			n = endpoints
		}
		for e := range n {
			c.Endpoints[p] = append(c.Endpoints[p], service.Endpoint{Addr: m.Endpoint(i, e), Ready: true, Serving: true})
		}
	}
	slices.SortFunc(c.Services, func(a, b *service.Service) int { return a.Name.Compare(b.Name) })
	return c
}
