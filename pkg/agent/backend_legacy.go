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
	known []*legacyFamily
	lock  *legacyLock
}

// legacyFamily is one family's rules from one reading to the next.
type legacyFamily struct {
	*familyRules
	follow *ruleset.XTables
	change correlate.RulesetChanges
	// held is what readings found that failed behind it.
	held []ruleset.Delta
	// moved are the hashes of ports whose counters moved at the last reading:
	// the ledger hears of them once more. It sets the connections of one
	// reading against the externals of the next, and believes a value that
	// fell when it is still there.
	moved  map[string]bool
	lock   *legacyLock
	costs  map[string]time.Duration // of looks at tables that are watched
	looked bool                     // the first look was had
	rest   time.Time                // until then there is none
	last   time.Time                // of them
	pace   pace
}

// legacyTable names a table.
type legacyTable struct {
	family netfilter.Family
	name   string
}

func newLegacyBackend(open func() (legacyReader, error)) *legacyBackend {
	b := &legacyBackend{reader: reader[legacyReader]{open: open}, lock: &legacyLock{}}
	for _, f := range families() {
		follow := ruleset.NewXTables(f)
		b.known = append(b.known, &legacyFamily{
			familyRules: newFamily(ruleset.Legacy, f, follow.Ruleset()), follow: follow, lock: b.lock,
			costs:  make(map[string]time.Duration),
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
	for _, f := range b.known {
		if f.set.Family != t.family || !f.familyRules.read {
			continue
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
	return none, nil
}

// look reads the tables that have something that is watched, of the families
// whose mutex was left alone for long enough; a second time at once, those of
// which something is open.
func (b *legacyBackend) look(ctx context.Context, w *watched, second bool) (next time.Time, err error) {
	now := time.Now()
	b.lock.drain(now)
	busy := b.lock.busy(now)
	for _, f := range b.known {
		tables := w.tables(f.set.Family)
		if len(tables) == 0 {
			continue
		}
		if time.Now().Before(f.rest) && !(second && f.looked && f.pending) {
			f.looked, next = false, earlier(next, f.rest)
			continue
		}
		if busy && !second && !f.missed(now) {
			next = earlier(next, now.Add(watchEvery))
			continue
		}
		f.looked, f.last = !second, now
		if second {
			tables = []string{"nat"} // refusals have no ways
		}
		for _, table := range tables {
			begin := time.Now()
			d, err := b.readTable(ctx, legacyTable{f.set.Family, table})
			if err != nil {
				return next, err
			}
			f.spend(table, time.Since(begin))
			w.rewritten(f.set.Family, []ruleset.Delta{d})
		}
		f.rest = time.Now().Add(f.paused(tables, second))
		next = earlier(next, f.rest)
	}
	return next, nil
}

// missed reports whether a write is expected before which nothing was looked at:
// not even a writer at work is left alone then.
func (f *legacyFamily) missed(now time.Time) bool {
	_, near := f.pace.expect(now, 0)
	return near && now.Sub(f.last) > oneSync
}

// spend notes what a look at a table took.
func (f *legacyFamily) spend(table string, took time.Duration) {
	cost := f.costs[table]
	spend(&cost, took)
	f.costs[table] = cost
}

// paused returns how long to leave the family's mutex alone after a look at
// these tables.
func (f *legacyFamily) paused(tables []string, second bool) time.Duration {
	cost, share := time.Duration(0), time.Duration(legacyShare)
	for _, table := range tables {
		cost += f.costs[table]
	}
	if second {
		cost *= 2
	}
	quiet, near := f.pace.expect(time.Now(), cost)
	if near {
		share = legacyNear
	}
	return max(legacyEvery, share*cost, quiet)
}

// readAll reads all tables of the family, or fails.
func (f *legacyFamily) readAll(ctx context.Context, r legacyReader) error {
	names, err := r.Tables(ctx, f.set.Family)
	if err != nil && !errors.Is(err, kernel.ErrAbsent) {
		return err
	}
	deltas := f.follow.Exist(names)
	for _, name := range names {
		d, err := f.readTable(ctx, r, name)
		if errors.Is(err, kernel.ErrAbsent) {
			continue // it went since
		}
		if err != nil {
			f.hold(deltas)
			return err
		}
		deltas = append(deltas, d)
	}
	f.take(deltas)
	return nil
}

func (f *legacyFamily) readTable(ctx context.Context, r legacyReader, name string) (d ruleset.Delta, err error) {
	read := tableRead{table: legacyTable{f.set.Family, name}, begin: time.Now()}
	err = r.Read(ctx, f.set.Family, name, func(t *xtables.Table) error {
		read.end = time.Now()
		d, err = f.follow.Update(t)
		return err
	})
	if err != nil {
		return d, err
	}
	read.changed = !d.Same() || d.Fell
	f.lock.read(read)
	return d, nil
}

// hold keeps what changed in tables whose reading cannot be used: the next one
// does not find it again.
func (f *legacyFamily) hold(deltas []ruleset.Delta) {
	for i := range deltas {
		deltas[i].Moved = slices.Clone(deltas[i].Moved)
	}
	f.held = append(f.held, deltas...)
}

// take makes a reading count.
func (f *legacyFamily) take(deltas []ruleset.Delta) {
	deltas = append(f.held, deltas...)
	f.held = nil
	switch {
	case f.change.Created.IsZero():
		f.change.Created = time.Now()
	case slices.ContainsFunc(deltas, func(d ruleset.Delta) bool { return !d.Same() }):
		f.change.Total++
		f.change.Last = time.Now()
		f.pace.wrote(f.lock.wrote(f.change.Last))
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

func (b *legacyBackend) close() error { return errors.Join(b.lock.close(), b.reader.close()) }

func (b *legacyBackend) stats() kernel.ReadStats {
	if !b.ready {
		return kernel.ReadStats{}
	}
	return b.value.Stats()
}
