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
	"github.com/svcscope/svcscope/pkg/ledger"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/xtables"
	"github.com/svcscope/svcscope/pkg/ruleset"
)

// legacyBackend reads x_tables.
type legacyBackend struct {
	reader[legacyReader]
	beside beside
	known  []*legacyFamily
	lock   *legacyLock
	of     *watched // what is looked at; nil before the first look
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
	all   time.Duration // what looks at all tables take that are watched, but for dear ones
	pace  pace
}

// legacyTable names a table.
type legacyTable struct {
	family netfilter.Family
	name   string
}

func newLegacyBackend(open func() (legacyReader, error)) *legacyBackend {
	one := reader[legacyReader]{open: open}
	b := &legacyBackend{reader: one, beside: beside{reader: one}, lock: &legacyLock{}}
	b.lock.early, b.lock.away = b.early, b.away
	for _, f := range families() {
		follow := ruleset.NewXTables(f)
		b.known = append(b.known, &legacyFamily{
			familyRules: newFamily(ruleset.Legacy, f, follow.Ruleset()), follow: follow, lock: b.lock,
			looks:  make(map[string]*tableLooks),
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

func (b *legacyBackend) read(ctx context.Context) (map[string]uint64, error) {
	r, err := b.get()
	if err != nil {
		return nil, err
	}
	var errs []error
	undecoded := make(map[string]uint64)
	for _, f := range b.known {
		if err := f.readAll(ctx, r); err != nil {
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
func (b *legacyBackend) readTable(ctx context.Context, t legacyTable) (ruleset.Delta, error) {
	none := ruleset.Delta{Table: t.name}
	r, err := b.get()
	if err != nil {
		return none, err
	}
	f := b.family(t.family)
	if f == nil || !f.familyRules.read {
		return none, nil
	}
	if f.doubted {
		// Which table it is that is in doubt is not known.
		return none, f.readAll(ctx, r)
	}
	d, err := f.readTable(ctx, r, t.name)
	if errors.Is(err, kernel.ErrAbsent) {
		return none, nil
	}
	if err == nil {
		f.take([]ruleset.Delta{d})
	}
	return d, err
}

func (b *legacyBackend) family(f netfilter.Family) *legacyFamily {
	for _, known := range b.known {
		if known.set.Family == f {
			return known
		}
	}
	return nil
}

// readAll reads all tables of the family, or fails.
func (f *legacyFamily) readAll(ctx context.Context, r legacyReader) error {
	names, err := r.Tables(ctx, f.set.Family)
	if err != nil && !errors.Is(err, kernel.ErrAbsent) {
		return err
	}
	deltas := f.follow.Exist(names)
	for _, name := range names {
		if f.recent(name) {
			continue
		}
		d, err := f.readTable(ctx, r, name)
		if errors.Is(err, kernel.ErrAbsent) {
			continue // it went since
		}
		if err != nil {
			f.failed = true
			return err
		}
		deltas = append(deltas, d)
	}
	f.take(deltas)
	return nil
}

// recent reports whether a table that takes long was read just before, as it is
// after each session of a writer: it keeps what is cheap from being read.
func (f *legacyFamily) recent(name string) bool {
	l := f.look(name)
	return l.cost > dearLook && f.familyRules.read && !f.doubted && !f.failed && time.Since(l.read) < dearRecent
}

func (f *legacyFamily) readTable(ctx context.Context, r legacyReader, name string) (ruleset.Delta, error) {
	read, d, err := f.follows(ctx, r, name)
	if err != nil {
		f.failed = f.failed || !read.end.IsZero()
		return d, err
	}
	f.used(&read, d, time.Now())
	return d, nil
}

// follows reads a table and brings f.follow up to date, and touches nothing else of
// f. With an error, and an end, it may have taken over a part.
func (f *legacyFamily) follows(ctx context.Context, r legacyReader, name string) (tableRead, ruleset.Delta, error) {
	read, d := tableRead{table: legacyTable{f.set.Family, name}, begin: time.Now()}, ruleset.Delta{Table: name}
	err := r.Read(ctx, f.set.Family, name, func(t *xtables.Table) (err error) {
		read.end = time.Now()
		d, err = f.follow.Update(t)
		return err
	})
	return read, d, err
}

// used notes what a reading cost that was done then, and what it found.
func (f *legacyFamily) used(read *tableRead, d ruleset.Delta, done time.Time) {
	l := f.look(read.table.name)
	spend(&l.cost, done.Sub(read.begin))
	l.read = read.end
	read.changed = !d.Same() || d.Fell
	f.lock.read(*read)
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

func (*legacyBackend) tell(context.Context, *correlate.Names, func(ledger.Commit)) (bool, error) {
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
	return errors.Join(b.lock.close(), b.beside.close(), b.reader.close())
}

func (b *legacyBackend) stats() kernel.ReadStats {
	if !b.ready {
		return kernel.ReadStats{}
	}
	all, other := b.value.Stats(), b.beside.stats
	all.Bytes += other.Bytes
	all.Messages += other.Messages
	all.Interrupted += other.Interrupted
	return all
}
