// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"iter"
	"slices"

	"github.com/svcscope/svcscope/pkg/ruleset"
)

// Logger is a rule that logs packets to a group of NFLOG.
type Logger struct {
	Group  uint16
	Prefix string
	Table  string
	Chain  string
	// Hooks are those by which packets may come to the rule; none where nothing is
	// seen to lead to it.
	Hooks ruleset.Hooks
	// Refuses is true where all that the rule logs is refused, by the rule itself or
	// by the next one: then Refuser is what that one tells.
	Refuses bool
	Refuser Refuser
}

// Loggers yields the rules that log to a group, chain by chain.
func (v *Refusals) Loggers() iter.Seq[*Logger] {
	return func(yield func(*Logger) bool) {
		for _, name := range v.order {
			all := v.chains[name].loggers
			for i := range all {
				if !yield(&all[i]) {
					return
				}
			}
		}
	}
}

func loggersOf(table string, c *ruleset.Chain) []Logger {
	var all []Logger
	for i := range c.Rules {
		a, last, ok := logged(&c.Rules[i])
		if !ok {
			continue
		}
		l := Logger{Group: a.Group, Prefix: a.Details().Prefix, Table: table, Chain: c.Name}
		switch r := &c.Rules[i]; {
		case !last: // what is logged may not have come to the rule's end
		case r.Action.Kind != ruleset.Log && r.Action.Kind != ruleset.Continue:
			l.Refuser, l.Refuses = Refusing(table, c, i)
		case i+1 < len(c.Rules) && takesAll(r, &c.Rules[i+1]):
			l.Refuser, l.Refuses = Refusing(table, c, i+1)
		}
		all = append(all, l)
	}
	return all
}

// logged returns what a rule does to log to a group, which in nf_tables it may do
// before something else; last is false where a condition follows.
func logged(r *ruleset.Rule) (a ruleset.Action, last, ok bool) {
	if toGroup(r.Action) {
		return r.Action, true, true
	}
	for i, m := range r.Matches {
		if also, ok := m.(ruleset.Also); ok && toGroup(also.Action) {
			return also.Action, !slices.ContainsFunc(r.Matches[i+1:], ruleset.MayFail), true
		}
	}
	return ruleset.Action{}, false, false
}

func toGroup(a ruleset.Action) bool { return a.Kind == ruleset.Log && a.Target() == "NFLOG" }

// takesAll reports whether next matches all that r does: it has no condition that r
// does not have, too, and none that another packet changes.
func takesAll(r, next *ruleset.Rule) bool {
	return !slices.ContainsFunc(next.Matches, func(m ruleset.Match) bool {
		if !ruleset.MayFail(m) {
			return false
		}
		switch m.(type) {
		case ruleset.Limit, ruleset.Random, ruleset.Nth, ruleset.Recent, ruleset.Unknown:
			return true
		}
		text := m.String()
		return !slices.ContainsFunc(r.Matches, func(m ruleset.Match) bool { return m.String() == text })
	})
}
