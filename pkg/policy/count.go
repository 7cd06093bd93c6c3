// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"slices"

	"github.com/svcscope/svcscope/pkg/ruleset"
)

// Size is how much of one table is one owner's.
type Size struct {
	Table  string
	Owner  string
	Rules  int
	Chains int
}

// CountByOwner counts the rules and chains of a ruleset by table and owner,
// sorted by both. A rule of a built-in chain belongs to the owner of the chain
// that it jumps to, and to Other where it does not jump; built-in chains are
// counted as Other's. In a native nft table of a known owner all is that
// owner's. Of an unread chain of nf_tables the rules are its use
// less the jumps to it from chains that were read: an upper bound. A nil
// ruleset gives nil.
func CountByOwner(rs *ruleset.Ruleset) []Size {
	if rs == nil {
		return nil
	}
	var out []Size
	for _, t := range rs.Tables {
		out = append(out, countTable(t)...)
	}
	slices.SortFunc(out, func(a, b Size) int {
		return cmp.Or(cmp.Compare(a.Table, b.Table), cmp.Compare(a.Owner, b.Owner))
	})
	return out
}

func countTable(t *ruleset.Table) []Size {
	var out []Size
	at := func(owner string) *Size {
		for i := range out {
			if out[i].Owner == owner {
				return &out[i]
			}
		}
		out = append(out, Size{Table: t.Name, Owner: owner})
		return &out[len(out)-1]
	}
	byChain := Owner
	if owner := OwnerOfTable(t.Name); owner != Other {
		byChain = func(string) string { return owner }
	}
	for _, c := range t.Chains {
		owner := byChain(c.Name)
		at(owner).Chains++
		switch {
		case c.Unread:
			at(owner).Rules += int(c.Use)
		case c.Base == nil:
			at(owner).Rules += len(c.Rules)
		default:
			for i := range c.Rules {
				at(byChain(c.Rules[i].Action.Chain)).Rules++
			}
		}
	}
	subtractJumps(t, byChain, at)
	return out
}

// subtractJumps takes what is known to jump to a chain whose rules were not
// read from that chain's use, which counts both.
func subtractJumps(t *ruleset.Table, ownerOf func(string) string, at func(string) *Size) {
	unread := func(c *ruleset.Chain) bool { return c.Unread }
	if !slices.ContainsFunc(t.Chains, unread) {
		return
	}
	next := 0 // jumps are to chains in the table's order, mostly
	for _, c := range t.Chains {
		for i := range c.Rules {
			name := c.Rules[i].Action.Chain
			if name == "" {
				continue
			}
			to, after := t.ChainNear(next, name)
			if to == nil || !to.Unread {
				continue
			}
			next = after
			if owner := at(ownerOf(name)); owner.Rules > 0 {
				owner.Rules--
			}
		}
	}
}
