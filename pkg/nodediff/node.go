// SPDX-License-Identifier: Apache-2.0

package nodediff

import (
	"fmt"
	"maps"
	"slices"

	"github.com/svcscope/svcscope/pkg/kubeproxy"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/policy"
	"github.com/svcscope/svcscope/pkg/ruleset"
	"github.com/svcscope/svcscope/pkg/service"
)

// node compares what concerns all Services.
func (c *comparison) node() []Difference {
	a, b := c.a, c.b
	out := value(ProxyMode, "kube-proxy", a.mode(), b.mode())
	out = append(out, value(Kernel, "release", a.node.Kernel, b.node.Kernel)...)
	out = append(out, c.unread()...)
	out = append(out, value(API, "answers", known(a), known(b))...)
	for _, name := range keys(a.node.Sysctls, b.node.Sysctls) {
		out = append(out, value(Sysctl, name, a.node.Sysctls[name], b.node.Sysctls[name])...)
	}
	for _, f := range []netfilter.Family{netfilter.IPv4, netfilter.IPv6, netfilter.FamilyINet} {
		for _, p := range c.pairs(f) {
			out = append(out, c.rules(f, p)...)
		}
	}
	for _, f := range ipFamilies() {
		none := service.PortName{}
		out = append(out, lines(Drift, f.String(), a.drifts(none, f), b.drifts(none, f))...)
	}
	return out
}

func known(s *side) string {
	if s.node.Catalog == nil {
		return "no"
	}
	return "yes"
}

// keys are those of both maps, in order.
func keys[V any](a, b map[string]V) []string {
	all := slices.AppendSeq(slices.Collect(maps.Keys(a)), maps.Keys(b))
	slices.Sort(all)
	return slices.Compact(all)
}

// unread compares which rules could not be read, which leaves open what differs there.
func (c *comparison) unread() []Difference {
	var out []Difference
	for _, b := range backends() {
		out = append(out, value(Unread, string(b), c.a.node.Unread[b], c.b.node.Unread[b])...)
	}
	return out
}

func backends() []ruleset.Backend { return []ruleset.Backend{ruleset.NFT, ruleset.Legacy} }

// pair is rules that are compared; one of the two may be nil.
type pair struct{ a, b *ruleset.Ruleset }

// pairs are the rules of a family: those that kube-proxy works by on both nodes, in
// whatever backend each has them, and the rest backend by backend.
func (c *comparison) pairs(f netfilter.Family) []pair {
	var out []pair
	at, bt := c.a.at[f], c.b.at[f]
	if at != nil && bt != nil && at.Set.Backend != bt.Set.Backend {
		out = append(out, pair{at.Set, bt.Set})
	} else {
		at, bt = nil, nil
	}
	for _, b := range backends() {
		p := pair{c.a.rulesOf(b, f), c.b.rulesOf(b, f)}
		if at != nil && p.a == at.Set {
			p.a = nil
		}
		if bt != nil && p.b == bt.Set {
			p.b = nil
		}
		if p != (pair{}) {
			out = append(out, p)
		}
	}
	return out
}

// backend is the one that a pair is of, as text.
func (p pair) backend() string {
	switch {
	case p.b == nil || p.a != nil && p.a.Backend == p.b.Backend:
		return string(p.a.Backend)
	case p.a == nil:
		return string(p.b.Backend)
	}
	return string(p.a.Backend) + " and " + string(p.b.Backend)
}

// rules compares one pair: built-in chains, kube-proxy's chains for all Services, and
// the rules of others that refuse packets.
func (c *comparison) rules(f netfilter.Family, p pair) []Difference {
	var out []Difference
	if p.a != nil && p.b != nil {
		out = value(Backend, f.String(), string(p.a.Backend), string(p.b.Backend))
	} else {
		out = value(Backend, f.String()+" "+p.backend(), size(p.a), size(p.b))
	}
	for _, t := range tables(p) {
		for _, name := range c.chains(f, p, t) {
			at, bt := p.a.Table(t).Chain(name), p.b.Table(t).Chain(name)
			object := fmt.Sprintf("%s %s (%s, %s)", t, name, p.backend(), f)
			out = append(out, value(Policy, object, policyOf(at, bt), policyOf(bt, at))...)
			plainA, strayA := c.plain(c.a, f, p.a, at)
			plainB, strayB := c.plain(c.b, f, p.b, bt)
			out = append(out, ordered(object, plainA, plainB)...)
			out = append(out, lines(Rule, object, strayA, strayB)...)
		}
		object := fmt.Sprintf("%s, refusing (%s, %s)", t, p.backend(), f)
		out = append(out, lines(Rule, object, c.a.refusing(p.a, t), c.b.refusing(p.b, t))...)
	}
	return out
}

