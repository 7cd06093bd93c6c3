// SPDX-License-Identifier: Apache-2.0

package kubeproxy

import (
	"net/netip"
	"slices"

	"github.com/svcscope/svcscope/pkg/ruleset"
)

// maxShares bounds how many numbers a chain is believed to choose from.
const maxShares = 1 << 16

// endpoints reads what the chains of all ports do.
func (b *nativeBuilder) endpoints() {
	for _, p := range b.Ports {
		b.seen = nil
		p.Native.Cluster = b.balance(p, p.Service)
		p.Native.Local = b.balance(p, p.Local)
		p.Native.Sources = b.sources(p.Firewall)
		b.known(p.External)
	}
}

// balance reads how a chain chooses an endpoint, and adds those that are new to the
// port's.
func (b *nativeBuilder) balance(p *PortChains, c *ruleset.Chain) (out Balance) {
	if c == nil {
		return out
	}
	for i := range c.Rules {
		r := &c.Rules[i]
		switch a := &r.Action; {
		case a.Kind == ruleset.DNAT && a.Details().To.IsValid():
			b.share(p, &out, 1, 0, a.Details().To, "")
		case a.Kind == ruleset.DNAT, a.Kind == ruleset.Map:
			b.choose(p, &out, a)
		case a.Kind == ruleset.Goto || a.Kind == ruleset.Jump:
			b.leads(p, &out, r)
		case marks(a):
			out.Marks = true
		default:
			b.odd("rule")
		}
	}
	return out
}

// choose reads a choice at random, of addresses or of endpoints' chains.
func (b *nativeBuilder) choose(p *PortChains, out *Balance, a *ruleset.Action) {
	s := b.table.Sets[a.Details().Name]
	if s == nil || s.Unread || a.Value == 0 || a.Value > maxShares {
		b.odd("rule")
		return
	}
	for i := range s.Elements {
		e := &s.Elements[i]
		key, ok := s.Key(e)
		if !ok || key.Number >= a.Value {
			b.odd("element")
			continue
		}
		to, chain := netip.AddrPort{}, ""
		if s.Verdicts {
			to, chain = b.endpoint(e.Chain), e.Chain
		} else if v, ok := s.Value(e); ok && v.Addr.IsValid() && v.Port != 0 {
			to = netip.AddrPortFrom(v.Addr, v.Port)
		}
		if !to.IsValid() {
			b.odd("element")
		}
		b.share(p, out, a.Value, key.Number, to, chain)
	}
}

// share notes that a number leads to an endpoint.
func (b *nativeBuilder) share(p *PortChains, out *Balance, shares, number uint32, to netip.AddrPort, chain string) {
	out.Shares = shares
	for len(out.To) <= int(number) {
		out.To = append(out.To, netip.AddrPort{})
	}
	out.To[number] = to
	b.add(p, to, chain)
}

// add notes an endpoint of a port, once.
func (b *nativeBuilder) add(p *PortChains, to netip.AddrPort, chain string) {
	const few = 16
	if len(p.Endpoints) == few && b.seen == nil {
		b.seen = make(map[endpointKey]bool)
		for i := range p.Endpoints {
			b.seen[endpointKey{p.Endpoints[i].Addr, p.Endpoints[i].Chain}] = true
		}
	}
	key := endpointKey{to, chain}
	if b.seen[key] || b.seen == nil && slices.ContainsFunc(p.Endpoints, func(e EndpointChains) bool { return e.Addr == to && e.Chain == chain }) {
		return
	}
	if b.seen != nil {
		b.seen[key] = true
	}
	p.Endpoints = append(p.Endpoints, EndpointChains{Addr: to, Chain: chain, SEP: b.table.Chain(chain)})
}

