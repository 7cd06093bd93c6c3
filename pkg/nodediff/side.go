// SPDX-License-Identifier: Apache-2.0

package nodediff

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/svcscope/svcscope/pkg/capture"
	"github.com/svcscope/svcscope/pkg/drift"
	"github.com/svcscope/svcscope/pkg/kubeproxy"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/ruleset"
	"github.com/svcscope/svcscope/pkg/service"
)

// side is one node, with what its rules say.
type side struct {
	node  *capture.Node
	rules []drift.Rules
	// at has the rules by which kube-proxy's iptables mode works, by family.
	at    map[netfilter.Family]*familyRules
	drift *drift.Result
	// own are the texts that stand for this node alone, and what they are.
	own map[string]string
}

// familyRules are the rules of one family in which kube-proxy's chains are, with the rules
// about each port that stand in chains of all Services.
type familyRules struct {
	drift.Rules
	dispatch map[string][]*kubeproxy.Dispatch
	refusals map[string][]*kubeproxy.Refusal
	health   map[service.Name][]*kubeproxy.HealthCheck
}

func newSide(n *capture.Node) *side {
	s := &side{node: n, at: make(map[netfilter.Family]*familyRules), own: ownTexts(n)}
	for i := range n.Rules {
		r := &n.Rules[i]
		s.rules = append(s.rules, drift.Rules{View: kubeproxy.NewView(r.Set), Set: r.Set, NFTablesMode: r.NFTablesMode})
	}
	for _, f := range ipFamilies() {
		if r := s.active(f); r != nil {
			s.at[f] = newFamilyRules(r)
		}
	}
	s.drift = drift.Compare(&drift.Input{Catalog: n.Catalog, NodeMissing: n.NodeMissing, Rules: s.rules, IPVS: n.IPVS})
	return s
}

func ipFamilies() []netfilter.Family { return []netfilter.Family{netfilter.IPv4, netfilter.IPv6} }

// active are the rules that kube-proxy works by in a family: those that packets reach, and
// of such those with more Services; nil without any of its chains.
func (s *side) active(f netfilter.Family) *drift.Rules {
	var best *drift.Rules
	for i := range s.rules {
		r := &s.rules[i]
		if r.Set.Family != f || !r.View.Present {
			continue
		}
		if best == nil || better(r.View, best.View) {
			best = r
		}
	}
	return best
}

func better(v, w *kubeproxy.View) bool {
	if v.Recognised() != w.Recognised() {
		return v.Recognised()
	}
	return len(v.Ports) > len(w.Ports)
}

func newFamilyRules(r *drift.Rules) *familyRules {
	f := &familyRules{
		Rules: *r, dispatch: make(map[string][]*kubeproxy.Dispatch), refusals: make(map[string][]*kubeproxy.Refusal),
		health: make(map[service.Name][]*kubeproxy.HealthCheck),
	}
	for i := range r.View.Dispatch {
		d := &r.View.Dispatch[i]
		f.dispatch[d.Hash] = append(f.dispatch[d.Hash], d)
	}
	for i := range r.View.Refusals {
		d := &r.View.Refusals[i]
		f.refusals[d.Hash] = append(f.refusals[d.Hash], d)
	}
	for i := range r.View.HealthChecks {
		h := &r.View.HealthChecks[i]
		f.health[h.Port.Name] = append(f.health[h.Port.Name], h)
	}
	return f
}

// rulesOf are the rules of one backend and family; nil where there are none.
func (s *side) rulesOf(b ruleset.Backend, f netfilter.Family) *ruleset.Ruleset {
	for i := range s.rules {
		if set := s.rules[i].Set; set.Backend == b && set.Family == f && len(set.Tables) > 0 {
			return set
		}
	}
	return nil
}

// mode is the proxy mode that the rules show.
func (s *side) mode() string {
	native := false
	for i := range s.rules {
		native = native || s.rules[i].NFTablesMode
	}
	switch {
	case native:
		return "nftables"
	case s.node.IPVS && !s.balances():
		return "ipvs"
	case len(s.at) > 0:
		return "iptables"
	case s.node.IPVS:
		return "ipvs"
	}
	return "none"
}

// balances reports whether some Service has a chain of its own: in IPVS mode none has.
func (s *side) balances() bool {
	for _, r := range s.rules {
		for _, p := range r.View.Ports {
			if p.Service != nil || p.Local != nil {
				return true
			}
		}
	}
	return false
}

// head is what a report tells of the node itself.
func (s *side) head() Side {
	out := Side{
		Node: s.node.Name, Time: s.node.Time, Kernel: s.node.Kernel, ProxyMode: s.mode(), Backends: []string{},
		API: s.node.Catalog != nil,
	}
	for _, b := range []ruleset.Backend{ruleset.NFT, ruleset.Legacy} {
		if slices.ContainsFunc(ipFamilies(), func(f netfilter.Family) bool { return s.rulesOf(b, f) != nil }) {
			out.Backends = append(out.Backends, string(b))
		}
	}
	return out
}

// drifts are the kinds that are found in a port of a family, or with the zero port in
// the node, with their details.
func (s *side) drifts(p service.PortName, f netfilter.Family) []string {
	var all []string
	for i := range s.drift.Differences {
		d := &s.drift.Differences[i]
		if d.Port == p && d.Family == f {
			words := strings.Fields(string(d.Kind) + " " + string(d.Frontend) + " " + d.Detail)
			all = append(all, s.general(strings.Join(words, " ")))
		}
	}
	return all
}

// silent reports whether something is wrong with the node that keeps what is wrong with
// single Services from being told.
func (s *side) silent(f netfilter.Family) bool {
	return slices.ContainsFunc(s.drift.Differences, func(d drift.Difference) bool {
		return d.Family == f && d.Port == service.PortName{} && (d.Kind == drift.JumpMissing || d.Kind == drift.EmptyChain || d.Kind == drift.TwoModes)
	})
}

// ownTexts are the node's own addresses and the ranges of its pods: another node has
// others, rightly.
func ownTexts(n *capture.Node) map[string]string {
	own := make(map[string]string)
	if n.Catalog == nil {
		return own
	}
	for _, p := range n.Catalog.Node.PodRanges {
		own[p.String()] = "<pods of the node>"
	}
	for _, a := range n.Catalog.Node.IPs {
		own[a.String()], own[netip.PrefixFrom(a, a.BitLen()).String()] = "<the node>", "<the node>"
	}
	return own
}

// general is a text in which a word that stands for this node alone is replaced.
func (s *side) general(text string) string {
	if len(s.own) == 0 {
		return text
	}
	words := strings.Split(text, " ")
	for i, w := range words {
		if g, ok := s.own[w]; ok {
			words[i] = g
		}
	}
	return strings.Join(words, " ")
}
