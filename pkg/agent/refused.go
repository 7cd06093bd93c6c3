// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"time"

	"github.com/svcscope/svcscope/pkg/correlate"
	"github.com/svcscope/svcscope/pkg/ledger"
	"github.com/svcscope/svcscope/pkg/policy"
	"github.com/svcscope/svcscope/pkg/ruleset"
)

// refusedRules is what is known of one family's rules that refuse packets, whoever
// wrote them.
type refusedRules struct {
	rules policy.Refusals
	// fresh: a reading has come since they were told. moved: some of them may count
	// otherwise in it. doubted: what was told last is to be settled by another reading.
	fresh, moved, doubted bool
	version               uint64 // grows where a rule may have changed
}

// due reports whether they are to be told.
func (r *refusedRules) due() bool { return r.fresh && (r.moved || r.doubted) }

// update takes what a reading has changed in a ruleset.
func (r *refusedRules) update(rs *ruleset.Ruleset, deltas []ruleset.Delta) {
	r.fresh = true
	for i := range deltas {
		d := &deltas[i]
		if len(d.Changed)+len(d.Gone) > 0 {
			r.moved = true
			r.version++
		}
		for _, c := range d.Moved {
			r.moved = r.moved || r.rules.Has(d.Table, c.Name)
		}
	}
	r.rules.Update(rs, deltas)
}

// renew has everything in a ruleset taken for new.
func (r *refusedRules) renew(rs *ruleset.Ruleset) {
	r.rules, r.moved = policy.Refusals{}, true
	r.version++
	r.rules.Update(rs, rs.Anew())
}

// tellDrops counts what rules of one family have refused. It returns the tables
// whose counters were reset, as ledger.Outcome has them.
func (s *sampler) tellDrops(src *ruleSource, f *familyRules, listening bool, now time.Time) ledger.Outcome {
	if !f.refused.due() {
		return ledger.Outcome{}
	}
	o := s.drops.Apply(f.counters.Refused(f.set, f.rules.View, &f.refused.rules, s.names, listening), now)
	f.refused.fresh, f.refused.moved, f.refused.doubted = false, false, o.Suspect
	src.outcome.Suspect = src.outcome.Suspect || o.Suspect
	return o
}

// tellRefusers counts what rules have refused of which nothing else is told.
func (s *sampler) tellRefusers(src *ruleSource, listening bool, now time.Time) {
	for _, f := range src.refusers() {
		s.tellDrops(src, f, listening, now)
	}
}

// commit has both ledgers take what a commit has done.
func (s *sampler) commit(now time.Time) useCommit {
	return func(c ledger.Commit, drops correlate.RefusalCommit) {
		if len(c.Ended)+len(c.Begun) > 0 {
			s.ledger.Commit(c, now)
		}
		s.drops.Commit(drops, now)
	}
}
