// SPDX-License-Identifier: Apache-2.0

package correlate

import (
	"encoding/binary"
	"hash/maphash"
	"net/netip"
	"slices"

	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/conntrack"
	"github.com/svcscope/svcscope/pkg/service"
)

// Protocol numbers of IANA, of what a Service may have.
const (
	protocolTCP  = 6
	protocolUDP  = 17
	protocolSCTP = 132
)

func protocolOf(n uint8) service.Protocol {
	switch n {
	case protocolTCP:
		return service.TCP
	case protocolUDP:
		return service.UDP
	case protocolSCTP:
		return service.SCTP
	}
	return ""
}

// flowIndex finds whose an entry is.
type flowIndex struct {
	catalog *service.Catalog
	// first has each Service's first row: a port has two, IPv4's and IPv6's.
	first []int32
	rows  []flowPort
	// Keys without pointers, which the garbage collector would follow.
	endpoints map[endpointKey]struct{}
	pods      map[[16]byte]struct{} // addresses of endpoints on this node
	node      map[[16]byte]struct{} // the node's own
	routed    map[[16]byte]struct{} // that have routes of their own
}

// flowPort is one port of a Service in one family.
type flowPort struct {
	name      service.PortName
	family    Family
	endpoints []service.Endpoint // sorted by address
}

type endpointKey struct {
	addr [16]byte
	port uint16
}

func newFlowIndex(c *service.Catalog) *flowIndex {
	x := &flowIndex{catalog: c, endpoints: make(map[endpointKey]struct{}), pods: make(map[[16]byte]struct{})}
	ports := 0
	for _, svc := range c.Services {
		ports += len(svc.Ports)
	}
	x.first, x.rows = make([]int32, 0, len(c.Services)), make([]flowPort, 0, 2*ports)
	for _, svc := range c.Services {
		x.first = append(x.first, int32(len(x.rows)))
		for i := range svc.Ports {
			name := svc.PortName(&svc.Ports[i])
			for _, f := range []Family{netfilter.IPv4, netfilter.IPv6} {
				row := flowPort{name: name, family: f, endpoints: c.EndpointsOf(name, f == netfilter.IPv6)}
				x.rows = append(x.rows, row)
				x.enter(row.endpoints)
			}
		}
	}
	return x
}

func (x *flowIndex) enter(endpoints []service.Endpoint) {
	for i := range endpoints {
		e := &endpoints[i]
		addr := e.Addr.Addr().As16()
		x.endpoints[endpointKey{addr, e.Addr.Port()}] = struct{}{}
		if x.local(e) { // a pod in the node's network has the node's address
			x.pods[addr] = struct{}{}
		}
	}
}

// local reports whether an endpoint is on this node.
func (x *flowIndex) local(e *service.Endpoint) bool {
	return e.NodeName != "" && e.NodeName == x.catalog.Node.Name
}

// redirected reports whether the answer comes from elsewhere than the first packet
// went. Of IPVS that is all that tells: it sets no bit of status. ICMP's identifier is
// the port of whoever sends.
func redirected(f *conntrack.Flow) bool {
	from, to := f.Reply.Src, f.Orig.Dst
	return f.Status.Has(conntrack.DstNAT) || from != to && (to.Port() != 0 || from.Addr() != to.Addr())
}

// service returns the row of the port by whose address an entry came, or -1.
func (x *flowIndex) service(f *conntrack.Flow) int {
	if !redirected(f) {
		return -1
	}
	return x.find(f.Orig.Dst, f.Protocol)
}

// find returns the row of the port that is reached by an address, or -1. A node port
// is on the node's own addresses, where these are known.
func (x *flowIndex) find(a netip.AddrPort, protocol uint8) int {
	m, ok := reached(x.catalog, a, protocol, func(a netip.Addr) bool { return len(x.node) == 0 || x.own(a) })
	if !ok {
		return -1
	}
	row := int(x.first[m.At]) + 2*m.PortAt
	if a.Addr().Is6() {
		row++
	}
	return row
}

// reached returns the port that is reached by an address; a node port where own says
// so of it.
func reached(c *service.Catalog, a netip.AddrPort, protocol uint8, own func(netip.Addr) bool) (service.Match, bool) {
	p := protocolOf(protocol)
	m, ok := c.ByAddr(a, p)
	if !ok && own(a.Addr()) {
		m, ok = c.ByNodePort(a.Port(), p)
	}
	return m, ok
}

// endpoint returns the port's endpoint of that address, or nil.
func (p *flowPort) endpoint(a netip.AddrPort) *service.Endpoint {
	i, ok := slices.BinarySearchFunc(p.endpoints, a, func(e service.Endpoint, a netip.AddrPort) int {
		return e.Addr.Compare(a)
	})
	if !ok {
		return nil
	}
	return &p.endpoints[i]
}

// owner tells what an entry without a Service's address is there for.
func (x *flowIndex) owner(src, dst netip.AddrPort) Owner {
	if _, ok := x.endpoints[endpointKey{dst.Addr().As16(), dst.Port()}]; ok {
		return OwnerEndpoint
	}
	if x.own(src.Addr()) {
		return OwnerNode
	}
	if x.pod(src.Addr()) {
		return OwnerPod
	}
	if x.own(dst.Addr()) {
		return OwnerNode
	}
	return OwnerUnknown
}

