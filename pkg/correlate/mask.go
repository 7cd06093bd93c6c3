// SPDX-License-Identifier: Apache-2.0

package correlate

import (
	"fmt"
	"net/netip"
	"strconv"

	"github.com/svcscope/svcscope/pkg/service"
)

// Mask is how addresses of packets are told. A nil one tells all of them whole; others
// tell those whole that are of a pod, of this node or of a Service, and of the rest the
// network alone: 10.1.2.x of IPv4, 2001:db8:1::x of IPv6. It does not change.
type Mask struct {
	known map[[16]byte]struct{}
	pods  *service.Pods
	// ranges are those of this node's pods.
	ranges []netip.Prefix
}

// NewMask knows the addresses of the node, of its pods as far as they are known, of
// Services and of their endpoints.
func NewMask(in FlowInputs) *Mask {
	c := flowCatalog(in.Catalog, in.Rows)
	m := &Mask{known: addrSet(in.Local, in.Routed, c.Node.IPs), pods: in.Pods, ranges: c.Node.PodRanges}
	for _, svc := range c.Services {
		for _, addrs := range [...][]netip.Addr{svc.ClusterIPs, svc.ExternalIPs, svc.LoadBalancerIPs} {
			for _, a := range addrs {
				m.known[a.As16()] = struct{}{}
			}
		}
		for i := range svc.Ports {
			name := svc.PortName(&svc.Ports[i])
			m.enter(c.EndpointsOf(name, false))
			m.enter(c.EndpointsOf(name, true))
		}
	}
	return m
}

func (m *Mask) enter(endpoints []service.Endpoint) {
	for i := range endpoints {
		m.known[endpoints[i].Addr.Addr().As16()] = struct{}{}
	}
}

// hides reports whether an address is not told whole.
func (m *Mask) hides(a netip.Addr) bool {
	if m == nil || !a.IsValid() || a.IsLoopback() {
		return false
	}
	_, known := m.known[a.As16()]
	return !known && !within(m.ranges, a) && m.pods.ByAddr(a) == nil
}

// addr is an address as it is told.
func (m *Mask) addr(a netip.Addr) string {
	if !m.hides(a) {
		return a.String()
	}
	const bits6 = 48
	if a = a.Unmap().WithZone(""); a.Is4() {
		b := a.As4()
		return fmt.Sprintf("%d.%d.%d.x", b[0], b[1], b[2])
	}
	network, _ := a.Prefix(bits6)
	return network.Addr().String() + "x" // it ends with ::
}

// addrPort is an address with its port, which is told in any case.
func (m *Mask) addrPort(a netip.AddrPort) string {
	if !m.hides(a.Addr()) {
		return a.String()
	}
	text, port := m.addr(a.Addr()), strconv.Itoa(int(a.Port()))
	if a.Addr().Unmap().Is6() {
		return "[" + text + "]:" + port
	}
	return text + ":" + port
}
