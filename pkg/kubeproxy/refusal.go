// SPDX-License-Identifier: Apache-2.0

package kubeproxy

import (
	"slices"

	"github.com/svcscope/svcscope/pkg/ruleset"
	"github.com/svcscope/svcscope/pkg/service"
)

func (v *View) addRefusals(c *ruleset.Chain) {
	if c == nil {
		return
	}
	for i := range c.Rules {
		r := &c.Rules[i]
		if r.Action.Kind != ruleset.Reject && r.Action.Kind != ruleset.Drop {
			continue
		}
		name, form, rest := ParseComment(r.Comment)
		f := Refusal{Table: "filter", Frontend: frontend(r, form), Reason: reason(c, r, form), Chain: c, Index: i, Rule: r}
		switch c.Name { // these two have no other kind
		case chainServices:
			f.Frontend.Kind = ClusterIP
		case chainProxyFirewall:
			f.Frontend.Kind = LoadBalancerIP
		}
		if form != NoForm {
			name.Protocol = f.Frontend.Protocol
			f.Name, f.Named, f.Hash = name, true, Hash(name)
		}
		if form == FormNotAccepted {
			if kind, hash := ParseChain(rest); kind == KindFirewall {
				f.Hash = hash
			}
		}
		v.Refusals = append(v.Refusals, f)
	}
}

// reason is what the comment says, else what the chain and target stand for.
func reason(c *ruleset.Chain, r *ruleset.Rule, form Form) Reason {
	switch {
	case form == FormNoEndpoints:
		return NoEndpoints
	case form == FormNoLocal:
		return NoLocalEndpoints
	case form == FormNotAccepted, c.Name == chainProxyFirewall:
		return SourceRange
	case r.Action.Kind == ruleset.Reject:
		return NoEndpoints
	}
	return NoLocalEndpoints
}

// addOldRefusals finds what Kubernetes 1.24 does in nat: KUBE-SVL without
// endpoints and the end of KUBE-FW mark packets to be dropped.
func (v *View) addOldRefusals() {
	for _, p := range v.Ports {
		for _, c := range [...]*ruleset.Chain{p.Local, p.Firewall} {
			if c == nil {
				continue
			}
			for i := range c.Rules {
				r := &c.Rules[i]
				if r.Action.Chain != chainMarkDrop {
					continue
				}
				f := Refusal{Table: "nat", Reason: NoLocalEndpoints, Name: p.Name, Named: p.Named, Hash: p.Hash, Chain: c, Index: i, Rule: r}
				if c == p.Firewall {
					f.Reason = SourceRange
				}
				f.Frontend = frontend(r, NoForm)
				v.Refusals = append(v.Refusals, f)
			}
		}
	}
	slices.SortStableFunc(v.Refusals, func(a, b Refusal) int { return compareStrings(a.Chain.Name, b.Chain.Name) })
}

func compareStrings(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func (v *View) addHealthChecks(c *ruleset.Chain) {
	if c == nil {
		return
	}
	for i := range c.Rules {
		r := &c.Rules[i]
		name, form, _ := ParseComment(r.Comment)
		if form != FormHealthCheck {
			continue
		}
		name.Protocol = service.TCP
		for _, try := range [...]service.Protocol{service.TCP, service.UDP, service.SCTP} {
			q := name
			if q.Protocol = try; v.Ports[Hash(q)] != nil {
				name = q
				break
			}
		}
		v.HealthChecks = append(v.HealthChecks, HealthCheck{Port: name, Chain: c, Rule: r})
	}
}
