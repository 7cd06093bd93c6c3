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
	// Native counts the rules of the port's own chains in the nftables mode, where
	// addresses are elements of maps and no rules.
	Native int
}

// Add returns the sum of both.
func (c Cost) Add(d Cost) Cost {
	return Cost{NAT: c.NAT + d.NAT, Filter: c.Filter + d.Filter, Native: c.Native + d.Native}
}

// RulesByPort returns the cost of every Service port, by Hash: the sums of
// Costs.
func (v *View) RulesByPort() map[string]Cost {
	costs := make(map[string]Cost, len(v.Ports))
	for hash, c := range v.Costs {
		costs[hash] = costs[hash].Add(c)
	}
	return costs
}

// Costs yields what Service ports cost, by Hash; one port's is in several
// parts. Chains whose rules were not read count by nf_tables' use of them; where
// several rules that were not read jump to such a chain, those jumps count as
// rules of it.
func (v *View) Costs(yield func(hash string, c Cost) bool) {
	if v.Native != nil {
		for hash, p := range v.Ports {
			if !yield(hash, Cost{Native: p.ownRules()}) {
				return
			}
		}
		return
	}
	for i := range v.Dispatch {
		if !yield(v.Dispatch[i].Hash, Cost{NAT: 1}) {
			return
		}
	}
	for hash, p := range v.Ports {
		if !yield(hash, Cost{NAT: p.ownRules()}) {
			return
		}
	}
	for i := range v.Refusals {
		if r := &v.Refusals[i]; r.Hash != "" && r.Table == "filter" && !yield(r.Hash, Cost{Filter: 1}) {
			return
		}
	}
	for i := range v.HealthChecks {
		if !yield(Hash(v.HealthChecks[i].Port), Cost{Filter: 1}) {
			return
		}
	}
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
