// SPDX-License-Identifier: Apache-2.0

package correlate

import (
	"reflect"

	"github.com/svcscope/svcscope/pkg/ruleset"
)

// SameRules reports whether two readings of one backend and family hold the
// same tables, chains and rules, whatever their counters say.
func SameRules(a, b *ruleset.Ruleset) bool {
	if len(a.Tables) != len(b.Tables) {
		return false
	}
	for i, t := range a.Tables {
		if u := b.Tables[i]; t.Name != u.Name || t.Handle != u.Handle || !sameChains(t.Chains, u.Chains) {
			return false
		}
	}
	return true
}

func sameChains(a, b []*ruleset.Chain) bool {
	if len(a) != len(b) {
		return false
	}
	for i, c := range a {
		d := b[i]
		if c.Name != d.Name || len(c.Rules) != len(d.Rules) || (c.Base == nil) != (d.Base == nil) ||
			c.Base != nil && *c.Base != *d.Base {
			return false
		}
		for j := range c.Rules {
			if !sameRule(&c.Rules[j], &d.Rules[j]) {
				return false
			}
		}
	}
	return true
}

func sameRule(r, q *ruleset.Rule) bool {
	if r.Handle != q.Handle || r.Comment != q.Comment || r.Action != q.Action || len(r.Matches) != len(q.Matches) {
		return false
	}
	for i, m := range r.Matches {
		if !sameMatch(m, q.Matches[i]) {
			return false
		}
	}
	return true
}

// sameMatch compares by value; a few matches hold slices.
func sameMatch(m, n ruleset.Match) bool {
	if reflect.TypeOf(m).Comparable() {
		return m == n
	}
	return reflect.DeepEqual(m, n)
}
