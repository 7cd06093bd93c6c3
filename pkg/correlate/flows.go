// SPDX-License-Identifier: Apache-2.0

package correlate

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"github.com/svcscope/svcscope/pkg/service"
)

// Flows is what one reading of the connection-tracking table held, entry by
// entry. The entries of Owners sum to Entries, and so do those of States.
type Flows struct {
	Time     time.Time     // when the reading began
	Duration time.Duration // how long it took
	Interval time.Duration // from one reading's begin to the next one's
	Entries  uint64        // that were read and decoded
	// Owners is by Owner.
	Owners [NumOwners]uint64
	// States is sorted by protocol and state; only what there is.
	States []StateEntries
	// Services has those with entries, sorted by port and family.
	Services []ServiceFlows
	// Ports has the busiest ranges of source ports, the busiest first.
	Ports []PortUse
}

// Owner is what an entry of the table is there for.
type Owner uint8

// The owners. An entry has the first one that it fits.
const (
	// OwnerService: sent to an endpoint by a Service's address on this node.
	OwnerService Owner = iota
	// OwnerRedirected: sent elsewhere than its destination, and not by a Service that
	// is there now: a port of the host, another tool's rule, a Service that was
	// deleted while its clients went on.
	OwnerRedirected
	// OwnerEndpoint: its destination is an endpoint of some Service, without
	// NAT here: another node sent it, or a client that knows the endpoint.
	OwnerEndpoint
	// OwnerPod: from a pod of this node to anywhere else.
	OwnerPod
	// OwnerNode: from or to an address of this node itself.
	OwnerNode
	// OwnerUnknown is the rest.
	OwnerUnknown
	NumOwners = 6
)

// String is the value of the label owner.
func (o Owner) String() string {
	return [NumOwners]string{"service", "redirected", "endpoint", "pod", "node", "unknown"}[o]
}

// StateEntries counts the entries of one protocol in one state.
type StateEntries struct {
	Protocol string // tcp, udp, sctp, icmp, icmpv6, other
	State    string // as conntrack -L, in lower case; replied or unreplied where a protocol has none
	Entries  uint64
}

// ServiceFlows counts the entries of a Service port in one family.
type ServiceFlows struct {
	Port   service.PortName
	Family Family
	// Each entry is in one of these.
	Replied   uint64 // answered, and not on its way out
	Unreplied uint64 // nothing came back
	Closing   uint64 // past the exchange of data: it goes with its timeout
	// Stale counts entries toward an address that has been no endpoint of the
	// port for longer than the grace; not those that are closing.
	Stale uint64
	// Entries toward an endpoint that have not been answered, by where that is;
	// one whose node is not known counts as remote.
	UnansweredLocal, UnansweredRemote uint64
}

// busiest returns the Services, those with most entries first.
func (f *Flows) busiest() []ServiceFlows {
	all := slices.Clone(f.Services)
	slices.SortStableFunc(all, func(a, b ServiceFlows) int { return cmp.Compare(b.Entries(), a.Entries()) })
	return all
}

// Entries is the number of all entries of the port.
func (s *ServiceFlows) Entries() uint64 { return s.Replied + s.Unreplied + s.Closing }

func (s *ServiceFlows) add(n *ServiceFlows) {
	s.Replied += n.Replied
	s.Unreplied += n.Unreplied
	s.Closing += n.Closing
	s.Stale += n.Stale
	s.UnansweredLocal += n.UnansweredLocal
	s.UnansweredRemote += n.UnansweredRemote
}

// PortUse is how many source ports masqueraded flows, and the node's own, take
// toward one destination. Only flows that agree in all of these compete for a
// port.
type PortUse struct {
	Protocol    service.Protocol
	Source      netip.Addr // that the flows were given
	Destination netip.AddrPort
	// Used is at least the true number less one in four thousand of all such
	// flows.
	Used uint64
}

// SourcePorts is how many ports masquerading takes from, 1024 to 65535
// (nf_nat_l4proto_unique_tuple in net/netfilter/nf_nat_core.c).
const SourcePorts = 65536 - 1024

// Pressure is the share of SourcePorts in use, 0 to 1.
func (p *PortUse) Pressure() float64 { return min(1, float64(p.Used)/SourcePorts) }
