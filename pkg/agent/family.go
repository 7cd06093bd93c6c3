// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"maps"
	"time"

	"github.com/svcscope/svcscope/pkg/correlate"
	"github.com/svcscope/svcscope/pkg/kubeproxy"
	"github.com/svcscope/svcscope/pkg/ledger"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/ruleset"
)

// familyRules is what is known of one backend's rules of one family, from one
// reading to the next.
type familyRules struct {
	source   ledger.Source
	set      *ruleset.Ruleset
	rules    correlate.Rules
	native   *kubeproxy.View // of the nftables mode's table; nil as long as there was none
	counters *correlate.Counters
	read     bool      // the rules were read at least once
	at       time.Time // when the newest reading of nat began, of which rules tells
	// What the ledger has not been told yet: everything, or the ports by the
	// hash in their chains' names.
	whole   bool
	touched map[string]bool
	// What the last reading told, should it have to be told again.
	wasWhole bool
	told     map[string]bool
	fresh    bool // a reading has come since the ledger was told
	away     bool // set is another goroutine's until its reading has come
	// seen is when all counters of a table were looked at of which the ledger was
	// told; sight is what it was not told of yet.
	seen, sight map[string]time.Time
	// doubted: the ledger doubts the reading that it was told last. again: there
	// was another one since.
	doubted, again bool
	pending        bool // the ledger does not know yet which way connections came
	full           fullSyncs
	refused        refusedRules
	history        *history // nil keeps none
}

func newFamily(b ruleset.Backend, f netfilter.Family, set *ruleset.Ruleset) *familyRules {
	return &familyRules{
		source: correlate.LedgerSource(b, f), set: set,
		rules:    correlate.Rules{View: kubeproxy.NewView(nil)},
		counters: correlate.NewCounters(),
		whole:    true, touched: make(map[string]bool), refused: refusedRules{moved: true},
		seen: make(map[string]time.Time), sight: make(map[string]time.Time),
	}
}

// update takes what a reading has changed in f.set.
func (f *familyRules) update(deltas []ruleset.Delta) {
	first := !f.read
	f.read, f.fresh, f.again = true, true, true
	f.refused.update(f.set, deltas)
	same := true
	for i := range deltas {
		d := &deltas[i]
		same = same && d.Same()
		f.counters.Drop(d)
		for _, c := range d.Moved {
			f.touch(d.Table, c.Name)
		}
		for _, c := range d.Changed {
			f.touch(d.Table, c.Name)
			// Somebody restored the whole table: all counters are others.
			f.whole = f.whole || c.Base != nil
		}
		for _, name := range d.Gone {
			f.touch(d.Table, name)
		}
	}
	f.updateNative(deltas)
	if !same {
		var was before
		if !first {
			was = ofPorts(f.rules.View, deltas)
		}
		f.rules.View.Update(f.set, deltas)
		f.history.note(was, f.rules.View, time.Now())
		f.rules.Resize(f.set)
	}
}

// saw notes that all counters of a table were looked at.
func (f *familyRules) saw(table string) { f.sight[table] = time.Now() }

// renew has everything in f.set taken for new.
func (f *familyRules) renew() {
	version := f.rules.View.Version
	f.rules.View = kubeproxy.NewView(f.set)
	f.rules.View.Version = version + 1
	f.rules.Resize(f.set)
	if f.native != nil {
		f.native.UpdateNative(f.set)
	}
	f.refused.renew(f.set)
	f.counters, f.whole = correlate.NewCounters(), true
}

// rename has the ledger told again of ports that had no name: they may now.
func (f *familyRules) rename() {
	if f.read {
		maps.Copy(f.touched, f.counters.Unnamed())
		f.fresh = true
	}
}

func (f *familyRules) touch(table, chain string) {
	if _, hash := kubeproxy.ParseChain(chain); hash != "" && table == "nat" {
		f.touched[hash] = true
	}
}

// reading is what the ledger is to be told.
func (f *familyRules) reading(names *correlate.Names) ledger.Reading {
	f.fresh, f.again = false, false
	f.wasWhole, f.whole = f.whole, false
	f.told, f.touched = f.touched, make(map[string]bool)
	if f.wasWhole {
		return f.counters.Whole(f.set, f.rules.View, names)
	}
	return f.counters.Part(f.set, f.rules.View, names, f.told)
}

// waits reports whether the ledger must not be told yet: it believes values that
// fell when another reading has them.
func (f *familyRules) waits() bool { return f.doubted && !f.again }

// repeat has the next reading tell what the last one told: the ledger doubts it.
func (f *familyRules) repeat() {
	f.whole = f.whole || f.wasWhole
	maps.Copy(f.touched, f.told)
}
