// SPDX-License-Identifier: Apache-2.0

package kubeproxy

import "github.com/svcscope/svcscope/pkg/ruleset"

// Cost is how many rules a Service port has, by table.
type Cost struct {
	// NAT counts the port's dispatch rules and the rules of its own chains,
	// those of its endpoints included.
	NAT int
	// Filter counts refusals, the firewall's among them, and health checks.
	Filter int
}

// RulesByPort returns the cost of every Service port, by Hash. Chains whose
// rules were not read count by nf_tables' use of them; where several rules
// that were not read jump to such a chain, those jumps count as rules of it.
func (v *View) RulesByPort() map[string]Cost {
	costs := make(map[string]Cost, len(v.Ports))
	add := func(hash string, nat, filter int) {
		c := costs[hash]
		costs[hash] = Cost{NAT: c.NAT + nat, Filter: c.Filter + filter}
	}
	for _, d := range v.Dispatch {
		add(d.Hash, 1, 0)
	}
	for hash, p := range v.Ports {
		add(hash, p.ownRules(), 0)
	}
	for _, r := range v.Refusals {
		if r.Hash != "" && r.Table == "filter" {
			add(r.Hash, 0, 1)
		}
	}
	for _, h := range v.HealthChecks {
		add(Hash(h.Port), 0, 1)
	}
	return costs
}

// ownRules counts the rules of the port's chains and of its endpoints'.
func (p *PortChains) ownRules() int {
	n := 0
	for _, c := range [...]*ruleset.Chain{p.Service, p.Local, p.External, p.Firewall} {
		n += size(c, 1)
	}
	for i := range p.Endpoints {
		if c := p.Endpoints[i].SEP; c != nil {
			n += size(c, p.jumpsTo(c))
		}
	}
	return n
}

// jumpsTo counts the jumps to an unread chain of an endpoint.
func (p *PortChains) jumpsTo(c *ruleset.Chain) int {
	if !c.Unread {
		return 0
	}
	n := 0
	for _, from := range [...]*ruleset.Chain{p.Service, p.Local} {
		if from == nil {
			continue
		}
		for i := range from.Rules {
			if from.Rules[i].Action.Chain == c.Name {
				n++
			}
		}
	}
	return n
}

// size is a chain's number of rules; of an unread one, its use less the jumps
// to it.
func size(c *ruleset.Chain, jumps int) int {
	switch {
	case c == nil:
		return 0
	case c.Unread:
		return max(0, int(c.Use)-jumps)
	}
	return len(c.Rules)
}
