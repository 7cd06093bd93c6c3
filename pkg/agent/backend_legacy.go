// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/svcscope/svcscope/pkg/correlate"
	"github.com/svcscope/svcscope/pkg/kernel"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/ruleset"
)

// legacyBackend reads x_tables.
type legacyBackend struct {
	reader[legacyReader]
	came  chan besideRead // readings that were made beside others
	known []*legacyFamily
	lock  *legacyLock
	of    *watched // what is looked at; nil before the first look
}

// legacyFamily is one family's rules from one reading to the next.
type legacyFamily struct {
	*familyRules
	follow *ruleset.XTables
	change correlate.RulesetChanges
	// failed: tables were read whose reading did not count, as another one's of
	// the family failed.
	failed bool
	// moved are the hashes of ports whose counters moved at the last reading:
	// the ledger hears of them once more. It sets the connections of one
	// reading against the externals of the next, and believes a value that
	// fell when it is still there.
	moved map[string]bool
	lock  *legacyLock
	looks map[string]*tableLooks
	beside
	all  time.Duration // what looks at all tables take that are watched, but for dear ones
	pace pace
}

// legacyTable names a table.
type legacyTable struct {
	family netfilter.Family
	name   string
}

func newLegacyBackend(open func() (legacyReader, error)) *legacyBackend {
	one := reader[legacyReader]{open: open}
	b := &legacyBackend{reader: one, came: make(chan besideRead, len(families())), lock: &legacyLock{}}
	b.lock.quiet, b.lock.away = b.quiet, b.away
	for _, f := range families() {
		follow := ruleset.NewXTables(f)
		b.known = append(b.known, &legacyFamily{
			familyRules: newFamily(ruleset.Legacy, f, follow.Ruleset()), follow: follow, lock: b.lock,
			looks:  make(map[string]*tableLooks),
			beside: beside{reader: one, side: one},
			change: correlate.RulesetChanges{Backend: ruleset.Legacy, Family: f, Writer: writerUnknown},
		})
	}
	return b
}

func (b *legacyBackend) families() []*familyRules {
	var all []*familyRules
	for _, f := range b.known {
		all = append(all, f.familyRules)
	}
	return all
}

func (*legacyBackend) refusers() []*familyRules { return nil }

func (b *legacyBackend) read(ctx context.Context) (map[string]uint64, error) {
	r, err := b.get()
	if err != nil {
		return nil, err
	}
	var errs []error
	undecoded := make(map[string]uint64)
	for _, f := range b.known {
		all := f.readAll(ctx, r, f.recent)
		if err := f.use(&all); err != nil {
			errs = append(errs, err)
			continue
		}
		for kind, n := range f.follow.Undecoded() {
			undecoded[kind] += n
		}
	}
	return undecoded, errors.Join(errs...)
}

// readTable brings one table up to date. A table that is not there, or of a
// family that was not read as a whole yet, is left alone.
func (b *legacyBackend) readTable(ctx context.Context, t legacyTable) ([]ruleset.Delta, error) {
	r, err := b.get()
	if err != nil {
		return nil, err
	}
	f := b.family(t.family)
	if f == nil || !f.familyRules.read {
		return nil, nil
	}
	if f.doubted {
		// Which table it is that is in doubt is not known.
		all := f.readAll(ctx, r, f.recent)
		return nil, f.use(&all)
	}
	var one reading
	one.err = f.table(ctx, r, t.name, &one, nil)
	if errors.Is(one.err, kernel.ErrAbsent) {
		return nil, nil
	}
	return one.deltas(), f.use(&one)
}

func (b *legacyBackend) family(f netfilter.Family) *legacyFamily {
	for _, known := range b.known {
		if known.set.Family == f {
			return known
		}
	}
	return nil
}

// recent reports whether a table that takes long was read just before, as it is
// after each session of a writer: it keeps what is cheap from being read.
func (f *legacyFamily) recent(name string) bool {
	l := f.look(name)
	return l.cost > dearLook && f.familyRules.read && !f.doubted && !f.failed && time.Since(l.read) < dearRecent
}

// take makes a reading count.
func (f *legacyFamily) take(deltas []ruleset.Delta) {
	if f.failed { // what changed behind a failure is in no delta
		f.failed = false
		f.renew()
	}
	switch {
	case f.change.Created.IsZero():
		f.change.Created = time.Now()
	case slices.ContainsFunc(deltas, func(d ruleset.Delta) bool { return !d.Same() }):
		f.change.Total++
		f.change.Last = time.Now()
		f.pace.wrote(f.lock.wrote(f.change.Last))
	}
	for i := range deltas {
		f.saw(deltas[i].Table)
	}
	again := f.moved
	f.update(deltas)
	f.moved = maps.Clone(f.touched)
	maps.Copy(f.touched, again)
}

func (*legacyBackend) tell(context.Context, *correlate.Names, useCommit) (bool, error) {
	return false, nil
}

func (b *legacyBackend) changes() []correlate.RulesetChanges {
	var cs []correlate.RulesetChanges
	for _, f := range b.known {
		if !f.change.Created.IsZero() {
			cs = append(cs, f.change)
		}
	}
	return cs
}

func (b *legacyBackend) unseen(f *familyRules, table string) (time.Duration, bool) {
	return b.lock.blind(legacyTable{f.set.Family, table})
}

func (b *legacyBackend) close() error {
	errs := []error{b.lock.close(), b.reader.close()}
	for _, f := range b.known {
		if f.away {
			<-b.came
		}
	}
	for _, f := range b.known {
		errs = append(errs, f.beside.close())
	}
	return errors.Join(errs...)
}

func (b *legacyBackend) stats() kernel.ReadStats {
	if !b.ready {
		return kernel.ReadStats{}
	}
	all := b.value.Stats()
	for _, f := range b.known {
		addStats(&all, f.beside.stats)
	}
	return all
}
