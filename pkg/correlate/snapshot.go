// SPDX-License-Identifier: Apache-2.0

package correlate

import (
	"net/netip"
	"time"

	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/ruleset"
	"github.com/svcscope/svcscope/pkg/service"
)

// Snapshot is what svcscope knows about its node at one time. It is never
// changed once built; slices and maps in it are shared.
type Snapshot struct {
	Time time.Time
	Node NodeInfo
	// Kube tells whether names come from the API.
	Kube KubeState
	// Services has one element a Service port and IP family, sorted by
	// name, port, protocol and family. A row is never changed: one that the
	// snapshot before has too, by its pointer, says the same.
	Services []*ServicePort
	// Other sums what the series cap leaves out of Services' totals.
	Other    []OtherTotal
	Tables   []TableSize
	Dispatch []DispatchSize
	Changes  []RulesetChanges
	// Conntrack is nil while conntrack could not be read, and Flows before its
	// entries were, or where they are not.
	Conntrack *Conntrack
	Flows     *Flows
	// Counting says how the numbers of this node are made; Exact and Blind
	// how sure the totals are.
	Counting []CountingMethod
	Exact    []LedgerExact
	Blind    []BlindTime
	// Drops are packets refused by rules, each once, and PolicyDrops those of them
	// that rules of network policies refused. Further UnnamedDrops are told by neither policy
	// nor pod, as those that are told are so many.
	Drops        []DropTotal
	PolicyDrops  []PolicyDropTotal
	UnnamedDrops uint64
	// Witnessed is what NFLOG has shown of packets refused, and LogGroups where from, with
	// those that rules log to and that are not read.
	Witnessed []WitnessedDrops
	LogGroups []LogGroup
	// NoGroups is why LogGroups has none.
	NoGroups NoEvents
	// Queues of NFQUEUE are read by a process, which decides on their packets.
	Queues []uint16
	// Tap is nil without one.
	Tap *Tap
	// Drift is nil before rules were compared with the API.
	Drift *Drift
	// Lock is nil where the xtables lock file is not watched.
	Lock *LockTime
	Self Self
}

// NodeInfo is what node_info tells.
type NodeInfo struct {
	Name      string
	ProxyMode string // iptables, nftables, ipvs, none, unknown
	Backend   string // legacy, nft, "legacy,nft" where both hold KUBE chains, or empty
	Kernel    string // uname -r
}

// KubeState is the state of the API watch.
type KubeState struct {
	Enabled bool // false with --kube=never
	Synced  bool // a complete list has arrived
	// NodeMissing is true where the API has no Node of this node's name:
	// endpoints that depend on the node are then not known.
	NodeMissing bool
	// Err is why the API is not followed or, with NodeMissing, what is
	// wrong with the name.
	Err string
}

// Family is the IP family of a Service's series.
type Family = netfilter.Family

// ServicePort is one port of a Service in one family.
type ServicePort struct {
	Port   service.PortName
	Family Family

	// From the API; without it Type is empty, and the others are what the
	// rules show.
	Type      string
	ClusterIP netip.Addr
	Number    uint16
	NodePort  uint16

	// Exposed is false for a Service above the series cap: its totals are
	// in Snapshot.Other and its gauges are folded likewise.
	Exposed bool
	// Totals only grow; they start at 0 at Created.
	Created     time.Time
	Cluster     uint64
	External    uint64
	Rejected    map[Reason]uint64 // only reasons that were seen
	Endpoints   []Endpoint        // those in the kernel's rules, then those that only the API has
	Rules       map[string]int    // by table
	APICount    int               // endpoints expected on this node; -1 when unknown: no API, or no Node
	KernelCount int               // endpoints present in its rules; -1 when unknown
	// Uncounted is true where the node's proxy mode gives no numbers, or its
	// rules were never read: the totals are then not 0 but unknown.
	Uncounted bool
	// SinceRule is true where the numbers are the rules' own counters (one
	// reading without an agent): connections since the rule was written.
	SinceRule bool
}

// Connections returns all connections of the port.
func (s *ServicePort) Connections() uint64 { return s.Cluster + s.External }

// Endpoint is one endpoint of a Service port on this node.
type Endpoint struct {
	Addr        netip.AddrPort
	InAPI       bool
	InKernel    bool
	Connections uint64
	Created     time.Time
}

// Reason is why kube-proxy's rules refuse a packet.
type Reason string

