// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/svcscope/svcscope/pkg/correlate"
	"github.com/svcscope/svcscope/pkg/kernel"
	"github.com/svcscope/svcscope/pkg/ruleset"
)

// stoodFor is how long kube-proxy's rules must have stood before the agent
// listens where no API tells how many there will be: the first load of a node
// costs a listener's kernel much more memory than all that follows.
const stoodFor = time.Minute

// gate decides whether the agent listens to the commits of nf_tables. Who
// listens has the kernel keep about 8 KiB for every rule that a commit
// touches, charged to nobody, and slows the writer.
type gate struct {
	max   int       // rules and set elements; 0 never listens
	stood time.Time // since when kube-proxy's rules are there; zero: they are not
	full  bool      // it was left for the number of rules
}

// wants reports whether to listen with this many rules there and to come.
func (g *gate) wants(rules int) bool {
	limit := g.max
	if g.full {
		limit -= limit / 5 // not in and out at the edge
	}
	g.full = rules > limit
	return g.max > 0 && !g.full
}

// listen joins or leaves, as the gate says, and logs it. It reports whether it
// has joined: a reading of all rules has to follow.
func (s *sampler) listen(now time.Time) bool {
	rules, want := s.gated(now)
	if !want || s.nft.notices.listener != nil {
		s.leave(rules, want)
		return false
	}
	err := s.nft.notices.join()
	s.joined(err, rules)
	return err == nil
}

// gated returns how many rules there are or will be, and whether to listen.
func (s *sampler) gated(now time.Time) (rules int, want bool) {
	if n := &s.nft.notices; n.open == nil || n.mute {
		return 0, n.listener != nil // that left by itself
	}
	rules, ready := s.load(now)
	return rules, ready && s.gate.wants(rules)
}

// leave ends the listening that is not wanted.
func (s *sampler) leave(rules int, want bool) {
	if want || s.nft.notices.listener == nil {
		return
	}
	err := s.nft.leave(s.names, s.commit(time.Now()))
	s.log.Info("no more listening to changes of rules: counts of rewritten rules may be lost",
		"rules", rules, "max", s.cfg.MaxRules, "err", err)
}

// joined logs how it went, a failure once.
func (s *sampler) joined(err error, rules int) {
	switch {
	case err == nil:
		s.log.Info("listening to changes of rules: no count is lost in a rewrite", "rules", rules, "max", s.cfg.MaxRules)
		s.deaf = ""
	case errors.Is(err, kernel.ErrAbsent):
	case s.deaf != err.Error():
		s.deaf = err.Error()
		s.log.Warn("changes of rules cannot be listened to", "err", err)
	}
}

// load returns how many rules there are or will be, and whether that is known:
// kube-proxy's rules of iptables mode stand, and the API has told all, or
// nobody will.
func (s *sampler) load(now time.Time) (rules int, ready bool) {
	present, native := false, false
	for _, f := range s.nft.families() {
		present = present || f.rules.View.Present
		native = native || f.rules.NFTablesMode
	}
	switch {
	case !present || native:
		s.gate.stood = time.Time{}
		return 0, false
	case s.gate.stood.IsZero():
		s.gate.stood = now
	}
	rules = s.nft.size()
	if rules > s.gate.max {
		return rules, true // whatever is to come
	}
	if c := cmp.Or(s.kube.catalog(), s.catalog); c != nil && c.Synced {
		return max(rules, correlate.ExpectedRules(c)), true
	}
	state := s.kube.state()
	return rules, !state.enabled && now.Sub(s.gate.stood) >= stoodFor
}

// size is how many rules there are, jumps once more, and set elements, of all
// tables of nf_tables.
func (b *nftablesBackend) size() int { return b.own + b.others }

// sizeOwn counts those of the families that are read, by chains' use.
func (b *nftablesBackend) sizeOwn() int {
	n := 0
	for _, m := range b.mirrors {
		for _, t := range m.Ruleset().Tables {
			for _, c := range t.Chains {
				n += int(c.Use)
			}
		}
	}
	return n
}

// measure counts what other families and sets have, once a generation and only
// where it decides: not where the own rules are too many.
func (b *nftablesBackend) measure(ctx context.Context, r nftablesReader) {
	own := b.own
	present := slices.ContainsFunc(b.families(), func(f *familyRules) bool { return f.rules.View.Present })
	if b.notices.open == nil || b.generation == b.measured || !present || own > b.limit {
		return
	}
	// What cannot be counted now is as it was.
	if rules, elements, err := r.Size(ctx, b.limit); err == nil {
		b.others, b.measured = max(rules+elements-own, 0), b.generation
	}
}

// blind adds the time for which counters that were lost were not looked at:
// since the chains were read last, or the family as a whole, or to the end of
// the writer's session.
func (s *sampler) blind(src *ruleSource, f *familyRules, lost ...map[string]time.Time) {
	tables := make(map[string]time.Time)
	for _, l := range lost {
		maps.Copy(tables, l)
	}
	for table, since := range tables {
		if whole := f.seen[table]; whole.After(since) {
			since = whole
		}
		d := time.Since(since)
		if least, known := src.unseen(f, table); known {
			d = min(d, least)
		}
		*s.blindTime(f, table) += d
	}
}

func (s *sampler) blindTime(f *familyRules, table string) *time.Duration {
	i := slices.IndexFunc(s.blinds, func(b correlate.BlindTime) bool {
		return b.Backend == f.set.Backend && b.Family == f.set.Family && b.Table == table
	})
	if i < 0 {
		i = len(s.blinds)
		s.blinds = append(s.blinds, correlate.BlindTime{
			Backend: f.set.Backend, Family: f.set.Family, Table: table, Created: s.started,
		})
	}
	return &s.blinds[i].Total
}

// exactness is what a snapshot says of how sure the totals are.
func (s *sampler) exactness(in *correlate.Inputs) {
	for _, src := range s.sources {
		for _, f := range src.families() {
			if !f.read || !f.rules.View.Present {
				continue
			}
			exact := f.set.Backend == ruleset.NFT && s.nft.notices.exact()
			in.Exact = append(in.Exact, correlate.LedgerExact{Backend: f.set.Backend, Family: f.set.Family, Exact: exact})
			for _, table := range []string{"filter", "nat"} {
				s.blindTime(f, table) // it is 0 until something is lost
			}
		}
	}
	in.Listening = s.nft.notices.exact()
	in.Blind = slices.Clone(s.blinds)
	in.Lock = s.legacy.lock.openTime(time.Now())
}
