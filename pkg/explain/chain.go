// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"github.com/svcscope/svcscope/pkg/drift"
	"github.com/svcscope/svcscope/pkg/kubeproxy"
	"github.com/svcscope/svcscope/pkg/ruleset"
	"github.com/svcscope/svcscope/pkg/service"
)

// ownChain is one of a port's chains.
type ownChain struct {
	kind   ChainKind
	of     kubeproxy.Kind
	chain  *ruleset.Chain // nil where it is not there
	wanted bool
}

// own are the port's chains in the order in which a packet may pass them.
func (p *pathBuilder) own() []ownChain {
	want := p.sure()
	if want == nil {
		want = new(drift.Expected)
	}
	return []ownChain{
		{ChainFirewall, kubeproxy.KindFirewall, p.chains.Firewall, len(want.Ranges) > 0},
		{ChainExternal, kubeproxy.KindExternal, p.chains.External, want.External},
		{ChainCluster, kubeproxy.KindService, p.chains.Service, len(want.Cluster) > 0},
		{ChainLocal, kubeproxy.KindLocal, p.chains.Local, len(want.Local) > 0},
	}
}

// ownChains describes them.
func (p *pathBuilder) ownChains() []Chain {
	var out []Chain
	for _, o := range p.own() {
		if o.chain == nil && !o.wanted {
			continue
		}
		c := Chain{Name: chainName(o.of, p.hash), Kind: o.kind, State: ChainPresent, Rules: []Rule{}}
		switch {
		case o.chain == nil:
			c.State = ChainMissing
		case len(o.chain.Rules) == 0 && !o.chain.Unread:
			c.State = ChainEmpty
		default:
			for i := range o.chain.Rules {
				c.Rules = append(c.Rules, p.chainRule(&o, i))
			}
		}
		if o.kind == ChainCluster || o.kind == ChainLocal {
			p.share(&c, o.chain)
		}
		out = append(out, c)
	}
	return out
}

// chainRule describes a rule of one of the port's chains.
func (p *pathBuilder) chainRule(o *ownChain, i int) Rule {
	r := p.side.rule(nat, o.chain, i, RoleOther)
	rule := &o.chain.Rules[i]
	switch kind, _ := kubeproxy.ParseChain(rule.Action.Chain); kind {
	case kubeproxy.KindMarkMasq:
		r.Role, r.Reason = RoleMasquerade, o.reason(rule)
	case kubeproxy.KindEndpoint:
		r.Role = RoleShare
		if returning(rule) != nil {
			r.Role = RoleAffinity
		}
		if a := p.chains.Address(rule.Action.Chain); a.IsValid() {
			r.Endpoint = a.String()
		}
	case kubeproxy.KindExternal:
		r.Role = RoleForward
		if o.kind == ChainFirewall {
			r.Role = RoleSourceRange
		}
	case kubeproxy.KindService, kubeproxy.KindLocal:
		r.Role = RoleForward
	case kubeproxy.KindMarkDrop: // Kubernetes 1.24
		r.Role, r.Reason = RoleRefusal, string(kubeproxy.NoLocalEndpoints)
		if o.kind == ChainFirewall {
			r.Reason = string(kubeproxy.SourceRange)
		}
	}
	return r
}

// reason is why a rule marks packets to be masqueraded.
func (o *ownChain) reason(r *ruleset.Rule) string {
	to, from, node := false, false, false // the cluster IP, whom, the node's own
	for _, m := range r.Matches {
		switch m := m.(type) {
		case ruleset.Destination:
			to = !m.Not
		case ruleset.Source:
			from = from || m.Not
		case ruleset.InInterface:
			from = from || m.Not
		case ruleset.AddrType:
			node = node || m.Source&rtnLocal != 0 && !m.NotSource
		}
	}
	balances := o.kind == ChainCluster || o.kind == ChainLocal
	switch {
	case balances && to && from:
		return OutsideCluster
	case balances && to:
		return MasqueradeAll
	case o.kind == ChainExternal && node:
		return NodeItself
	case o.kind == ChainExternal && !to && !from:
		return ExternalCluster
	}
	return UnknownReason
}

// affinity is for how many seconds rule i of a chain keeps clients.
func (p *pathBuilder) affinity(kind ChainKind, i int) uint32 {
	for _, o := range p.own() {
		if o.kind == kind {
			return returning(&o.chain.Rules[i]).Seconds
		}
	}
	return 0
}

// chosen are the endpoints that the API gives a chain of a kind: of the sets that
// supported releases choose, the one that the rules lead to.
func (p *pathBuilder) chosen(kind ChainKind, to map[string]bool) []service.Endpoint {
	want := p.sure()
	if want == nil {
		return nil
	}
	if kind == ChainLocal {
		return want.Local
	}
	fits := func(eps []service.Endpoint) bool {
		for i := range eps {
			if !to[kubeproxy.EndpointChain(p.port.name, eps[i].Addr)] {
				return false
			}
		}
		return len(eps) == len(to)
	}
	for _, older := range want.Older {
		if !fits(want.Cluster) && fits(older) {
			return older
		}
	}
	return want.Cluster
}