// pod reports whether an address is that of a pod here: of an endpoint, with a route
// of its own, or in the ranges that the API has for the node, which not all network
// plugins keep to.
func (x *flowIndex) pod(a netip.Addr) bool {
	_, endpoint := x.pods[a.As16()]
	_, routed := x.routed[a.As16()]
	return endpoint || routed || within(x.catalog.Node.PodRanges, a)
}

func within(ranges []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(ranges, func(r netip.Prefix) bool { return r.Contains(a) })
}

// own reports whether an address is the node's own.
func (x *flowIndex) own(a netip.Addr) bool {
	_, ok := x.node[a.As16()]
	return ok || a.IsLoopback()
}

// setNode notes the node's own addresses and those with routes of their own.
func (x *flowIndex) setNode(local, routed []netip.Addr) {
	x.node, x.routed = addrSet(local, x.catalog.Node.IPs), addrSet(routed)
}

func addrSet(lists ...[]netip.Addr) map[[16]byte]struct{} {
	set := make(map[[16]byte]struct{})
	for _, list := range lists {
		for _, a := range list {
			set[a.As16()] = struct{}{}
		}
	}
	return set
}

// FlowFinder tells of which Service port entries are.
type FlowFinder struct{ index *flowIndex }

// NewFlowFinder knows what entries are held against: the Services of the catalog,
// without a synced one those that the rows show.
func NewFlowFinder(in FlowInputs) *FlowFinder {
	f := &FlowFinder{newFlowIndex(flowCatalog(in.Catalog, in.Rows))}
	f.index.setNode(in.Local, in.Routed)
	return f
}

// Find returns the port by whose address the entry came, and the endpoint that
// it goes to, nil where that is none of the port; false for an entry of no
// Service.
func (f *FlowFinder) Find(flow *conntrack.Flow) (service.PortName, *service.Endpoint, bool) {
	row := f.index.service(flow)
	if row < 0 {
		return service.PortName{}, nil, false
	}
	p := &f.index.rows[row]
	return p.name, p.endpoint(flow.Reply.Src), true
}

// Has reports whether there is a port of that name; an empty port is any.
func (f *FlowFinder) Has(name service.Name, port string) bool {
	return slices.ContainsFunc(f.index.rows, func(p flowPort) bool {
		return p.name.Name == name && (port == "" || p.name.Port == port)
	})
}

func flowCatalog(c *service.Catalog, rows []*ServicePort) *service.Catalog {
	if c == nil || !c.Synced {
		return catalogOf(rows)
	}
	return c
}

var digestSeed = maphash.MakeSeed()

// frontendsDigest is a hash of what catalogOf takes of the rows; never 0.
func frontendsDigest(rows []*ServicePort) uint64 {
	var h maphash.Hash
	h.SetSeed(digestSeed)
	put := func(a netip.Addr, numbers ...uint16) {
		b := a.As16()
		_, _ = h.Write(b[:])
		for _, n := range numbers {
			_, _ = h.Write(binary.NativeEndian.AppendUint16(nil, n))
		}
	}
	for _, p := range rows {
		for _, s := range [...]string{p.Port.Namespace, p.Port.Name.Name, p.Port.Port, string(p.Port.Protocol)} {
			_, _ = h.WriteString(s)
			_ = h.WriteByte(0)
		}
		put(p.ClusterIP, p.Number, p.NodePort, uint16(p.Family))
		for _, e := range p.Endpoints {
			if e.InKernel {
				put(e.Addr.Addr(), e.Addr.Port())
			}
		}
	}
	return h.Sum64() | 1
}

// catalogOf is what the rules show of Services, for where the API is not known:
// cluster addresses, node ports and endpoints.
func catalogOf(rows []*ServicePort) *service.Catalog {
	c := &service.Catalog{Endpoints: make(map[service.PortName][]service.Endpoint, len(rows))}
	var svc *service.Service
	for _, p := range rows {
		if svc == nil || svc.Name != p.Port.Name {
			svc = &service.Service{Name: p.Port.Name}
			c.Services = append(c.Services, svc)
		}
		if p.ClusterIP.IsValid() && !slices.Contains(svc.ClusterIPs, p.ClusterIP) {
			svc.ClusterIPs = append(svc.ClusterIPs, p.ClusterIP)
		}
		port := service.Port{Name: p.Port.Port, Protocol: p.Port.Protocol, Port: p.Number, NodePort: p.NodePort}
		if !slices.Contains(svc.Ports, port) {
			svc.Ports = append(svc.Ports, port)
		}
		if all := slices.Grow(c.Endpoints[p.Port], len(p.Endpoints)); cap(all) > 0 {
			for _, e := range p.Endpoints {
				if e.InKernel {
					all = append(all, service.Endpoint{Addr: e.Addr})
				}
			}
			c.Endpoints[p.Port] = all
		}
	}
	for _, all := range c.Endpoints {
		slices.SortFunc(all, func(a, b service.Endpoint) int { return a.Addr.Compare(b.Addr) })
	}
	return c
}