// The reasons, as in the label reason of svcscope_service_rejected_packets_total.
const (
	NoEndpoints      Reason = "no_endpoints"
	NoLocalEndpoints Reason = "no_local_endpoints"
	SourceRange      Reason = "source_range"
)

// OtherTotal is what Services above the cap have counted, by protocol and family.
type OtherTotal struct {
	Protocol    service.Protocol
	Family      Family
	Created     time.Time
	Cluster     uint64
	External    uint64
	Rejected    map[Reason]uint64
	Rules       map[string]int
	APICount    int
	KernelCount int
	Flows       ServiceFlows // without a port's name
	Services    int          // Services folded here now
	Uncounted   bool         // as ServicePort.Uncounted
}

// TableSize counts the rules and chains of one owner in one table.
type TableSize struct {
	Backend ruleset.Backend
	Family  Family
	Table   string
	Owner   string // kube-proxy, kubelet, calico, ..., other
	Rules   int
	Chains  int
}

// DispatchSize is the length of nat KUBE-SERVICES.
type DispatchSize struct {
	Backend ruleset.Backend
	Family  Family
	Rules   int
}

// RulesetChanges counts the commits seen.
type RulesetChanges struct {
	Backend ruleset.Backend
	Family  Family // 0 for nf_tables, whose generation is the namespace's
	Writer  string // unknown unless listening
	Total   uint64
	Created time.Time
	Last    time.Time // zero: none seen since start
}

// Conntrack is the state of the connection-tracking table.
type Conntrack struct {
	Entries uint64
	Peak    uint64 // highest count of the last minute
	Limit   uint64
	Buckets uint64
	Stats   ConntrackStats
	// TimeToFull is the forecast of when Entries reaches Limit, where Filling.
	TimeToFull time.Duration
	Filling    bool
	// Losses is by LossCause, since LossesSince; that is zero where the
	// statistics were never read.
	Losses      [NumLossCauses]uint64
	LossesSince time.Time
}

// ConntrackStats sums the kernel's per-CPU statistics of this namespace, which
// are 32 bits wide there and widened to 64 here. A nil pointer is a statistic this kernel does not have.
type ConntrackStats struct {
	Found, Invalid, InsertFailed, Drop, EarlyDrop, Error, SearchRestart *uint64
	ClashResolve                                                        *uint64 // Linux 5.10
	ChainTooLong                                                        *uint64 // Linux 5.15
}

// CountingMethod is one row of svcscope_counting_method.
type CountingMethod struct {
	What   string // connections, refusals
	Method string // rules, notices, tap, events, none
}

// LedgerExact tells whether only packets in flight at a rewrite can be missing
// from the totals of one backend and family.
type LedgerExact struct {
	Backend ruleset.Backend
	Family  Family
	Exact   bool
}

// BlindTime sums, for one table, the times between a last reading of rules and
// the rewrite that took their counters away: what such rules counted in that
// time is lost.
type BlindTime struct {
	Backend ruleset.Backend
	Family  Family
	Table   string
	Total   time.Duration
	Created time.Time
}

// LockTime is how long the xtables lock file was open in any process: waiting
// for the lock, or holding it.
type LockTime struct {
	Open    time.Duration
	Created time.Time
}

// Self is the agent's account of itself.
type Self struct {
	// Started is when the agent's own totals began to count; zero: unknown.
	Started    time.Time
	Collectors []CollectorState
	Undecoded  map[string]uint64 // by kind: match/NAME, target/NAME, expression/NAME, ...
	EventsLost map[string]uint64 // by source
	// SeriesLimit is --metrics.max-services; SeriesDropped counts Services
	// folded into _other since the start.
	SeriesLimit   int
	SeriesDropped uint64
	Reads         []KernelReads
}

// KernelReads is what a collector has taken from the kernel since Started.
type KernelReads struct {
	Collector   string // nftables, legacy, conntrack
	Bytes       uint64
	Messages    uint64 // netlink messages, or calls of getsockopt
	Interrupted uint64 // readings that a change of the rules spoiled
}

// CollectorState tells how the last reading of one source went.
type CollectorState struct {
	Name        string // nftables, legacy, conntrack, kube
	Success     bool
	Duration    time.Duration // of the last reading; 0 for what is followed, not read
	LastSuccess time.Time     // zero: never
	Err         string
	// Denied is true where it fails because the process was started without
	// CAP_NET_ADMIN: neither a retry nor a restart changes that.
	Denied bool
}
