// SPDX-License-Identifier: Apache-2.0

package correlate

import (
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/svcscope/svcscope/pkg/policy"
)

// DropsReport is what a Snapshot knows of refused packets, with the last events, in
// the shape that the HTTP path /api/v1/drops returns and that `svcscope drops -o json`
// prints. Its JSON names are a contract (docs/api.md).
type DropsReport struct {
	ReportHead
	// Groups are those of NFLOG that events come from, and those that are not read.
	Groups []LogGroupReport `json:"groups"`
	// NoEvents is why no events can come, from a group or the tap; empty where some may.
	NoEvents NoEvents `json:"noEvents,omitempty"`
	// Tap is the agent's own table; nil without one.
	Tap *TapReport `json:"tap,omitempty"`
	// Notes say which refusals are not seen here, and why.
	Notes []string `json:"notes,omitempty"`
	// Rules counts the packets that rules refused, each once, and Policies those of
	// them that rules of network policies refused.
	Rules    []DropTotalReport  `json:"rules"`
	Policies []PolicyDropReport `json:"policies"`
	// Witnessed are packets of which there were events. They are some of Rules' again.
	Witnessed []WitnessedReport `json:"witnessed"`
	// Events are the last ones, the newest last.
	Events []DropEventReport `json:"events"`
}

// LogGroupReport is one group of NFLOG.
type LogGroupReport struct {
	Group uint16        `json:"group"`
	Bound bool          `json:"bound"`
	State LogGroupState `json:"state"`
	Error string        `json:"error,omitempty"` // why it is not read
	// HolderPort is the netlink port of another process that reads it.
	HolderPort uint32 `json:"holderPort,omitempty"`
	// Next is when it is to be read, or that is tried again; nil where no time is known.
	Next *time.Time `json:"next,omitempty"`
	// Rules is how many log to it, as far as they were read.
	Rules int `json:"rules"`
	// Conntrack: packets tell by which address they were sent.
	Conntrack bool   `json:"conntrack"`
	Packets   uint64 `json:"packets"`
	Lost      uint64 `json:"lost"`
}

// TapReport is the state of the agent's own table.
type TapReport struct {
	Active bool   `json:"active"`
	Error  string `json:"error,omitempty"`
	// Group is the one of NFLOG that packets to be refused come by, some of each second.
	Group LogGroupReport `json:"group"`
	// Ways to Services are counted, and Refused are those by which packets are refused; for
	// Left of these there is no room.
	Ways    int `json:"ways"`
	Refused int `json:"refused"`
	Left    int `json:"left,omitempty"`
}

// ObjectReport is a policy, pod or Service; nil in a report where none is told.
type ObjectReport struct {
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
}

// DropTotalReport counts the packets of rules that have all of this in common.
type DropTotalReport struct {
	Reason  string        `json:"reason"`
	Hook    string        `json:"hook"`
	Owner   string        `json:"owner"`
	Service *ObjectReport `json:"service,omitempty"`
	Packets uint64        `json:"packets"`
	Since   *time.Time    `json:"since,omitempty"` // as ServiceReport.Since
}

// PolicyDropReport counts the packets that a policy's or pod's rules refused.
type PolicyDropReport struct {
	Owner     string        `json:"owner"`
	Direction string        `json:"direction,omitempty"`
	Policy    *ObjectReport `json:"policy,omitempty"`
	Pod       *ObjectReport `json:"pod,omitempty"`
	Packets   uint64        `json:"packets"`
}

// WitnessedReport counts events.
type WitnessedReport struct {
	Source  string        `json:"source"`
	Reason  string        `json:"reason"`
	Service *ObjectReport `json:"service,omitempty"`
	Packets uint64        `json:"packets"`
}

