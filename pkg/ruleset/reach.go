// SPDX-License-Identifier: Apache-2.0

package ruleset

import (
	"strings"

	"github.com/svcscope/svcscope/pkg/netfilter"
)

// Hooks is a set of netfilter.Hook: bit n is hook n.
type Hooks uint8

// Has reports whether h is in the set.
func (s Hooks) Has(h netfilter.Hook) bool { return s&(1<<h) != 0 }

// String is the lower-case names of all hooks in the set, in the order in which a packet
// passes them, with "+" between them; "" of an empty one.
func (s Hooks) String() string {
	var names []string
	for h := netfilter.Hook(0); h < netfilter.NumHooks; h++ {
		if s.Has(h) {
			names = append(names, strings.ToLower(h.String()))
		}
	}
	return strings.Join(names, "+")
}

// Reach returns by which hooks a packet may come to each chain of the table: by
// those of the built-in chains that lead to it with jumps and gotos, and with verdict
// maps that are in Maps. Conditions are taken to hold. A chain that nothing leads to is
// not in the map, and what an unread chain leads to is not known.
func (t *Table) Reach() map[*Chain]Hooks {
	reach := make(map[*Chain]Hooks)
	for _, c := range t.Chains {
		if c.Base != nil && c.Base.Hook < netfilter.NumHooks {
			t.reach(c, 1<<c.Base.Hook, reach)
		}
	}
	return reach
}

// reach adds hooks to a chain and to what it leads to. The kernel has no loops of
// chains; what was read from it in parts may, and ends where nothing is added.
func (t *Table) reach(c *Chain, hooks Hooks, reach map[*Chain]Hooks) {
	todo := []*Chain{c}
	for len(todo) > 0 {
		c, todo = todo[len(todo)-1], todo[:len(todo)-1]
		if reach[c]|hooks == reach[c] {
			continue
		}
		reach[c] |= hooks
		for i := range c.Rules {
			if a := &c.Rules[i].Action; a.Kind == Map {
				for _, name := range t.Maps[a.More.Name] {
					todo = t.appendChain(todo, name)
				}
			} else {
				todo = t.appendChain(todo, a.Chain)
			}
		}
	}
}

func (t *Table) appendChain(to []*Chain, name string) []*Chain {
	if c := t.Chain(name); c != nil {
		to = append(to, c)
	}
	return to
}
