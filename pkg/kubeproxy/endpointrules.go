// SPDX-License-Identifier: Apache-2.0

package kubeproxy

import "github.com/svcscope/svcscope/pkg/ruleset"

// endpointRules reads what kube-proxy writes into a KUBE-SEP chain: a rule that has
// connections of the endpoint to itself masqueraded, and the DNAT rule, which with
// client affinity notes the client first.
func endpointRules(c *ruleset.Chain) EndpointRules {
	out := EndpointRules{Rules: len(c.Rules)}
	for i := range c.Rules {
		r := &c.Rules[i]
		switch {
		case r.Action.Kind == ruleset.DNAT && !out.To.IsValid():
			out.To = r.Action.Details().To
			out.Remembers = notes(r, c.Name)
			out.Cut = out.Cut || conditional(r)
		case r.Action.Chain == ChainMarkMasq:
			out.Hairpin = true
		case !out.To.IsValid():
			out.Cut = out.Cut || r.Action.Ends()
		}
	}
	return out
}

// conditional reports whether a DNAT rule asks for more than a protocol. What is not decoded is
// taken to hold.
func conditional(r *ruleset.Rule) bool {
	for _, m := range r.Matches {
		switch m := m.(type) {
		case ruleset.Protocol, ruleset.Unknown:
		case ruleset.Recent:
			if !m.Set {
				return true
			}
		default:
			if ruleset.MayFail(m) {
				return true
			}
		}
	}
	return false
}

// notes reports whether a rule puts the client into the list of that name.
func notes(r *ruleset.Rule, list string) bool {
	for _, m := range r.Matches {
		if recent, ok := m.(ruleset.Recent); ok && recent.Set && recent.List == list {
			return true
		}
	}
	return false
}

// Returning is the condition of a rule that takes clients that come back; nil of
// others.
func Returning(r *ruleset.Rule) *ruleset.Recent {
	for _, m := range r.Matches {
		if recent, ok := m.(ruleset.Recent); ok && !recent.Set && !recent.Not {
			return &recent
		}
	}
	return nil
}