// DropEventReport is one packet. Lines of the stream have the same shape; one that
// has Missed alone counts the events that came too fast for the reader.
type DropEventReport struct {
	Time   time.Time `json:"time"`
	Source string    `json:"source"`
	Group  *uint16   `json:"group,omitempty"`
	Hook   string    `json:"hook"`
	// Refused is false where a rule logs the packet and is not known to refuse it.
	Refused   bool          `json:"refused"`
	Reason    string        `json:"reason"`
	Owner     string        `json:"owner"`
	Direction string        `json:"direction,omitempty"`
	Policy    *ObjectReport `json:"policy,omitempty"`
	Pod       *ObjectReport `json:"pod,omitempty"`
	Table     string        `json:"table,omitempty"`
	Chain     string        `json:"chain,omitempty"`
	Prefix    string        `json:"prefix,omitempty"`
	Protocol  string        `json:"protocol,omitempty"`
	From      string        `json:"from,omitempty"` // address:port, or the address alone
	To        string        `json:"to,omitempty"`
	FromPod   *ObjectReport `json:"fromPod,omitempty"`
	ToPod     *ObjectReport `json:"toPod,omitempty"`
	// SentTo is the Service's address by which the packet was sent, where Service is told.
	SentTo  string        `json:"sentTo,omitempty"`
	Service *ObjectReport `json:"service,omitempty"`
	Port    string        `json:"portName,omitempty"`
	In      string        `json:"in,omitempty"`
	Out     string        `json:"out,omitempty"`
	Missed  uint64        `json:"missed,omitempty"`
}

// NewDropsReport formats s and events, each of them with event.
func NewDropsReport(s *Snapshot, events []DropEvent, event func(*DropEvent) DropEventReport) DropsReport {
	r := DropsReport{
		ReportHead: newReportHead(s), NoEvents: noEvents(s), Notes: dropNotes(s),
		Groups: make([]LogGroupReport, 0, len(s.LogGroups)), Rules: make([]DropTotalReport, 0, len(s.Drops)),
		Policies: make([]PolicyDropReport, 0, len(s.PolicyDrops)), Witnessed: make([]WitnessedReport, 0, len(s.Witnessed)),
		Events: make([]DropEventReport, 0, len(events)),
	}
	for i := range s.LogGroups {
		r.Groups = append(r.Groups, s.LogGroups[i].report())
	}
	if t := s.Tap; t != nil {
		r.Tap = &TapReport{Active: t.Active, Error: t.Err, Group: t.Log.report(), Ways: t.Ways, Refused: t.Refused, Left: t.Left}
	}
	for _, d := range s.Drops {
		r.Rules = append(r.Rules, DropTotalReport{
			Reason: d.Reason, Hook: d.Hook, Owner: d.Owner, Service: object(d.Service.Namespace, d.Service.Name),
			Packets: d.Packets, Since: new(d.Created.UTC().Truncate(time.Millisecond)),
		})
	}
	for _, d := range s.PolicyDrops {
		r.Policies = append(r.Policies, PolicyDropReport{
			Owner: d.Owner, Direction: string(d.Direction), Policy: object(d.Policy.Namespace, d.Policy.Name),
			Pod: object(d.Pod.Namespace, d.Pod.Name), Packets: d.Packets,
		})
	}
	for _, d := range s.Witnessed {
		r.Witnessed = append(r.Witnessed, WitnessedReport{
			Source: string(d.Source), Reason: d.Reason, Service: object(d.Service.Namespace, d.Service.Name), Packets: d.Packets,
		})
	}
	for i := range events {
		r.Events = append(r.Events, event(&events[i]))
	}
	return r
}

func (g *LogGroup) report() LogGroupReport {
	return LogGroupReport{
		Group: g.Group, Bound: g.Read(), State: g.State, Error: g.Err, HolderPort: g.Holder, Next: reportTime(g.Next), Rules: g.Rules,
		Conntrack: g.HasFlows, Packets: g.Packets, Lost: g.Lost,
	}
}

