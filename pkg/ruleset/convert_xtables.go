// SPDX-License-Identifier: Apache-2.0

package ruleset

import (
	"bytes"
	"net/netip"
	"strconv"

	"github.com/svcscope/svcscope/pkg/netfilter/xtables"
)

// XTablesChain converts one chain of a table of legacy iptables, which has
// passed its Check.
func (c *Converter) XTablesChain(x *xtables.Chain) *Chain {
	out := &Chain{Name: c.text(x.Name), Rules: make([]Rule, 0, x.Len)}
	if x.Builtin {
		out.Base = &Base{Hook: x.Hook, Policy: Accept}
		if x.Policy() == xtables.VerdictDrop {
			out.Base.Policy = Drop
		}
	}
	for r := range x.Rules() {
		out.Rules = append(out.Rules, c.XTablesRule(r))
	}
	return out
}

// XTablesRule converts one rule of legacy iptables.
func (c *Converter) XTablesRule(x xtables.Rule) Rule {
	r := Rule{Counter: x.Counter(), HasCounter: true}
	c.begin()
	c.ip(x.IP())
	for m := range x.Matches() {
		c.extension(&r, m)
	}
	switch a := x.Action(); a.Kind {
	case xtables.Accept:
		r.Action.Kind = Accept
	case xtables.Drop:
		r.Action.Kind = Drop
	case xtables.Queue:
		r.Action.Kind = Queue
	case xtables.Return:
		r.Action.Kind = Return
	case xtables.Jump:
		r.Action = Action{Kind: Jump, Chain: c.text(a.Chain)}
	case xtables.Goto:
		r.Action = Action{Kind: Goto, Chain: c.text(a.Chain)}
	case xtables.RunExtension:
		r.Action = c.target(a.Target)
	}
	r.Matches = c.finish()
	return r
}

// ip adds the conditions of struct ipt_ip.
func (c *Converter) ip(ip xtables.IP) {
	if p, ok := c.prefix(ip.Src, ip.Invert&xtables.InvSrc != 0); ok {
		c.add(Source{Prefix: p, Not: ip.Invert&xtables.InvSrc != 0})
	}
	if p, ok := c.prefix(ip.Dst, ip.Invert&xtables.InvDst != 0); ok {
		c.add(Destination{Prefix: p, Not: ip.Invert&xtables.InvDst != 0})
	}
	if ip.In.Name != "" && !c.oddInterface(ip.In) {
		c.add(one(c.ins, InInterface{Name: c.name(ip.In.Name), Not: ip.Invert&xtables.InvIn != 0}))
	}
	if ip.Out.Name != "" && !c.oddInterface(ip.Out) {
		c.add(one(c.outs, OutInterface{Name: c.name(ip.Out.Name), Not: ip.Invert&xtables.InvOut != 0}))
	}
	if ip.HasProto {
		c.add(one(c.protocols, Protocol{Number: uint8(ip.Proto), Not: ip.Invert&xtables.InvProto != 0}))
	}
	if ip.Fragment {
		c.add(Fragment{Not: ip.Invert&xtables.InvFrag != 0})
	}
	if ip.HasTOS {
		c.addUnknown("match", Unknown{Name: "tos", Data: []byte{ip.TOS}})
	}
}

// prefix returns an address condition's prefix; ok is false where there is no
// condition, or one that no prefix expresses, which is kept as an Unknown.
func (c *Converter) prefix(a xtables.Address, inverted bool) (netip.Prefix, bool) {
	if a.Any() && !inverted {
		return netip.Prefix{}, false
	}
	p, ok := a.Prefix()
	if !ok {
		c.addUnknown("match", Unknown{Name: "address", Data: append(a.Addr.AsSlice(), a.Mask.AsSlice()...)})
	}
	return p, ok
}

func (c *Converter) oddInterface(i xtables.Interface) bool {
	if i.Odd {
		c.addUnknown("match", Unknown{Name: "interface", Data: []byte(i.Name)})
	}
	return i.Odd
}

