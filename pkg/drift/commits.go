// SPDX-License-Identifier: Apache-2.0

package drift

import (
	"time"

	"github.com/svcscope/svcscope/pkg/kubeproxy"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/ruleset"
)

// Commit is one of kube-proxy's syncs that has come to its end: nat's KUBE-SERVICES was
// written anew.
type Commit struct {
	Family netfilter.Family
	// Backend holds the rules; empty where that does not matter.
	Backend ruleset.Backend
	// After is a time at which it had not come yet, Seen one at which it had. They are
	// apart as far as readings are, or less where a notice told.
	After, Seen time.Time
	// Half: only filter was written, which a sync does first, in a commit of its own.
	Half bool
}

// Commits finds kube-proxy's commits in readings: by the chains that it writes anew at every
// sync and nobody else does. In nf_tables the rules of such a chain have other handles
// then. In x_tables they are the same, but for those of KUBE-SERVICES, whose order is one of
// chance: of few Services the same comes again. A sync zeroes the counters of that chain, and
// leaves those of the jumps to it, which any other writer zeroes, too, until it adds them again. So
// a sync that writes the old order is seen where connections to Services were counted since the one
// before, more than since; else it is not, nor is one of filter alone. Who edits that chain by hand, or
// zeroes it, looks like kube-proxy there. Several syncs between two readings are
// one. A Judge waits longer for what is not seen. The zero value is ready.
type Commits struct {
	written map[place]written
}

// written has the chains of one backend and family by which a sync is known.
type written struct {
	services, marks, forward *ruleset.Chain
	read                     time.Time // when they were what they are, at least
	// entered is how many packets the jumps to KUBE-SERVICES have counted, and took how many its
	// rules have; dip: of before, as the jumps had counted less at the reading.
	entered, took uint64
	dip           bool
}

// See takes a reading, and returns the commits since the one before.
func (c *Commits) See(rules []Rules, now time.Time) []Commit {
	var out []Commit
	all := make(map[place]written, len(rules))
	for i := range rules {
		r := &rules[i]
		nat := r.Set.Table("nat")
		w := written{
			services: nat.Chain(servicesChain()), marks: nat.Chain(kubeproxy.ChainMarkMasq),
			forward: r.Set.Table("filter").Chain(kubeproxy.ChainForward), read: now.Add(-r.Age),
		}
		key := place{r.View.Backend, r.View.Family}
		old, known := c.written[key]
		zeroed := false
		if key.backend == ruleset.Legacy {
			zeroed = w.count(nat, &old)
		}
		all[key] = w
		if !known || w.services == nil || isEmpty(w.services) {
			continue // kube-proxy never leaves it empty
		}
		commit := Commit{Family: key.family, Backend: key.backend, After: old.read, Seen: now}
		switch {
		case zeroed, w.services != old.services && (key.backend == ruleset.Legacy || w.marks != old.marks):
			out = append(out, commit)
		case w.forward != old.forward:
			commit.Half = true
			out = append(out, commit)
		}
	}
	c.written = all
	return out
}

// count takes the counters of x_tables, and reports whether those of KUBE-SERVICES were zeroed since
// the reading before, and no others.
func (w *written) count(nat *ruleset.Table, old *written) (zeroed bool) {
	for c := range nat.BaseChains {
		for i := range c.Rules {
			if r := &c.Rules[i]; r.Action.Chain == servicesChain() {
				w.entered += r.Counter.Packets
			}
		}
	}
	if w.services != nil {
		for i := range w.services.Rules {
			w.took += w.services.Rules[i].Counter.Packets
		}
	}
	if w.entered < old.entered && !old.dip { // a writer is between its two calls, most likely
		w.entered, w.took, w.dip = old.entered, old.took, true
		return false
	}
	return w.entered >= old.entered && w.took < old.took
}
