// SPDX-License-Identifier: Apache-2.0

package kubeproxy

import (
	"net/netip"
	"slices"

	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/ruleset"
	"github.com/svcscope/svcscope/pkg/service"
)

// nativeCommentMax is from where on the comment of an element may lack its end
// (knftables.CommentLengthMax).
const nativeCommentMax = 128

// dispatch reads the maps by which packets come to Services' chains, or are refused: those
// that chains look packets up in which the kernel calls, or that such lead to.
func (b *nativeBuilder) dispatch() {
	for _, c := range b.table.Chains {
		if OfService(c.Name) {
			continue
		}
		if c.Name == nativeServices {
			b.dispatches(c)
		}
		for i := range c.Rules {
			if r := &c.Rules[i]; r.Action.Kind == ruleset.Map && b.reach[c] != 0 && !toLoopback(r) {
				b.lookUp(c, i)
			}
		}
	}
	b.balancers()
}

// dispatches notes a chain that sends packets to Services' chains.
func (b *nativeBuilder) dispatches(c *ruleset.Chain) {
	b.Present, b.DispatchRules = true, len(c.Rules)
	b.Prerouting = b.Prerouting || b.reach[c].Has(netfilter.HookPrerouting)
	b.Output = b.Output || b.reach[c].Has(netfilter.HookOutput)
}

// toLoopback reports whether a rule is for node ports on 127.0.0.0/8 or ::1 alone, which
// kube-proxy may refuse without any say of the Service.
func toLoopback(r *ruleset.Rule) bool {
	return slices.ContainsFunc(r.Matches, func(m ruleset.Match) bool {
		d, ok := m.(ruleset.Destination)
		return ok && !d.Not && d.Prefix.Addr().IsLoopback()
	})
}

// mapped is an element of a map, and the rule that looks packets up there.
type mapped struct {
	*ruleset.Element
	frontend Frontend
	chain    *ruleset.Chain
	index    int
}

// lookUp reads the map of one rule.
func (b *nativeBuilder) lookUp(c *ruleset.Chain, index int) {
	r := &c.Rules[index]
	s := b.table.Sets[r.Action.Details().Name]
	if s == nil || s.Unread || !s.Verdicts {
		b.odd("map")
		return
	}
	nodePorts := s.HasKeys(ruleset.ProtocolField, ruleset.PortField)
	if !nodePorts && !s.HasKeys(ruleset.AddressField, ruleset.ProtocolField, ruleset.PortField) {
		b.odd("map")
		return
	}
	if nodePorts {
		b.Native.AnyNodePortIP = b.Native.AnyNodePortIP || ofAnyAddress(r)
	}
	for i := range s.Elements {
		e := mapped{Element: &s.Elements[i], chain: c, index: index}
		key, ok := s.Key(e.Element)
		e.frontend = Frontend{Addr: key.Addr, Port: key.Port, Protocol: protocolOf(key.Protocol)}
		if nodePorts {
			e.frontend.Kind = NodePort
		}
		if !ok || e.frontend.Protocol == "" || !b.element(&e) {
			b.odd("element")
		}
	}
}

// ofAnyAddress reports whether node ports are looked up whatever the node's address.
func ofAnyAddress(r *ruleset.Rule) bool {
	return !slices.ContainsFunc(r.Matches, func(m ruleset.Match) bool {
		in, ok := m.(ruleset.InSet)
		return ok && in.Set == nativeNodePortIPs
	})
}

func protocolOf(number uint8) service.Protocol {
	for _, p := range [...]service.Protocol{service.TCP, service.UDP, service.SCTP} {
		if p.Number() == number {
			return p
		}
	}
	return ""
}

// element reads what becomes of packets to one address; false where that is not
// understood.
func (b *nativeBuilder) element(e *mapped) bool {
	if e.Verdict == ruleset.Drop {
		b.refuses(e, NoLocalEndpoints)
		return true
	}
	if e.Verdict != ruleset.Goto && e.Verdict != ruleset.Jump {
		return false
	}
	if n, ok := b.name(e.Chain); ok {
		return b.sends(e, &n)
	}
	to := b.table.Chain(e.Chain)
	if to == nil {
		return false
	}
	for i := range to.Rules {
		switch to.Rules[i].Action.Kind {
		case ruleset.Reject:
			b.refuses(e, NoEndpoints)
			return true
		case ruleset.Drop:
			b.refuses(e, NoLocalEndpoints)
			return true
		}
	}
	return false
}