// NewDropEventReport formats one event. device names interfaces by their numbers, and mask
// is how addresses are told.
func NewDropEventReport(e *DropEvent, device func(uint32) string, mask *Mask) DropEventReport {
	r := DropEventReport{
		Time: e.Time.UTC().Truncate(time.Microsecond), Source: string(e.Source), Hook: e.Hook, Refused: e.Refused,
		Reason: string(e.Reason), Owner: e.Owner, Direction: string(e.Direction),
		Policy: object(e.Policy.Namespace, e.Policy.Name), Pod: object(e.Pod.Namespace, e.Pod.Name),
		Table: e.Table, Chain: e.Chain, Prefix: e.Prefix, In: device(e.In), Out: device(e.Out),
	}
	if e.Source == SourceNFLOG || e.Source == SourceTap {
		r.Group = new(e.Group)
	}
	if e.Src.IsValid() {
		r.Protocol, r.From, r.To = protocolName(e.Protocol), e.address(e.Src, mask), e.address(e.Dst, mask)
		r.FromPod, r.ToPod = object(e.FromPod.Namespace, e.FromPod.Name), object(e.ToPod.Namespace, e.ToPod.Name)
	}
	if e.HasService() {
		r.Service, r.Port = object(e.Service.Namespace, e.Service.Name.Name), e.Service.Port
		r.SentTo = mask.addrPort(e.Frontend)
	}
	return r
}

// address is one of the packet's, with its port where it has ports.
func (e *DropEvent) address(a netip.AddrPort, mask *Mask) string {
	if e.HasPorts {
		return mask.addrPort(a)
	}
	return mask.addr(a.Addr())
}

func object(namespace, name string) *ObjectReport {
	if name == "" {
		return nil
	}
	return &ObjectReport{Namespace: namespace, Name: name}
}

// protocolName is a protocol of IP in the words of the API, or its number.
func protocolName(n uint8) string {
	const icmp, icmpv6 = 1, 58
	if p := protocolOf(n); p != "" {
		return string(p)
	}
	switch n {
	case icmp:
		return "ICMP"
	case icmpv6:
		return "ICMPv6"
	}
	return strconv.Itoa(int(n))
}

// dropNotes tell of who refuses packets elsewhere than in rules, and of what events lack.
func dropNotes(s *Snapshot) []string {
	var notes []string
	has := make(map[string]bool)
	for _, t := range s.Tables {
		has[t.Owner] = true
	}
	if has[policy.Cilium] {
		notes = append(notes, "Cilium enforces policies in eBPF: what it drops is in no rule here (hubble observe --verdict DROPPED)")
	}
	if has[policy.Antrea] {
		notes = append(notes, "Antrea enforces policies in Open vSwitch: what it drops is in no rule here")
	}
	if has[policy.AWS] {
		notes = append(notes, "the AWS VPC CNI's agent enforces policies in eBPF: what it drops is in no rule here")
	}
	if has[policy.OVN] {
		notes = append(notes, "OVN enforces policies in Open vSwitch: what it drops is in no rule here")
	}
	for _, q := range s.Queues {
		notes = append(notes, "a process decides on the packets of queue "+strconv.Itoa(int(q))+" of NFQUEUE (kube-network-policies and kindnet use 100): what it drops is in no rule here")
	}
	if s.Node.ProxyMode == "nftables" && (s.Tap == nil || !s.Tap.Active) {
		notes = append(notes, "kube-proxy refuses packets in nftables mode without counting them")
	}
	if s.UnnamedDrops > 0 {
		notes = append(notes, strconv.FormatUint(s.UnnamedDrops, 10)+" refused packets are told by neither policy nor pod: this node has more of these than are named")
	}
	if slices.ContainsFunc(s.LogGroups, func(g LogGroup) bool { return g.Read() && !g.HasFlows }) {
		notes = append(notes, "packets that rules log come without their entries of connection tracking (a kernel without CONFIG_NETFILTER_NETLINK_GLUE_CT, "+
			"or nf_conntrack_netlink not loaded): one that was sent on to an endpoint tells no Service")
	}
	return notes
}
