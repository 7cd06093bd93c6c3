// SPDX-License-Identifier: Apache-2.0

// Package syncrules writes what kube-proxy gives to iptables-restore
// --noflush --counters, for tests that need many Services or many syncs.
package syncrules

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/svcscope/svcscope/pkg/kubeproxy"
	"github.com/svcscope/svcscope/pkg/service"
)

// Services are so many Services of so many endpoints each, in IPv4.
type Services struct {
	Number    int
	Endpoints int
	// Large leaves out the comments of the Services' own chains, as
	// kube-proxy does above 1,000 endpoints.
	Large bool
}

// Port names the i-th Service's port.
func (s Services) Port(i int) service.PortName {
	return service.PortName{Name: service.Name{Namespace: "bench", Name: fmt.Sprintf("svc-%d", i)}, Port: "http", Protocol: service.TCP}
}

// VIP is the i-th Service's cluster address; its port is 80.
func (s Services) VIP(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, 96, byte(i >> 8), byte(i)})
}

// Endpoint is an endpoint of the i-th Service; version gives others.
func (s Services) Endpoint(i, e, version int) netip.AddrPort {
	n := i*s.Endpoints + e
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(100 + n>>16), byte(n >> 8), byte(n)}), uint16(8080+version))
}

// Full is a first sync: all Services, and the jumps from the built-in chains.
func (s Services) Full() string {
	w := s.begin()
	w.line("-A PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES")
	w.line("-A OUTPUT -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES")
	for i := range s.Number {
		w.service(i, 0)
	}
	return w.text()
}

// Sync is the sync that follows a change of the i-th Service's endpoints: the
// tables that every sync rewrites, and that Service's chains.
func (s Services) Sync(i, version int) string {
	w := s.begin()
	w.service(i, version)
	return w.text()
}

type writer struct {
	s             Services
	chains, rules strings.Builder
}

// begin writes what every sync has: filter, and the chains of nat that are not
// of one Service.
func (s Services) begin() *writer {
	w := &writer{s: s}
	for _, c := range []string{"KUBE-SERVICES", "KUBE-NODEPORTS", "KUBE-POSTROUTING", "KUBE-MARK-MASQ"} {
		w.chain(c)
	}
	w.line("-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000")
	w.line("-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN")
	for i := range s.Number {
		p := s.Port(i)
		w.line("-A KUBE-SERVICES -m comment --comment \"%s cluster IP\" -m tcp -p tcp -d %s --dport 80 -j %s", p, s.VIP(i), kubeproxy.ServiceChain(p))
	}
	return w
}

func (w *writer) service(i, version int) {
	p := w.s.Port(i)
	svc := kubeproxy.ServiceChain(p)
	w.chain(svc)
	w.line("-A %s -m comment --comment \"%s cluster IP\" -m tcp -p tcp -d %s --dport 80 ! -s 10.0.0.0/8 -j KUBE-MARK-MASQ", svc, p, w.s.VIP(i))
	for e := range w.s.Endpoints {
		ep := w.s.Endpoint(i, e, version)
		sep := kubeproxy.EndpointChain(p, ep)
		share, arrow, own := "", "", ""
		if left := w.s.Endpoints - e; left > 1 {
			share = fmt.Sprintf("-m statistic --mode random --probability %0.10f ", 1/float64(left))
		}
		if !w.s.Large {
			arrow, own = fmt.Sprintf("-m comment --comment \"%s -> %s\" ", p, ep), fmt.Sprintf("-m comment --comment %s ", p)
		}
		w.chain(sep)
		w.line("-A %s %s%s-j %s", svc, arrow, share, sep)
		w.line("-A %s %s-s %s -j KUBE-MARK-MASQ", sep, own, ep.Addr())
		w.line("-A %s %s-m tcp -p tcp -j DNAT --to-destination %s", sep, own, ep)
	}
}

func (w *writer) chain(name string) { fmt.Fprintf(&w.chains, ":%s - [0:0]\n", name) }

func (w *writer) line(format string, args ...any) { fmt.Fprintf(&w.rules, format+"\n", args...) }

func (w *writer) text() string {
	const filter = `*filter
:KUBE-SERVICES - [0:0]
:KUBE-EXTERNAL-SERVICES - [0:0]
:KUBE-FORWARD - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-PROXY-FIREWALL - [0:0]
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
-A KUBE-FORWARD -m comment --comment "kubernetes forwarding rules" -m mark --mark 0x4000/0x4000 -j ACCEPT
COMMIT
`
	return filter + "*nat\n" + w.chains.String() + w.rules.String() + "COMMIT\n"
}
