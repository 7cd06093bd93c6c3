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

// tableLooks is how a table is looked at that has something that is watched.
type tableLooks struct {
	cost time.Duration // of a reading
	last time.Time     // when the last one began
	rest time.Time     // until then there is none
	read time.Time     // when the last reading of whatever kind ended
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

// look reads the tables that have something that is watched, where the family's
// mutex was left alone for long enough; a second time at once, those of which
// the way of connections is open. Those come first that cost least: what is in
// them is rewritten while others are read.
func (b *legacyBackend) look(ctx context.Context, w *watched, second bool) (next time.Time, err error) {
	b.of = w
	b.lock.drain(time.Now())
	for _, t := range b.watched(w) {
		f := b.family(t.family)
		l := f.look(t.name)
		if b.away(t) {
			next = earlier(next, time.Now().Add(legacyEvery))
			continue
		}
		if b.wants(f, l, second && t.name == "nat" && f.pending && l.cost <= dearLook) {
			if err := b.lookAt(ctx, w, t, l); err != nil {
				return next, err
			}
		}
		next = earlier(next, l.rest)
	}
	return next, nil
}

// early reports whether the family's writer keeps a pace and is not due yet.
func (b *legacyBackend) early(t legacyTable, now time.Time) bool {
	quiet, _ := b.family(t.family).pace.expect(now, 0)
	return quiet > 0
}

// away reports whether a reading would wait for one that is being made: for the
// mutex of the family, or for the reader of dear tables.
func (b *legacyBackend) away(t legacyTable) bool {
	return b.beside.came != nil && (b.beside.table.family == t.family || b.dear(t))
}

// dear reports whether a table is read beside others.
func (b *legacyBackend) dear(t legacyTable) bool {
	return b.family(t.family).look(t.name).cost > dearLook
}

// watched lists the tables that have something that is watched, those first that
// cost least.
func (b *legacyBackend) watched(w *watched) []legacyTable {
	var all []legacyTable
	for _, f := range b.known {
		tables := w.tables(f.set.Family)
		f.expect(tables)
		for _, table := range tables {
			all = append(all, legacyTable{f.set.Family, table})
		}
	}
	slices.SortStableFunc(all, func(x, y legacyTable) int {
		return cmp.Compare(b.family(x.family).look(x.name).cost, b.family(y.family).look(y.name).cost)
	})
	return all
}

// expect notes what looks at all of these tables take.
func (f *legacyFamily) expect(tables []string) {
	f.all, f.pace.rare = 0, 0
	for _, table := range tables {
		cost := f.look(table).cost
		f.pace.rare += legacyShare * cost
		if cost <= dearLook {
			f.all += cost
		}
	}
}

// look returns how a table of the family is looked at.
func (f *legacyFamily) look(table string) *tableLooks {
	l := f.looks[table]
	if l == nil {
		l = &tableLooks{}
		f.looks[table] = l
	}
	return l
}

// wants reports whether to look at a table now. A writer at work is left alone,
// but for a look right after another one, for one that costs next to nothing in
// a session that lasts (a writer may be waiting for another one), and where a
// write is expected before which nothing was looked at.
func (b *legacyBackend) wants(f *legacyFamily, l *tableLooks, again bool) bool {
	now := time.Now()
	switch {
	case again:
		return now.Sub(l.last) < oneSync
	case now.Before(l.rest):
		return false
	case l.cost > dearLook:
		wait := b.apart(f, l.cost, now)
		l.rest = now.Add(wait)
		return wait == 0
	}
	if f.lock.busy(now) && !(0 < l.cost && l.cost <= cheap && f.lock.lasting(now)) && !f.missed(l, now) || b.inTheWay(f, l.cost, now) {
		l.rest = now.Add(watchEvery)
		return false
	}
	return true
}

// apart returns how long a dear look has to wait, so that no writer meets it.
func (b *legacyBackend) apart(f *legacyFamily, cost time.Duration, now time.Time) time.Duration {
	quiet, _ := f.pace.expect(now, 2*cost)
	_, near := f.pace.expect(now, cost)
	if quiet == 0 && (near || f.lock.held()) {
		return legacyEvery
	}
	return quiet
}

// inTheWay reports whether a look of that cost would last until another family
// is written of which something is watched, and this one is not about to be:
// until then looks go to what is cheap there.
func (b *legacyBackend) inTheWay(f *legacyFamily, cost time.Duration, now time.Time) bool {
	if _, own := f.pace.expect(now, f.all); own || cost <= longLook {
		return false
	}
	return slices.ContainsFunc(b.known, func(other *legacyFamily) bool {
		_, near := other.pace.expect(now, cost)
		return other != f && near && len(b.of.tables(other.set.Family)) > 0
	})
}

// missed reports whether a write is expected before which a table was not
// looked at.
func (f *legacyFamily) missed(l *tableLooks, now time.Time) bool {
	_, near := f.pace.expect(now, 0)
	return near && now.Sub(l.last) > oneSync
}

func (b *legacyBackend) lookAt(ctx context.Context, w *watched, t legacyTable, l *tableLooks) error {
	l.last = time.Now()
	if started, err := b.startBeside(ctx, t); started || err != nil {
		l.rest = l.last.Add(b.family(t.family).paused(l.cost, l.last))
		return err
	}
	d, err := b.readTable(ctx, t)
	if err != nil {
		return err
	}
	now := time.Now()
	w.rewritten(t.family, []ruleset.Delta{d})
	l.rest = now.Add(b.family(t.family).paused(l.cost, now))
	return nil
}

// paused returns how long to leave a table alone after a look of that cost.
func (f *legacyFamily) paused(cost time.Duration, now time.Time) time.Duration {
	quiet, near := f.pace.expect(now, f.all)
	switch {
	case near && cost <= cheap: // often enough, and the processor is needed
		return legacyEvery
	case near && cost <= longLook:
		return max(legacyEvery/2, legacyNear*cost)
	case near, cost > dearLook && quiet > 0:
		return legacyLong * cost
	}
	return max(legacyEvery, legacyShare*cost, quiet)
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

func (f *legacyFamily) readTable(ctx context.Context, r legacyReader, name string) (d ruleset.Delta, err error) {
	read := tableRead{table: legacyTable{f.set.Family, name}, begin: time.Now()}
	err = r.Read(ctx, f.set.Family, name, func(t *xtables.Table) error {
		read.end = time.Now()
		d, err = f.use(read, t)
		return err
	})
	return d, err
}

// use brings a table up to date with a reading.
func (f *legacyFamily) use(read tableRead, t *xtables.Table) (ruleset.Delta, error) {
	d, err := f.follow.Update(t)
	if err != nil {
		f.failed = true // it may have taken a part
		return d, err
	}
	name := read.table.name
	l := f.look(name)
	spend(&l.cost, time.Since(read.begin))
	l.read = read.end
	read.changed = !d.Same() || d.Fell
	f.lock.read(read)
	return d, nil
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
