// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"slices"

	"github.com/svcscope/svcscope/pkg/drift"
	"github.com/svcscope/svcscope/pkg/netfilter"
)

// mode is how kube-proxy works in a family, in the words of the label proxy_mode.
func (b *builder) mode(f netfilter.Family) string {
	twoModes := func(d drift.Difference) bool { return d.Kind == drift.TwoModes && d.Family == f }
	switch {
	case slices.Contains(b.result.Families, f) || slices.ContainsFunc(b.result.Differences, twoModes):
		return "iptables"
	case slices.ContainsFunc(b.sides, func(s *side) bool { return s.set.Family == f && s.nftables }):
		return "nftables"
	case b.node.IPVS:
		return "ipvs"
	case len(b.node.Unread) > 0:
		return "unknown"
	}
	return "none"
}

// unexplained is why a mode has no path.
func unexplained(mode string) Unexplained {
	return map[string]Unexplained{
		"nftables": NFTablesMode, "ipvs": IPVSMode, "unknown": RulesUnread, "none": NoRules,
	}[mode]
}

// shown are the rules of a family that packets pass; where they come to none, all that
// have something of kube-proxy's.
func (b *builder) shown(f netfilter.Family) []*side {
	var all, reached []*side
	for _, s := range b.sides {
		if s.set.Family != f || !s.view.Present && len(s.view.Ports) == 0 && len(s.view.Refusals) == 0 {
			continue
		}
		all = append(all, s)
		if s.view.Recognised() {
			reached = append(reached, s)
		}
	}
	if len(reached) > 0 {
		return reached
	}
	return all
}

// knows reports whether rules are about a port.
func (s *side) knows(hash string) bool {
	if s.view.Ports[hash] != nil {
		return true
	}
	for i := range s.view.Dispatch {
		if s.view.Dispatch[i].Hash == hash {
			return true
		}
	}
	for i := range s.view.Refusals {
		if s.view.Refusals[i].Hash == hash {
			return true
		}
	}
	return false
}

// family is what concerns all Services.
func (b *builder) family(f netfilter.Family) Family {
	out := Family{IPFamily: f.String(), ProxyMode: b.mode(f)}
	if slices.Contains(b.result.Families, f) {
		out.Differences = []Difference{}
	}
	for i := range b.result.Differences {
		if d := &b.result.Differences[i]; d.OfNode() && d.Family == f {
			out.Differences = append(out.Differences, difference(d))
		}
	}
	return out
}

func difference(d *drift.Difference) Difference {
	return Difference{Kind: string(d.Kind), Frontend: string(d.Frontend), Detail: d.Detail, InFlight: d.InFlight}
}

// judged are the port's differences; nil where they were not looked for.
func (p *pathBuilder) judged() []Difference {
	var out []Difference
	if slices.Contains(p.result.Families, p.family) && p.catalog != nil && !p.unsure {
		out = []Difference{}
	}
	for i := range p.result.Differences {
		if d := &p.result.Differences[i]; d.Port == p.port.name && d.Family == p.family {
			out = append(out, difference(d))
		}
	}
	return out
}
