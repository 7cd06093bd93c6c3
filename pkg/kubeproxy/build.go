// SPDX-License-Identifier: Apache-2.0

package kubeproxy

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/ruleset"
	"github.com/svcscope/svcscope/pkg/service"
)

// NewView finds kube-proxy's chains in one backend's rules of one family. It
// takes any ruleset, nil and one without kube-proxy too, and fails on none:
// what does not look like kube-proxy's is left out.
func NewView(rs *ruleset.Ruleset) *View {
	v := &View{Ports: map[string]*PortChains{}, endpoints: map[string]endpointChain{}}
	if rs == nil {
		return v
	}
	v.Update(rs, rs.Anew())
	return v
}

// Update brings v up to date with what a reading has changed in the ruleset
// that v is of. PortChains of which a chain changed are replaced, others stay.
func (v *View) Update(rs *ruleset.Ruleset, deltas []ruleset.Delta) {
	v.Backend, v.Family = rs.Backend, rs.Family
	var nat, filter ruleset.Delta
	for _, d := range deltas {
		switch d.Table {
		case "nat":
			nat = d
		case "filter":
			filter = d
		}
	}
	if nat.Same() && filter.Same() {
		return
	}
	v.Version++
	v.updateNAT(rs.Table("nat"), &nat)
	v.updateFilter(rs.Table("filter"))
	if rs.Table("nat").Chain(chainMarkDrop) != nil {
		v.addOldRefusals()
	}
}

// Of returns a view of some rules out of v's ruleset, which name ports and
// endpoints as far as they or v do.
func (v *View) Of(some *ruleset.Ruleset) *View {
	part := &View{Ports: map[string]*PortChains{}, endpoints: maps.Clone(v.endpoints)}
	for _, t := range some.Tables {
		part.Update(some, []ruleset.Delta{{Table: t.Name, Changed: t.Chains}})
	}
	for hash, p := range part.Ports {
		if known := v.Ports[hash]; known != nil && !p.Named {
			p.Name, p.Named = known.Name, known.Named
		}
	}
	return part
}

func (v *View) updateNAT(nat *ruleset.Table, d *ruleset.Delta) {
	dispatch := false
	hashes := make(map[string]bool)
	touch := func(name string) {
		switch kind, hash := ParseChain(name); kind {
		case KindServices, KindNodePorts:
			dispatch = true
		case KindService, KindLocal, KindExternal, KindFirewall:
			hashes[hash] = true
		}
	}
	for _, name := range d.Gone {
		touch(name)
		if e, ok := v.endpoints[name]; ok {
			hashes[e.port] = true
			delete(v.endpoints, name)
			delete(v.stale, name)
		}
	}
	for _, c := range d.Changed {
		touch(c.Name)
		if kind, _ := ParseChain(c.Name); kind == KindEndpoint && !c.Unread {
			if hash := v.readEndpoint(c); hash != "" {
				hashes[hash] = true
			}
		}
	}
	delete(hashes, "")
	for hash := range hashes {
		v.updatePort(nat, hash)
	}
	if dispatch {
		v.Dispatch, v.DispatchRules, v.Present = v.Dispatch[:0], 0, false
		v.addDispatch(nat.Chain(chainServices))
		v.addDispatch(nat.Chain(chainNodePorts))
	}
	v.nameRest(hashes)
	v.addReach(nat)
}

// readEndpoint notes what a KUBE-SEP chain does, and returns the hash of the port
// that jumps to it and has not seen the chain so; empty where there is none.
func (v *View) readEndpoint(c *ruleset.Chain) string {
	e := v.endpoints[c.Name]
	if hash, ok := v.missing[c.Name]; ok {
		e.port = hash
		delete(v.missing, c.Name)
	}
	e.rules = endpointRules(c)
	delete(v.stale, c.Name)
	v.endpoints[c.Name] = e
	return e.port
}

