// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/svcscope/svcscope/pkg/kubeproxy"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/ruleset"
)

const (
	nat    = "nat"
	filter = "filter"
	// rtnLocal is the bit of RTN_LOCAL in a mask of address types
	// (include/uapi/linux/rtnetlink.h).
	rtnLocal = 1 << 2
)

func servicesChain() string  { return kubeproxy.DispatchChains()[0] }
func nodePortsChain() string { return kubeproxy.DispatchChains()[1] }

// rule describes rule i of a chain.
func (s *side) rule(table string, c *ruleset.Chain, i int, role Role) Rule {
	r := &c.Rules[i]
	out := Rule{
		Table: table, Chain: c.Name, Number: i + 1, Of: len(c.Rules), Role: role, Target: r.Action.Target(),
		Clients: clients(r), Comment: r.Comment, Text: r.Spec(s.set.Family),
		Packets: r.Counter.Packets, SinceSync: c.Base == nil && eachSync(c.Name), Command: s.listCommand(table, c.Name, i+1),
	}
	if to := r.Action.Details().To; r.Action.Kind == ruleset.DNAT && to.IsValid() {
		out.Endpoint = to.String()
	}
	return out
}

// eachSync reports whether kube-proxy writes a chain anew at every sync.
func eachSync(chain string) bool {
	switch kind, _ := kubeproxy.ParseChain(chain); kind {
	case kubeproxy.KindServices, kubeproxy.KindNodePorts, kubeproxy.KindExternalServices, kubeproxy.KindForward,
		kubeproxy.KindProxyFirewall, kubeproxy.KindKubeFirewall, kubeproxy.KindMarkMasq, kubeproxy.KindPostrouting:
		return true
	}
	return false
}

// clients says whom a rule is for, by what it asks of where packets come from; empty
// where it asks nothing.
func clients(r *ruleset.Rule) string {
	var words []string
	add := func(not bool, without, with, what string) {
		if not {
			with = without
		}
		words = append(words, with+" "+what)
	}
	for _, m := range r.Matches {
		switch m := m.(type) {
		case ruleset.Source:
			add(m.Not, "outside", "from", prefixText(m.Prefix))
		case ruleset.InInterface:
			add(m.Not, "not by interface", "by interface", m.Name)
		case ruleset.AddrType:
			if m.Source&rtnLocal != 0 {
				add(m.NotSource, "not from", "from", "this node")
			}
		}
	}
	return strings.Join(words, ", ")
}

// prefixText leaves the length of a single address out.
func prefixText(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}

// returning is the condition of a rule that takes clients that come back; nil of others.
func returning(r *ruleset.Rule) *ruleset.Recent {
	for _, m := range r.Matches {
		if recent, ok := m.(ruleset.Recent); ok && !recent.Set && !recent.Not {
			return &recent
		}
	}
	return nil
}

// arrivals are the jumps from nat's built-in chains to KUBE-SERVICES.
func (s *side) arrivals() []Arrival {
	toServices := func(chain string) bool { return chain == servicesChain() }
	return s.jumps(nat, []netfilter.Hook{netfilter.HookPrerouting, netfilter.HookOutput}, toServices)
}

// jumps are the rules of a table's built-in chains, at these hooks, that lead to chains
// that are wanted.
func (s *side) jumps(table string, hooks []netfilter.Hook, wanted func(chain string) bool) []Arrival {
	var out []Arrival
	for _, h := range hooks {
		out = append(out, Arrival{Chain: h.String(), Rules: []Rule{}})
	}
	for c := range s.set.Table(table).BaseChains {
		i := slices.Index(hooks, c.Base.Hook)
		if i < 0 {
			continue
		}
		for j := range c.Rules {
			if wanted(c.Rules[j].Action.Chain) {
				out[i].Rules = append(out[i].Rules, s.rule(table, c, j, RoleArrival))
			}
		}
	}
	return out
}

// refusalArrivals are the jumps from filter's built-in chains to those that have the
// refusals of these entries.
func (s *side) refusalArrivals(entries []Entry) []Arrival {
	var chains []string
	for i := range entries {
		for _, r := range entries[i].Refusals {
			if r.Table == filter {
				chains = append(chains, r.Chain)
			}
		}
	}
	if len(chains) == 0 {
		return nil
	}
	hooks := []netfilter.Hook{netfilter.HookInput, netfilter.HookForward, netfilter.HookOutput}
	all := s.jumps(filter, hooks, func(chain string) bool { return slices.Contains(chains, chain) })
	return slices.DeleteFunc(all, func(a Arrival) bool { return len(a.Rules) == 0 })
}

// masquerading are the rules of KUBE-POSTROUTING that masquerade.
func (s *side) masquerading() []Rule {
	c := s.set.Table(nat).Chain(kubeproxy.ChainPostrouting)
	if c == nil {
		return nil
	}
	var out []Rule
	for i := range c.Rules {
		if c.Rules[i].Action.Kind == ruleset.Masquerade {
			r := s.rule(nat, c, i, RoleMasquerade)
			r.Reason = AnyMarked
			out = append(out, r)
		}
	}
	return out
}

// healthChecks are the rules of filter that let health checks of the Service in.
func (p *pathBuilder) healthChecks() []Rule {
	var out []Rule
	for i := range p.side.view.HealthChecks {
		h := &p.side.view.HealthChecks[i]
		if h.Port.Name != p.port.name.Name || h.Port.Port != p.port.name.Port {
			continue
		}
		for j := range h.Chain.Rules {
			if &h.Chain.Rules[j] == h.Rule {
				out = append(out, p.side.rule(filter, h.Chain, j, RoleHealthCheck))
			}
		}
	}
	return out
}
