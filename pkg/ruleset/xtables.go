// SPDX-License-Identifier: Apache-2.0

package ruleset

import (
	"slices"

	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/xtables"
)

// XTables keeps the rules of legacy iptables of one family from one reading to
// the next. A reading writes the counters of what is as before into the rules
// that are there, and converts only chains whose rules changed. It refers to no
// table's bytes, and is for one goroutine.
type XTables struct {
	set    *Ruleset
	tables map[string]*followed
}

// followed is one table and what its chains are known by.
type followed struct {
	table     *Table
	chains    []known // one for each of table.Chains
	spare     []known // an array to use again
	index     map[string]int
	moved     []*Chain // an array to use again
	undecoded map[string]uint64
}

// known is a chain as it was read last.
type known struct {
	chain     *Chain
	digest    uint64
	undecoded map[string]uint64 // nil where all of it is understood
}

// NewXTables returns the rules of a family of which nothing was read yet.
func NewXTables(family netfilter.Family) *XTables {
	return &XTables{set: &Ruleset{Backend: Legacy, Family: family}, tables: make(map[string]*followed)}
}

// Ruleset returns what was read: always the same Ruleset, whose tables and
// unchanged chains stay the same values in memory.
func (x *XTables) Ruleset() *Ruleset { return x.set }

// Undecoded counts what stands in the rules without being understood, by kind
// (Converter.Undecoded). The map is the caller's.
func (x *XTables) Undecoded() map[string]uint64 {
	sum := make(map[string]uint64)
	for _, f := range x.tables {
		addKinds(sum, f.undecoded)
	}
	return sum
}

func addKinds(sum, more map[string]uint64) {
	for kind, n := range more {
		sum[kind] += n
	}
}

// Exist says which tables there are, in the kernel's order, and returns what
// went with those that are gone.
func (x *XTables) Exist(names []string) []Delta {
	var gone []Delta
	for _, t := range x.set.Tables {
		if !slices.Contains(names, t.Name) {
			d := Delta{Table: t.Name}
			for _, c := range t.Chains {
				d.Gone = append(d.Gone, c.Name)
			}
			gone = append(gone, d)
			delete(x.tables, t.Name)
		}
	}
	if len(gone) > 0 {
		x.set.Tables = slices.DeleteFunc(x.set.Tables, func(t *Table) bool { return x.tables[t.Name] == nil })
	}
	place := func(t *Table) int { return slices.Index(names, t.Name) }
	slices.SortStableFunc(x.set.Tables, func(a, b *Table) int { return place(a) - place(b) })
	return gone
}

// Update takes a reading of one table. With an error, which is that of damaged
// bytes, the rules are those of before, and their counters of no use until the
// next reading. The Delta's Moved is good until that, too.
func (x *XTables) Update(t *xtables.Table) (Delta, error) {
	f := x.tables[t.Name]
	fresh := f == nil
	if fresh {
		f = &followed{table: NewTable(t.Name, 0, nil)}
	}
	u := update{followed: f, family: t.Family, delta: Delta{Table: t.Name, Moved: f.moved[:0]}}
	if err := t.Walk(u.visit); err != nil {
		return Delta{}, err
	}
	if fresh {
		x.tables[t.Name] = f
		x.set.Tables = append(x.set.Tables, f.table)
	}
	return u.end(), nil
}

// update is one reading of a table.
type update struct {
	*followed
	family netfilter.Family
	at     int     // chains met
	from   int     // where the next one was before, most likely
	next   []known // the chains met, once they differ from those before
	differ bool
	seen   []bool // which of the chains before were met, once they differ
	delta  Delta
	c      *Converter // nil while there is nothing to convert
}

func (u *update) visit(x *xtables.Chain) error {
	i := u.find(x.Name)
	if i >= 0 && u.chains[i].digest == x.Digest && len(u.chains[i].chain.Rules) == x.Len {
		u.count(u.chains[i].chain, x)
		u.add(i, u.chains[i])
		return nil
	}
	if err := x.Check(); err != nil {
		return err
	}
	if u.c == nil {
		u.c = NewConverter(u.family)
	}
	k := known{chain: u.c.XTablesChain(x), digest: x.Digest, undecoded: u.c.take()}
	u.delta.Changed = append(u.delta.Changed, k.chain)
	u.diverge()
	u.add(i, k)
	return nil
}

// find returns the place of the chain of that name at the reading before, or
// -1. Mostly it is the one behind the last.
func (u *update) find(name []byte) int {
	if u.from < len(u.chains) && u.chains[u.from].chain.Name == string(name) {
		return u.from
	}
	if u.index == nil {
		u.index = make(map[string]int, len(u.chains))
		for i := range u.chains {
			u.index[u.chains[i].chain.Name] = i
		}
	}
	if i, ok := u.index[string(name)]; ok {
		return i
	}
	return -1
}

// count writes the counters of x into c.
func (u *update) count(c *Chain, x *xtables.Chain) {
	rules, moved, fell := c.Rules, false, false
	x.Counters(func(i int, n netfilter.Counter) {
		if was := &rules[i].Counter; *was != n {
			moved, fell = true, fell || n.Packets < was.Packets
			*was = n
		}
	})
	if moved {
		u.delta.Moved = append(u.delta.Moved, c)
	}
	u.delta.Fell = u.delta.Fell || fell && c.Base != nil
}

// add puts a chain behind those that were met; i is its place before, or -1.
func (u *update) add(i int, k known) {
	if i != u.at {
		u.diverge()
	}
	if u.differ {
		u.next = append(u.next, k)
	}
	if i >= 0 {
		u.from = i + 1
		if u.differ {
			u.seen[i] = true
		}
	}
	u.at++
}

// diverge begins the list of chains that this reading makes.
func (u *update) diverge() {
	if u.differ {
		return
	}
	u.differ = true
	u.next = append(u.spare[:0], u.chains[:u.at]...)
	u.seen = make([]bool, len(u.chains))
	for i := range u.at {
		u.seen[i] = true
	}
}

// end makes what was met the table's.
func (u *update) end() Delta {
	u.moved = u.delta.Moved
	if u.at != len(u.chains) {
		u.diverge()
	}
	if !u.differ {
		return u.delta
	}
	d := u.delta
	for i, seen := range u.seen {
		if !seen {
			d.Gone = append(d.Gone, u.chains[i].chain.Name)
		}
	}
	u.table.update(u.next, &d)
	f := u.followed
	clear(f.chains)
	f.chains, f.spare, f.index = u.next, f.chains, nil
	f.undecoded = make(map[string]uint64)
	for i := range f.chains {
		addKinds(f.undecoded, f.chains[i].undecoded)
	}
	return d
}

// update gives a table other chains.
func (t *Table) update(chains []known, d *Delta) {
	t.Chains = make([]*Chain, len(chains))
	for i := range chains {
		t.Chains[i] = chains[i].chain
	}
	for _, name := range d.Gone {
		delete(t.byName, name)
	}
	for _, c := range d.Changed {
		t.byName[c.Name] = c
	}
	t.findBase()
}
