// SPDX-License-Identifier: Apache-2.0

package ruleset

// Delta is what one reading has changed in a table.
type Delta struct {
	Table string
	// Changed are chains that are new, or have other rules than before: they
	// are other pointers than before, too.
	Changed []*Chain
	// Moved are chains of which only counters changed.
	Moved []*Chain
	// Gone are the names of chains that exist no more.
	Gone []string
	// Resized tells that nf_tables' use of some chain is another one, that maps lead
	// to other chains, or that a set has other elements.
	Resized bool
	// Fell is true where a rule that stands in a built-in chain, as before,
	// has counted less than before. In x_tables a reading looks so that fell
	// between a writer's two system calls: all rules that are kept read 0
	// until their counters are added again.
	Fell bool
}

// Same reports whether at most counters changed.
func (d *Delta) Same() bool { return len(d.Changed) == 0 && len(d.Gone) == 0 && !d.Resized }

// Anew returns the Deltas of a ruleset of which nothing was known before.
func (r *Ruleset) Anew() []Delta {
	all := make([]Delta, 0, len(r.Tables))
	for _, t := range r.Tables {
		all = append(all, Delta{Table: t.Name, Changed: t.Chains})
	}
	return all
}

// deltas collects them by table, in the order in which they come up.
type deltas struct{ all []*Delta }

func (d *deltas) of(table string) *Delta {
	for _, t := range d.all {
		if t.Table == table {
			return t
		}
	}
	t := &Delta{Table: table}
	d.all = append(d.all, t)
	return t
}

// list leaves out tables in which nothing happened.
func (d *deltas) list() []Delta {
	var out []Delta
	for _, t := range d.all {
		if !t.Same() || len(t.Moved) > 0 {
			out = append(out, *t)
		}
	}
	return out
}
