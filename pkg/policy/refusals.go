// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"iter"
	"slices"

	"github.com/svcscope/svcscope/pkg/ruleset"
)

// Refusals finds the rules of one ruleset that refuse packets, and those that log
// them. It refers to the ruleset's chains and copies no rule. The zero value is empty. It
// is for one goroutine.
type Refusals struct {
	chains map[chainName]found
	order  []chainName // as they were found
	// named has by which hooks packets come to rules that name a pod or policy; nil
	// until it is asked for.
	named map[namedRefuser]ruleset.Hooks
}

// namedRefuser is what rules have in common that are each other's successors.
type namedRefuser struct {
	table string
	Refuser
}

// found is what a chain has.
type found struct {
	refusals []Refusal
	loggers  []Logger
}

func (f found) none() bool { return len(f.refusals)+len(f.loggers) == 0 }

// Refusal is a rule that drops or rejects packets.
type Refusal struct {
	Refuser
	Table string
	Chain *ruleset.Chain
	Index int
	// Hooks are those by which packets may come to the rule; none where nothing is
	// seen to lead to it.
	Hooks ruleset.Hooks
}

type chainName struct{ table, chain string }

// Update takes what a reading has changed in a ruleset, which is the same at each
// call.
func (v *Refusals) Update(rs *ruleset.Ruleset, deltas []ruleset.Delta) {
	v.named = nil
	for i := range deltas {
		d := &deltas[i]
		if d.Same() {
			continue
		}
		for _, name := range d.Gone {
			v.set(chainName{d.Table, name}, found{})
		}
		for _, c := range d.Changed {
			v.set(chainName{d.Table, c.Name}, found{refusalsOf(d.Table, c), loggersOf(d.Table, c)})
		}
		v.reach(rs.Table(d.Table))
	}
}

// Has reports whether a chain has rules that refuse packets.
func (v *Refusals) Has(table, chain string) bool {
	return len(v.chains[chainName{table, chain}].refusals) > 0
}

// Known reports whether a chain has rules that refuse packets, or log them.
func (v *Refusals) Known(table, chain string) bool {
	_, ok := v.chains[chainName{table, chain}]
	return ok
}

// Hooks are those by which packets may come to the refusing rules of a chain; none
// where it has no such rules.
func (v *Refusals) Hooks(table, chain string) ruleset.Hooks {
	if all := v.chains[chainName{table, chain}].refusals; len(all) > 0 {
		return all[0].Hooks
	}
	return 0
}

// Like returns what is known of a rule that came without its chain, as notices bring
// them: what v has of the rule of that handle, else f, with the hooks of its chain. A
// chain that is not known may stand for one by another name (kube-router's, whose
// names change): then the hooks are those of rules for the same pod or policy.
func (v *Refusals) Like(f *Refusal) *Refusal {
	like := *f
	if like.Hooks = v.Hooks(f.Table, f.Chain.Name); !v.Has(f.Table, f.Chain.Name) {
		like.Hooks = v.hooksOfNamed(f)
	}
	handle := f.Chain.Rules[f.Index].Handle
	for _, k := range v.chains[chainName{f.Table, f.Chain.Name}].refusals {
		if handle != 0 && k.Chain.Rules[k.Index].Handle == handle {
			like.Refuser = k.Refuser
		}
	}
	return &like
}

// hooksOfNamed are those of rules that tell the same as f.
func (v *Refusals) hooksOfNamed(f *Refusal) ruleset.Hooks {
	if f.Pod == (Object{}) && f.Policy == (Object{}) && f.Interface == "" {
		return 0
	}
	if v.named == nil {
		v.named = make(map[namedRefuser]ruleset.Hooks)
		for k := range v.All() {
			v.named[namedRefuser{k.Table, k.Refuser}] |= k.Hooks
		}
	}
	return v.named[namedRefuser{f.Table, f.Refuser}]
}

// All yields the rules that refuse packets chain by chain, and those of a chain in its
// order.
func (v *Refusals) All() iter.Seq[*Refusal] {
	return func(yield func(*Refusal) bool) {
		for _, name := range v.order {
			all := v.chains[name].refusals
			for i := range all {
				if !yield(&all[i]) {
					return
				}
			}
		}
	}
}

// Chains yields the tables and names of chains that have rules that refuse packets.
func (v *Refusals) Chains() iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		for _, name := range v.order {
			if len(v.chains[name].refusals) > 0 && !yield(name.table, name.chain) {
				return
			}
		}
	}
}

func refusalsOf(table string, c *ruleset.Chain) []Refusal {
	var all []Refusal
	for i := range c.Rules {
		if f, ok := Refusing(table, c, i); ok {
			all = append(all, Refusal{Refuser: f, Table: table, Chain: c, Index: i})
		}
	}
	return all
}

func (v *Refusals) set(name chainName, f found) {
	_, known := v.chains[name]
	switch {
	case f.none() && !known:
		return
	case f.none():
		delete(v.chains, name)
		v.order = slices.DeleteFunc(v.order, func(n chainName) bool { return n == name })
		return
	case !known:
		v.order = append(v.order, name)
	}
	if v.chains == nil {
		v.chains = make(map[chainName]found)
	}
	v.chains[name] = f
}

// reach finds anew by which hooks packets come to the rules of a table.
func (v *Refusals) reach(t *ruleset.Table) {
	if t == nil {
		return
	}
	var hooks map[*ruleset.Chain]ruleset.Hooks
	for name, f := range v.chains {
		if name.table != t.Name {
			continue
		}
		if hooks == nil {
			hooks = t.Reach()
		}
		for i := range f.refusals {
			f.refusals[i].Hooks = hooks[f.refusals[i].Chain]
		}
		for i := range f.loggers {
			f.loggers[i].Hooks = hooks[t.Chain(f.loggers[i].Chain)]
		}
	}
}