// updatePort makes the chains of one port anew. It keeps the name, of which the
// hash is made.
func (v *View) updatePort(nat *ruleset.Table, hash string) {
	maps.DeleteFunc(v.missing, func(_, of string) bool { return of == hash })
	p := &PortChains{
		Hash:    hash,
		Service: nat.Chain(servicePrefix + hash), Local: nat.Chain(localPrefix + hash),
		External: nat.Chain(externalPrefix + hash), Firewall: nat.Chain(firewallPrefix + hash),
	}
	if p.Service == nil && p.Local == nil && p.External == nil && p.Firewall == nil {
		delete(v.Ports, hash)
		return
	}
	if old := v.Ports[hash]; old != nil {
		p.Name, p.Named = old.Name, old.Named
	}
	v.addEndpoints(nat, p)
	v.Ports[hash] = p
}

func (v *View) updateFilter(filter *ruleset.Table) {
	v.Refusals, v.HealthChecks = nil, nil
	for _, name := range RefusalChains() {
		v.addRefusals(filter.Chain(name))
	}
	v.addHealthChecks(filter.Chain(chainNodePorts))
}

func (v *View) addDispatch(c *ruleset.Chain) {
	if c == nil {
		return
	}
	if c.Name == chainServices {
		v.Present, v.DispatchRules = true, len(c.Rules)
	}
	v.Dispatch = slices.Grow(v.Dispatch, len(c.Rules))
	for i := range c.Rules {
		r := &c.Rules[i]
		kind, hash := ParseChain(r.Action.Chain)
		if kind != KindService && kind != KindLocal && kind != KindExternal && kind != KindFirewall {
			continue
		}
		d := Dispatch{Target: kind, Hash: hash, Chain: c, Index: i, Rule: r}
		name, form, _ := ParseComment(r.Comment)
		d.Frontend = frontend(r, form)
		if c.Name == chainNodePorts {
			d.Frontend.Kind, d.Frontend.Addr = NodePort, netip.Addr{}
		}
		if form != NoForm {
			if p := v.Ports[hash]; p != nil {
				p = v.name(p, name, d.Frontend.Protocol)
				d.Name, d.Named = p.Name, p.Named
			} else {
				d.Name, d.Named = resolve(hash, name, d.Frontend.Protocol)
			}
		}
		v.Dispatch = append(v.Dispatch, d)
	}
}

// name gives a port of v the name, in a copy, unless it has one.
func (v *View) name(p *PortChains, name service.PortName, proto service.Protocol) *PortChains {
	if p.Named {
		return p
	}
	named := *p
	named.name(name, proto)
	v.Ports[p.Hash] = &named
	return &named
}

// name gives p the name, if it is the right one: with its protocol, or with
// one found by trying, it must give the hash.
func (p *PortChains) name(name service.PortName, proto service.Protocol) {
	if !p.Named {
		p.Name, p.Named = resolve(p.Hash, name, proto)
	}
}

func resolve(hash string, name service.PortName, proto service.Protocol) (service.PortName, bool) {
	for _, try := range [...]service.Protocol{service.TCP, service.UDP, service.SCTP} {
		if name.Protocol = try; (proto == "" || proto == try) && Hash(name) == hash {
			return name, true
		}
	}
	return service.PortName{}, false
}

// frontend reads the address, port and protocol that a rule asks for.
func frontend(r *ruleset.Rule, form Form) Frontend {
	f := Frontend{Protocol: protocol(r)}
	local := false
	for _, m := range r.Matches {
		switch m := m.(type) {
		case ruleset.Destination:
			if m.Prefix.IsSingleIP() && !m.Not {
				f.Addr = m.Prefix.Addr()
			}
		case ruleset.DestinationPort:
			if m.First == m.Last && !m.Not {
				f.Port = m.First
			}
		case ruleset.AddrType:
			local = local || m.Dest != 0
		}
	}
	switch {
	case form == FormClusterIP:
		f.Kind = ClusterIP
	case form == FormExternalIP:
		f.Kind = ExternalIP
	case form == FormLoadBalancerIP:
		f.Kind = LoadBalancerIP
	case local && !f.Addr.IsValid():
		f.Kind = NodePort
	}
	return f
}

func protocol(r *ruleset.Rule) service.Protocol {
	n, _ := r.Protocol()
	switch n {
	case 6:
		return service.TCP
	case 17:
		return service.UDP
	case 132:
		return service.SCTP
	}
	return ""
}