// sends notes that packets go on to a Service's chain.
func (b *nativeBuilder) sends(e *mapped, n *nativeChain) bool {
	switch n.Kind {
	case KindService, KindLocal:
		if e.frontend.Kind != NodePort {
			e.frontend.Kind = ClusterIP
		}
	case KindExternal:
		if e.frontend.Kind != NodePort {
			e.frontend.Kind = ExternalIP
		}
	case KindFirewall:
		b.firewall(e, n)
		return true
	default:
		return false
	}
	if !b.Present {
		b.dispatches(e.chain)
	}
	b.Dispatch = append(b.Dispatch, Dispatch{
		Frontend: e.frontend, Target: n.Kind, Hash: n.hash, Name: n.Port, Named: true,
		Chain: e.chain, Index: e.index, Rule: &e.chain.Rules[e.index],
	})
	return true
}

// refuses notes that packets are refused; the comment has the Service's port.
func (b *nativeBuilder) refuses(e *mapped, reason Reason) {
	f := e.refusal(reason)
	f.Hooks, f.Priority = b.reach[e.chain], b.priority(e.chain)
	if e.frontend.Kind != NodePort {
		f.Frontend.Kind = ExternalIP
		if slices.Contains(b.Native.ClusterIPs, e.frontend.Addr) {
			f.Frontend.Kind = ClusterIP
		}
	}
	if p, ok := parsePortName(e.Comment); ok && len(e.Comment) < nativeCommentMax {
		p.Protocol = e.frontend.Protocol
		f.Name, f.Named, f.Hash = p, true, Hash(p)
	}
	b.Refusals = append(b.Refusals, f)
}

// refusal is that of the rule which looks packets up.
func (e *mapped) refusal(reason Reason) Refusal {
	return Refusal{
		Table: NativeTable, Frontend: e.frontend, Reason: reason,
		Chain: e.chain, Index: e.index, Rule: &e.chain.Rules[e.index],
	}
}

// firewall notes that packets of most sources are dropped.
func (b *nativeBuilder) firewall(e *mapped, n *nativeChain) {
	e.frontend.Kind = LoadBalancerIP
	f := e.refusal(SourceRange)
	f.Hooks, f.Priority = b.reach[e.chain], b.priority(e.chain)
	f.Name, f.Named, f.Hash = n.Port, true, n.hash
	to := b.table.Chain(e.Chain)
	if to == nil {
		return
	}
	drops := slices.IndexFunc(to.Rules, func(r ruleset.Rule) bool { return r.Action.Kind == ruleset.Drop })
	if drops < 0 {
		return
	}
	f.Chain, f.Index, f.Rule = to, drops, &to.Rules[drops]
	b.Refusals = append(b.Refusals, f)
}

// balancers tells load balancers' addresses from external ones, as far as they are subject
// to source ranges: the maps do not.
func (b *nativeBuilder) balancers() {
	of := make(map[netip.Addr]bool)
	for i := range b.Refusals {
		if f := &b.Refusals[i]; f.Reason == SourceRange {
			of[f.Frontend.Addr] = true
		}
	}
	set := func(f *Frontend) {
		if f.Kind == ExternalIP && of[f.Addr] {
			f.Kind = LoadBalancerIP
		}
	}
	for i := range b.Dispatch {
		set(&b.Dispatch[i].Frontend)
	}
	for i := range b.Refusals {
		set(&b.Refusals[i].Frontend)
	}
}

// priority is the lowest of the built-in chains from which packets come to a chain.
func (b *nativeBuilder) priority(c *ruleset.Chain) int32 {
	if lowest, known := b.priorities[c]; known {
		return lowest
	}
	lowest, found := int32(0), false
	for base := range b.table.BaseChains {
		if (!found || base.Base.Priority < lowest) && b.calls(base, c, 0) {
			lowest, found = base.Base.Priority, true
		}
	}
	b.priorities[c] = lowest
	return lowest
}

// maxDepth is how deep chains call each other (NFT_JUMP_STACK_SIZE in the kernel).
const maxDepth = 16

// calls reports whether a chain is another one, or jumps to it.
func (b *nativeBuilder) calls(from, to *ruleset.Chain, depth int) bool {
	if from == nil || depth > maxDepth || OfService(from.Name) {
		return false
	}
	return from == to || slices.ContainsFunc(from.Rules, func(r ruleset.Rule) bool {
		return r.Action.Chain != "" && b.calls(b.table.Chain(r.Action.Chain), to, depth+1)
	})
}
