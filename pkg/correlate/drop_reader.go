// SPDX-License-Identifier: Apache-2.0

package correlate

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/nflog"
	"github.com/svcscope/svcscope/pkg/policy"
	"github.com/svcscope/svcscope/pkg/service"
)

// FamilyLogger is a rule that logs packets, of one family's rules.
type FamilyLogger struct {
	Family Family
	policy.Logger
}

// DropReader tells what logged packets are. It is for one goroutine.
type DropReader struct {
	loggers []FamilyLogger
	catalog *service.Catalog
	node    map[[16]byte]struct{} // the node's own addresses
	pods    *service.Pods
	// policies are looked through only where a prefix is a hash.
	policies *service.Policies
	// What packets of one shape are, by what they have in common. Only rules give
	// prefixes, so that these are few; more than maxShapes are not remembered.
	shapes map[packetShape]*DropRule
	tap    *TapPlan // of packets that a tap has logged; nil: of others
}

// packetShape is all of a packet that tells which rule may have logged it.
type packetShape struct {
	group  uint16
	family netfilter.Family
	hook   netfilter.Hook
	prefix string
}

const maxShapes = 4096

// passes is of packets whose rule lets them pass, and says so.
var passes = &DropRule{}

// NewDropReader knows the rules that log, the Services as a FlowFinder does, and the pods
// and policies that are watched.
func NewDropReader(loggers []FamilyLogger, in FlowInputs) *DropReader {
	r := &DropReader{
		loggers: loggers, catalog: flowCatalog(in.Catalog, in.Rows), pods: in.Pods, policies: in.Policies,
		shapes: make(map[packetShape]*DropRule),
	}
	r.node = addrSet(in.Local, r.catalog.Node.IPs)
	return r
}

// NewTapReader knows the packets that a tap has logged.
func NewTapReader(plan *TapPlan, in FlowInputs) *DropReader {
	r := NewDropReader(nil, in)
	r.tap = plan
	return r
}

// Read sets e to what a packet says that has come at a time. It returns false for one
// that its rule lets pass.
func (r *DropReader) Read(p *nflog.Packet, now time.Time, e *DropEvent) bool {
	if r.tap != nil {
		return r.readTapped(p, now, e)
	}
	rule := r.shapes[packetShape{p.Group, p.Family, p.Hook, string(p.Prefix)}]
	if rule == nil {
		rule = r.learn(packetShape{p.Group, p.Family, p.Hook, string(p.Prefix)})
	}
	if rule == passes {
		return false
	}
	e.set(p, now, rule)
	r.namePods(e, p)
	if p.HasFlow {
		r.sentTo(e, p.Flow.Orig.Dst, p.Flow.Protocol)
	} else if e.HasPorts {
		r.sentTo(e, e.Dst, e.Protocol)
	}
	return true
}

// TapRangesPrefix is the prefix of packets that a tap has logged on account of their source.
const TapRangesPrefix = "svcscope:ranges"

// readTapped is Read of a packet that a tap has logged: the way that it came by tells the
// rule. It returns false for one by whose way nothing is refused any more.
func (r *DropReader) readTapped(p *nflog.Packet, now time.Time, e *DropEvent) bool {
	e.set(p, now, nil)
	f, ok := r.tap.refused(e.Dst, e.Protocol, string(p.Prefix) == TapRangesPrefix)
	if !ok || !e.HasPorts {
		return false
	}
	e.DropRule = f.dropRule(p.Group, hookName(p.Hook))
	e.Service, e.Frontend = f.Port, e.Dst
	r.namePods(e, p)
	return true
}

// set begins an event with what a packet itself says.
func (e *DropEvent) set(p *nflog.Packet, now time.Time, rule *DropRule) {
	*e = DropEvent{Time: now, DropRule: rule, In: p.In, Out: p.Out}
	if p.Time != 0 {
		e.Time = time.UnixMicro(p.Time)
	}
	e.Headers, _ = nflog.ParseHeaders(p.Payload) // what is cut is not told
}

func hookName(h netfilter.Hook) string { return strings.ToLower(h.String()) }

// sentTo sets the Service that has an address, if one has.
func (r *DropReader) sentTo(e *DropEvent, a netip.AddrPort, protocol uint8) {
	if m, ok := reached(r.catalog, a, protocol, r.own); ok {
		e.Service, e.Frontend = m.PortName(), a
	}
}

func (r *DropReader) own(a netip.Addr) bool {
	_, ok := r.node[a.As16()]
	return ok || a.IsLoopback()
}

// learn finds out of which rule packets of a shape are.
func (r *DropReader) learn(s packetShape) *DropRule {
	rule := r.ruleOf(s)
	if len(r.shapes) < maxShapes {
		r.shapes[s] = rule
	}
	return rule
}

func (r *DropReader) ruleOf(s packetShape) *DropRule {
	rule := &DropRule{
		Source: SourceNFLOG, Group: s.group, Hook: hookName(s.hook), Prefix: s.prefix,
		Refuser: policy.Refuser{Owner: policy.Other, Reason: policy.ByRule},
	}
	may := r.candidates(s)
	if len(may) == 1 {
		rule.Table, rule.Chain = may[0].Table, may[0].Chain
	}
	if l, ok := policy.ParseLogged(s.prefix); ok {
		if rule.Refuser, rule.Refused = l.Refuser(); !rule.Refused {
			return passes
		}
		if len(may) == 1 {
			rule.Pod, rule.Interface = may[0].Refuser.Pod, may[0].Refuser.Interface
		}
		if l.Hashed {
			rule.Policy, _ = policy.Unhash(s.prefix, r.policies.All())
		}
	} else if len(may) > 0 {
		rule.Refuser, rule.Refused = together(may)
	}
	if rule.Pod == (policy.Object{}) {
		rule.Pod = podObject(r.pods.ByInterface(rule.Interface))
	}
	return rule
}

// candidates are the rules that may have logged such a packet.
func (r *DropReader) candidates(s packetShape) []*FamilyLogger {
	var all []*FamilyLogger
	for i := range r.loggers {
		l := &r.loggers[i]
		ofFamily := l.Family == s.family || l.Family == netfilter.FamilyINet
		if l.Group == s.group && ofFamily && l.Prefix == s.prefix && (l.Hooks == 0 || l.Hooks.Has(s.hook)) {
			all = append(all, l)
		}
	}
	return all
}

// together is what rules have in common of which any may have logged a packet: it is
// refused where all refuse what they log.
func together(may []*FamilyLogger) (policy.Refuser, bool) {
	f := may[0].Refuser
	for _, l := range may[1:] {
		if l.Refuser.Owner != f.Owner {
			f.Owner = policy.Other
		}
		if l.Refuser.Reason != f.Reason {
			f.Reason = policy.ByRule
		}
		if l.Refuser.Direction != f.Direction {
			f.Direction = ""
		}
		if l.Refuser.Policy != f.Policy {
			f.Policy = policy.Object{}
		}
		if l.Refuser.Pod != f.Pod {
			f.Pod = policy.Object{}
		}
		if l.Refuser.Interface != f.Interface {
			f.Interface = ""
		}
	}
	if refused := !slices.ContainsFunc(may, func(l *FamilyLogger) bool { return !l.Refuses }); refused {
		return f, true
	}
	return policy.Refuser{Owner: ownerOf(may), Reason: policy.ByRule}, false
}

// ownerOf is whose rules they are.
func ownerOf(may []*FamilyLogger) string {
	owner := policy.Owner(may[0].Chain)
	for _, l := range may[1:] {
		if policy.Owner(l.Chain) != owner {
			return policy.Other
		}
	}
	return owner
}