// addEndpoints finds the endpoints that a port's chains jump to.
func (v *View) addEndpoints(nat *ruleset.Table, p *PortChains) {
	n := 0
	for range p.EndpointJumps() {
		n++
	}
	p.Endpoints = make([]EndpointChains, 0, n)
	seen := map[string]int{}
	for j := range p.EndpointJumps() {
		i, known := p.endpoint(j.Target, seen)
		if !known {
			sep := nat.Chain(j.Target)
			if sep == nil {
				if v.missing == nil {
					v.missing = make(map[string]string)
				}
				v.missing[j.Target] = p.Hash
			}
			p.Endpoints = append(p.Endpoints, EndpointChains{Chain: j.Target, SEP: sep, Addr: v.Address(j.Target)})
			v.endpointOf(p, sep, &j)
		}
		if e := &p.Endpoints[i]; !e.Addr.IsValid() || !p.Named {
			p.readEndpointComment(e, j.Rule)
		}
	}
}

// endpointOf notes, of a KUBE-SEP chain that was read, that a port leads to it, and whether it
// is stale.
func (v *View) endpointOf(p *PortChains, sep *ruleset.Chain, j *Jump) {
	e, ok := v.endpoints[j.Target]
	if !ok {
		return
	}
	if e.port != p.Hash {
		e.port = p.Hash
		v.endpoints[j.Target] = e
	}
	if sep != nil && sep.Unread && !e.rules.Remembers && Returning(j.Rule) != nil {
		if v.stale == nil {
			v.stale = make(map[string]bool)
		}
		v.stale[j.Target] = true
	}
}

// endpoint returns the index of an endpoint, or where it is to be appended.
// Few endpoints are searched; a map is kept where there are many.
func (p *PortChains) endpoint(chain string, seen map[string]int) (int, bool) {
	const few = 16
	if len(p.Endpoints) < few {
		i := slices.IndexFunc(p.Endpoints, func(e EndpointChains) bool { return e.Chain == chain })
		if i < 0 {
			i = len(p.Endpoints)
			return i, false
		}
		return i, true
	}
	for i := len(seen); i < len(p.Endpoints); i++ {
		seen[p.Endpoints[i].Chain] = i
	}
	if i, ok := seen[chain]; ok {
		return i, true
	}
	return len(p.Endpoints), false
}

func (p *PortChains) readEndpointComment(e *EndpointChains, r *ruleset.Rule) {
	name, form, rest := ParseComment(r.Comment)
	if form != FormEndpoint {
		return
	}
	p.name(name, "")
	if a, err := netip.ParseAddrPort(rest); err == nil && !e.Addr.IsValid() {
		e.Addr = a
	}
}

// nameRest looks for names in the comments of a port's own chains, for ports
// that no dispatch rule names.
func (v *View) nameRest(hashes map[string]bool) {
	for hash := range hashes {
		p := v.Ports[hash]
		if p == nil || p.Named {
			continue
		}
		for _, c := range [...]*ruleset.Chain{p.External, p.Service, p.Local, p.Firewall} {
			p.nameFrom(c)
		}
		for i := range p.Endpoints {
			p.nameFrom(p.Endpoints[i].SEP)
		}
	}
}

func (p *PortChains) nameFrom(c *ruleset.Chain) {
	if c == nil {
		return
	}
	for i := range c.Rules {
		if p.Named {
			return
		}
		if name, form, _ := ParseComment(c.Rules[i].Comment); form != NoForm {
			p.name(name, "")
		}
	}
}

func (v *View) addReach(nat *ruleset.Table) {
	v.Prerouting, v.Output = false, false
	for c := range nat.BaseChains {
		reached := c.Unread
		for i := range c.Rules {
			reached = reached || c.Rules[i].Action.Chain == chainServices
		}
		switch c.Base.Hook {
		case netfilter.HookPrerouting:
			v.Prerouting = v.Prerouting || reached
		case netfilter.HookOutput:
			v.Output = v.Output || reached
		}
	}
}