// size is how many rules there are; empty without any.
func size(rs *ruleset.Ruleset) string {
	if rs == nil {
		return ""
	}
	n := 0
	for _, t := range rs.Tables {
		for _, chain := range t.Chains {
			n += len(chain.Rules)
		}
	}
	return fmt.Sprintf("%d rules in %d tables", n, len(rs.Tables))
}

// tables are the names of the tables of a pair.
func tables(p pair) []string {
	var all []string
	for _, rs := range []*ruleset.Ruleset{p.a, p.b} {
		if rs == nil {
			continue
		}
		for _, t := range rs.Tables {
			if !slices.Contains(all, t.Name) {
				all = append(all, t.Name)
			}
		}
	}
	return all
}

// chains are the names of a table's chains whose rules concern all Services: built-in
// ones and kube-proxy's own, but for those of single Services.
func (c *comparison) chains(f netfilter.Family, p pair, table string) []string {
	var all []string
	for _, t := range []*ruleset.Table{p.a.Table(table), p.b.Table(table)} {
		if t == nil {
			continue
		}
		for _, chain := range t.Chains {
			if (chain.Base != nil || shared(f, chain.Name)) && !slices.Contains(all, chain.Name) {
				all = append(all, chain.Name)
			}
		}
	}
	return all
}

// shared reports whether a chain is kube-proxy's or kubelet's for all Services.
func shared(f netfilter.Family, chain string) bool {
	if f == netfilter.FamilyINet {
		return false
	}
	switch kind, _ := kubeproxy.ParseChain(chain); kind {
	case kubeproxy.KindServices, kubeproxy.KindNodePorts, kubeproxy.KindExternalServices, kubeproxy.KindForward,
		kubeproxy.KindProxyFirewall, kubeproxy.KindKubeFirewall, kubeproxy.KindMarkMasq, kubeproxy.KindMarkDrop,
		kubeproxy.KindPostrouting:
		return true
	}
	return false
}

// policyOf is the policy of a built-in chain. One that is not there lets packets
// through.
func policyOf(c, other *ruleset.Chain) string {
	switch {
	case c != nil && c.Base != nil:
		return c.Base.Policy.String()
	case other != nil && other.Base != nil:
		return ruleset.Accept.String()
	}
	return ""
}

// plain are the rules of a chain in iptables' words, but for those of single Services, which
// are compared with these. Of stray rules, whose Service is not known, the order is chance.
func (c *comparison) plain(s *side, f netfilter.Family, rs *ruleset.Ruleset, chain *ruleset.Chain) (rules, stray []string) {
	if chain == nil {
		return nil, nil
	}
	ofServices := make(map[*ruleset.Rule]bool) // with whether the Service is known
	if at := s.at[f]; at != nil && at.Set == rs {
		for i := range at.View.Dispatch {
			ofServices[at.View.Dispatch[i].Rule] = c.known[at.View.Dispatch[i].Hash]
		}
		for i := range at.View.Refusals {
			ofServices[at.View.Refusals[i].Rule] = c.known[at.View.Refusals[i].Hash]
		}
		for i := range at.View.HealthChecks {
			h := &at.View.HealthChecks[i]
			ofServices[h.Rule] = c.hasService(h.Port.Name)
		}
	}
	for i := range chain.Rules {
		r := &chain.Rules[i]
		switch known, one := ofServices[r]; {
		case !one:
			rules = append(rules, s.general(r.Spec(f)))
		case !known:
			stray = append(stray, s.general(r.Spec(f)))
		}
	}
	return rules, stray
}

// hasService reports whether a port of a Service is known.
func (c *comparison) hasService(name service.Name) bool {
	for p := range c.ports {
		if p.Name == name {
			return true
		}
	}
	return false
}

// refusing are the rules that drop or reject packets in chains of others, but for those
// of network policies and host ports, of which each node has those of its pods.
func (s *side) refusing(rs *ruleset.Ruleset, table string) []string {
	t := rs.Table(table)
	if t == nil || ofPods(policy.OwnerOfTable(table)) {
		return nil
	}
	var all []string
	for _, c := range t.Chains {
		if c.Base != nil || ofPods(policy.Owner(c.Name)) {
			continue
		}
		for i := range c.Rules {
			if r := &c.Rules[i]; r.Action.Kind == ruleset.Drop || r.Action.Kind == ruleset.Reject {
				all = append(all, s.general(c.Name+" "+r.Spec(rs.Family)))
			}
		}
	}
	return all
}

// ofPods reports whether the chains of an owner are kube-proxy's, which are compared
// otherwise, or follow from the pods of the node.
func ofPods(owner string) bool {
	switch owner {
	case policy.KubeProxy, policy.Kubelet, policy.Calico, policy.KubeRouter, policy.Cilium, policy.Weave, policy.Antrea,
		policy.OVN, policy.AWS, policy.CNI:
		return true
	}
	return false
}