// extension adds a match of x_tables, legacy or in a compat expression.
func (c *Converter) extension(r *Rule, x xtables.Extension) {
	if x.Name == "comment" && x.Revision == 0 && len(x.Data) > 0 {
		text, _, _ := bytes.Cut(x.Data, []byte{0})
		c.comment(r, c.text(text))
		return
	}
	m, err := x.DecodeMatch()
	if err != nil {
		c.unknownExtension(x)
		return
	}
	switch m := m.(type) {
	case xtables.TCP:
		c.tcp(m)
	case xtables.UDP:
		if !c.ports(sourcePort(m.Source, m.NotSource), destPort(m.Dest, m.NotDest)) {
			c.add(one(c.modules, Module{Name: "udp"}))
		}
	case xtables.SCTP:
		if !c.ports(sourcePort(m.Source, m.NotSource), destPort(m.Dest, m.NotDest)) {
			c.add(one(c.modules, Module{Name: "sctp"}))
		}
	case xtables.AddrType:
		c.add(one(c.addrTypes, AddrType{Source: m.Source, Dest: m.Dest, NotSource: m.NotSource, NotDest: m.NotDest, Flags: m.Flags}))
	case xtables.Statistic:
		c.statistic(m)
	case xtables.Mark:
		c.add(one(c.marks, Mark{Value: m.Value, Mask: m.Mask, Not: m.Not}))
	case xtables.Conntrack:
		c.conntrack(x, m)
	case xtables.State:
		c.add(one(c.states, ConntrackState{Mask: stateMask(m.Mask), Alias: true}))
	case xtables.Recent:
		c.add(one(c.recentSets, c.recent(m)))
	case xtables.NFAcct:
		c.add(one(c.objects, NFAcct{Object: c.name(m.Object)}))
	case xtables.Multiport:
		c.add(multiport(m))
	case xtables.Limit:
		c.limit(uint64(m.Average), m.Burst)
	case xtables.Physdev:
		c.add(Unknown{Name: "physdev", Text: c.name(physdev(m))})
	default:
		c.unknownExtension(x)
	}
}

func (c *Converter) unknownExtension(x xtables.Extension) {
	c.addUnknown("match", Unknown{Name: c.name(x.Name), Revision: x.Revision, Data: bytes.Clone(x.Data)})
}

func sourcePort(p xtables.PortRange, not bool) SourcePort {
	return SourcePort{First: p.First, Last: p.Last, Not: not}
}

func destPort(p xtables.PortRange, not bool) DestinationPort {
	return DestinationPort{First: p.First, Last: p.Last, Not: not}
}

func (c *Converter) tcp(m xtables.TCP) {
	any := c.ports(sourcePort(m.Source, m.NotSource), destPort(m.Dest, m.NotDest))
	if m.Option != 0 {
		c.add(TCPOption{Number: m.Option, Not: m.NotOption})
		any = true
	}
	if m.FlagsMask != 0 || m.NotFlags {
		c.add(TCPFlags{Mask: m.FlagsMask, Value: m.Flags, Not: m.NotFlags})
		any = true
	}
	if !any {
		c.add(one(c.modules, Module{Name: "tcp"}))
	}
}

func (c *Converter) statistic(m xtables.Statistic) {
	if m.Mode == xtables.StatisticRandom {
		c.add(one(c.randoms, Random{Threshold: m.Probability, Not: m.Not}))
		return
	}
	c.add(Nth{Every: m.Every + 1, Packet: m.Packet, Not: m.Not})
}

// conntrack adds a match that asks for the state alone; others are Unknown.
func (c *Converter) conntrack(x xtables.Extension, m xtables.Conntrack) {
	if m.Flags&^xtables.ConntrackStateAlias != xtables.ConntrackState {
		c.unknownExtension(x)
		return
	}
	c.add(one(c.states, ConntrackState{
		Mask: m.States, Not: m.Invert&xtables.ConntrackState != 0, Alias: m.Flags&xtables.ConntrackStateAlias != 0,
	}))
}

// stateMask moves "untracked" to where -m conntrack has it.
func stateMask(m uint32) uint16 {
	const untracked = 1 << 6 // XT_STATE_UNTRACKED
	if m&untracked != 0 {
		return uint16(m)&^untracked | xtables.StateUntracked
	}
	return uint16(m)
}

func (c *Converter) recent(m xtables.Recent) Recent {
	out := Recent{
		List: c.name(m.List), Seconds: m.Seconds, HitCount: m.HitCount, Not: m.Not, Dest: m.Dest,
		Set: m.Flags&xtables.RecentSet != 0, Update: m.Flags&xtables.RecentUpdate != 0,
		Remove: m.Flags&xtables.RecentRemove != 0, Reap: m.Flags&xtables.RecentReap != 0,
		TTL: m.Flags&xtables.RecentTTL != 0,
	}
	if m.Mask.IsValid() && m.Mask != allOnes(c.family) {
		out.Mask = m.Mask
	}
	return out
}

func multiport(m xtables.Multiport) Multiport {
	out := Multiport{Not: m.Not, Source: m.Kind != xtables.MultiportDest, Dest: m.Kind != xtables.MultiportSource}
	for _, p := range m.Ports {
		out.Ports = append(out.Ports, PortRange{First: p.First, Last: p.Last})
	}
	return out
}

// physdev is the text of a match on bridge ports (extensions/libxt_physdev.c),
// which is not followed any further.
func physdev(m xtables.Physdev) string {
	s := "-m physdev"
	part := func(bit uint8, text string) {
		if m.Bitmask&bit != 0 {
			s += " " + not(m.Invert&bit != 0) + text
		}
	}
	part(8, "--physdev-is-in")
	part(1, "--physdev-in "+m.In.Name)
	part(16, "--physdev-is-out")
	part(2, "--physdev-out "+m.Out.Name)
	part(4, "--physdev-is-bridged")
	return s
}

func itoa(n uint64) string { return strconv.FormatUint(n, 10) }