// leads reads a rule that leads to an endpoint's chain: of clients that come back. One
// without a set leads all there, of an endpoint that is alone. Others mark.
func (b *nativeBuilder) leads(p *PortChains, out *Balance, r *ruleset.Rule) {
	if marks(&r.Action) {
		out.Marks = true
		return
	}
	if n, ok := b.name(r.Action.Chain); !ok || n.Kind != KindEndpoint {
		b.odd("rule")
		return
	}
	to := b.endpoint(r.Action.Chain)
	b.add(p, to, r.Action.Chain)
	set := b.lookup(r)
	if set == nil {
		out.Shares, out.To = 1, append(out.To, to)
		return
	}
	out.Returning = append(out.Returning, to)
	out.Affinity = set.Timeout
}

// lookup is the set that a rule looks the packet's source up in; nil without one.
func (b *nativeBuilder) lookup(r *ruleset.Rule) *ruleset.Set {
	for _, m := range r.Matches {
		if in, ok := m.(ruleset.InSet); ok && !in.Not {
			if s := b.table.Sets[in.Set]; s != nil && s.HasKeys(ruleset.AddressField) {
				return s
			}
		}
	}
	return nil
}

// endpoint is where an endpoint's chain sends to: by its rule, or by its name where that
// was not read.
func (b *nativeBuilder) endpoint(chain string) netip.AddrPort {
	c := b.table.Chain(chain)
	if c != nil && !c.Unread {
		for i := range c.Rules {
			if a := &c.Rules[i].Action; a.Kind == ruleset.DNAT {
				return a.Details().To
			}
		}
		return netip.AddrPort{}
	}
	n, _ := b.name(chain)
	return n.Endpoint
}

// sources reads whom a load balancer's addresses are open to: all others are dropped.
func (b *nativeBuilder) sources(c *ruleset.Chain) (out []AddrRange) {
	if c == nil {
		return nil
	}
	for i := range c.Rules {
		r := &c.Rules[i]
		if r.Action.Kind != ruleset.Drop {
			b.odd("rule")
			continue
		}
		for _, m := range r.Matches {
			switch m := m.(type) {
			case ruleset.Source: // of one range nft makes no set
				if m.Not {
					out = append(out, AddrRange{m.Prefix.Masked().Addr(), lastOf(m.Prefix)})
				}
			case ruleset.InSet:
				if m.Not {
					out = append(out, b.ranges(m.Set)...)
				}
			}
		}
	}
	return out
}

// ranges are those in a set.
func (b *nativeBuilder) ranges(name string) (out []AddrRange) {
	s := b.table.Sets[name]
	if s == nil || s.Unread {
		b.odd("rule")
		return nil
	}
	for i := range s.Elements {
		first, ok := s.Key(&s.Elements[i])
		last, ends := s.End(&s.Elements[i])
		if !ok || !ends {
			b.odd("element")
			continue
		}
		out = append(out, AddrRange{first.Addr, last.Addr})
	}
	return out
}

// lastOf is the last address of a prefix.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := range b {
		if ones := p.Bits() - 8*i; ones < 8 {
			b[i] |= 0xff >> max(ones, 0)
		}
	}
	last, _ := netip.AddrFromSlice(b)
	return last
}

// known counts the rules of an external- chain that are none of kube-proxy's: those lead
// to the port's other chains, or mark.
func (b *nativeBuilder) known(c *ruleset.Chain) {
	if c == nil {
		return
	}
	for i := range c.Rules {
		a := &c.Rules[i].Action
		n, ok := b.name(a.Chain)
		if !marks(a) && !(ok && isService(n.Kind)) {
			b.odd("rule")
		}
	}
}

// sameNative reports whether p says the same as before.
func (p *PortChains) sameNative(q *PortChains) bool {
	return p.Service == q.Service && p.Local == q.Local && p.External == q.External && p.Firewall == q.Firewall &&
		slices.Equal(p.Endpoints, q.Endpoints) && p.Native.Cluster.same(&q.Native.Cluster) && p.Native.Local.same(&q.Native.Local) &&
		slices.Equal(p.Native.Sources, q.Native.Sources)
}

func (x *Balance) same(y *Balance) bool {
	return x.Shares == y.Shares && x.Affinity == y.Affinity && x.Marks == y.Marks &&
		slices.Equal(x.To, y.To) && slices.Equal(x.Returning, y.Returning)
}
