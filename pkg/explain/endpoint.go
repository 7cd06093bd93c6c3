// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"net/netip"
	"slices"

	"github.com/svcscope/svcscope/pkg/kubeproxy"
	"github.com/svcscope/svcscope/pkg/ruleset"
	"github.com/svcscope/svcscope/pkg/service"
)

// endpoints are those that the rules, the API or connection tracking have, by address.
func (p *pathBuilder) endpoints(f flows) []Endpoint {
	found := make(map[netip.AddrPort]*Endpoint)
	get := func(a netip.AddrPort) *Endpoint {
		if found[a] == nil {
			found[a] = p.newEndpoint(a)
		}
		return found[a]
	}
	for i := range p.chains.Endpoints {
		e := &p.chains.Endpoints[i]
		if !e.Addr.IsValid() {
			continue
		}
		out := get(e.Addr)
		out.InRules, out.Chain = new(true), e.Chain
		out.Rules = append(out.Rules, p.endpointRules(e.SEP)...)
	}
	for i := range p.api {
		p.intended(get(p.api[i].Addr), &p.api[i])
	}
	for a := range f.byEndpoint {
		get(a)
	}
	out := []Endpoint{}
	for a, e := range found {
		if f.all != nil {
			e.Tracked = f.byEndpoint[a].tracked(p.older(e))
		}
		e.Commands = wayCommands(a.Addr(), e.Local != nil && *e.Local)
		out = append(out, *e)
	}
	slices.SortFunc(out, func(a, b Endpoint) int {
		return netip.MustParseAddrPort(a.Address).Compare(netip.MustParseAddrPort(b.Address))
	})
	return out
}

// newEndpoint is one that neither rules nor API have, as far as they are known.
func (p *pathBuilder) newEndpoint(a netip.AddrPort) *Endpoint {
	e := &Endpoint{Address: a.String()}
	if p.side != nil {
		e.InRules = new(false)
	}
	if p.catalog != nil {
		e.InAPI = new(false)
	}
	return e
}

// intended adds what the API says of an endpoint.
func (p *pathBuilder) intended(e *Endpoint, api *service.Endpoint) {
	e.InAPI, e.Node, e.Zone = new(true), api.NodeName, api.Zone
	e.Ready, e.Serving, e.Terminating = new(api.Ready), new(api.Serving), new(api.Terminating)
	if node := p.catalog.Node.Name; node != "" && !p.node.NodeMissing {
		e.Local = new(api.NodeName == node)
	}
	want := p.sure()
	is := func(other service.Endpoint) bool { return other.Addr == api.Addr }
	switch {
	case want == nil, slices.ContainsFunc(want.Cluster, is), slices.ContainsFunc(want.Local, is):
	case !api.Ready:
		e.Unused = "not_ready"
	case kubeproxy.SelectEndpoints(p.catalog, p.svc, p.port.api, p.ipv6()).UsesCluster:
		e.Unused = "hints"
	default:
		e.Unused = "not_local"
	}
}

// endpointRules describes the rules of a KUBE-SEP; none where it was not read.
func (p *pathBuilder) endpointRules(c *ruleset.Chain) []Rule {
	if c == nil {
		return nil
	}
	var out []Rule
	for i := range c.Rules {
		r := p.side.rule(nat, c, i, RoleOther)
		switch kind, _ := kubeproxy.ParseChain(r.Target); {
		case c.Rules[i].Action.Kind == ruleset.DNAT:
			r.Role = RoleDNAT
		case kind == kubeproxy.KindMarkMasq:
			r.Role, r.Reason = RoleMasquerade, Hairpin
		}
		out = append(out, r)
	}
	return out
}

// older returns the counter above which an endpoint's entries are older than its rule;
// nil where that is not known: without a rule, or where entries may have come by
// others' rules.
func (p *pathBuilder) older(e *Endpoint) *uint64 {
	if !p.alone {
		return nil
	}
	var sum *uint64
	for i := range e.Rules {
		if e.Rules[i].Role != RoleDNAT {
			continue
		}
		if sum == nil {
			sum = new(uint64)
		}
		*sum += e.Rules[i].Packets
	}
	return sum
}
