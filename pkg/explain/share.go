// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"slices"
	"strings"

	"github.com/svcscope/svcscope/pkg/kubeproxy"
	"github.com/svcscope/svcscope/pkg/ruleset"
)

// share adds to a KUBE-SVC or KUBE-SVL what each endpoint gets and should get. The
// endpoints of the rules come first, in the rules' order.
func (p *pathBuilder) share(c *Chain, chain *ruleset.Chain) {
	packets := make(map[string]uint64)
	for i := range c.Rules {
		r := &c.Rules[i]
		if r.Role != RoleShare && r.Role != RoleAffinity {
			continue
		}
		if _, seen := packets[r.Target]; !seen {
			c.Shares = append(c.Shares, Share{Chain: r.Target, Endpoint: r.Endpoint})
		}
		packets[r.Target] += r.Packets
		c.Connections += r.Packets
	}
	to := make(map[string]bool)
	byRules, known := map[string]float64{}, false
	if chain != nil {
		to = targets(chain)
		byRules, known = chances(chain)
	}
	wanted := make(map[string]bool)
	eps := p.chosen(c.Kind, to)
	for i := range eps {
		name := kubeproxy.EndpointChain(p.port.name, eps[i].Addr)
		wanted[name] = true
		if !slices.ContainsFunc(c.Shares, func(s Share) bool { return s.Chain == name }) {
			c.Shares = append(c.Shares, Share{Chain: name, Endpoint: eps[i].Addr.String()})
		}
	}
	for i := range c.Shares {
		s := &c.Shares[i]
		s.Packets = packets[s.Chain]
		if c.Connections > 0 {
			s.Real = new(float64(s.Packets) / float64(c.Connections))
		}
		if known {
			s.ByRules = new(byRules[s.Chain])
		}
		if p.sure() != nil {
			s.Wanted = new(0.0)
			if wanted[s.Chain] {
				*s.Wanted = 1 / float64(len(eps))
			}
		}
	}
}

// targets are the chains of endpoints to which new clients are sent.
func targets(chain *ruleset.Chain) map[string]bool {
	to := make(map[string]bool)
	for i := range chain.Rules {
		r := &chain.Rules[i]
		if kind, _ := kubeproxy.ParseChain(r.Action.Chain); kind == kubeproxy.KindEndpoint && returning(r) == nil {
			to[r.Action.Chain] = true
		}
	}
	return to
}

// chances are the shares that rules give clients without an endpoint, by chain; known
// is false where a rule depends on more than chance.
func chances(chain *ruleset.Chain) (shares map[string]float64, known bool) {
	shares = make(map[string]float64)
	left := 1.0
	for i := range chain.Rules {
		r := &chain.Rules[i]
		kind, _ := kubeproxy.ParseChain(r.Action.Chain)
		if kind == kubeproxy.KindMarkMasq || goesOn(&r.Action) || returning(r) != nil {
			continue
		}
		p, ok := chance(r)
		if !ok || kind != kubeproxy.KindEndpoint && !stops(&r.Action) {
			return nil, false
		}
		if kind == kubeproxy.KindEndpoint {
			shares[r.Action.Chain] += left * p
		}
		left *= 1 - p
	}
	return shares, true
}

// chance is the probability with which a rule takes a packet.
func chance(r *ruleset.Rule) (p float64, ok bool) {
	p = 1
	for _, m := range r.Matches {
		switch m := m.(type) {
		case ruleset.Random:
			p *= m.Probability()
		default:
			if ruleset.MayFail(m) {
				return 0, false
			}
		}
	}
	return p, true
}

// goesOn reports whether the next rule sees a packet that an action has taken.
func goesOn(a *ruleset.Action) bool {
	return a.Kind == ruleset.Continue || a.Kind == ruleset.SetMark || a.Kind == ruleset.Log
}

// stops reports whether no rule that comes after in the chain sees it.
func stops(a *ruleset.Action) bool {
	switch a.Kind {
	case ruleset.Accept, ruleset.Drop, ruleset.Return, ruleset.Queue, ruleset.DNAT, ruleset.Reject:
		return true
	}
	return a.Kind == ruleset.OtherKind && strings.EqualFold(a.Details().Name, "REDIRECT")
}
