// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"cmp"
	"context"
	"slices"
	"time"
)

// tableLooks is how a table is looked at that has something that is watched.
type tableLooks struct {
	cost time.Duration // of a reading
	last time.Time     // when the last one began
	rest time.Time     // until then there is none
	read time.Time     // when the last reading of whatever kind ended
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

// quiet is for how long the family's writer is not due yet, where it keeps a pace.
func (b *legacyBackend) quiet(t legacyTable, now time.Time) time.Duration {
	quiet, _ := b.family(t.family).pace.expect(now, 0)
	return quiet
}

// away reports whether a reading has to wait for one that is being made: of the
// same family, or, as the processors are needed, of another table that takes long.
func (b *legacyBackend) away(t legacyTable) bool {
	f := b.family(t.family)
	return f.away || f.dearTable(t.name) && slices.ContainsFunc(b.known, func(other *legacyFamily) bool { return other.dear })
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
	if at, ok := f.lock.after(now); ok && !again {
		l.rest = at
		return false
	}
	if f.lock.busy(now) && !(0 < l.cost && l.cost <= cheap && f.lock.lasting(now)) && !f.missed(l, now) || b.inTheWay(f, l.cost, now) {
		l.rest = f.patient(l, now)
		return false
	}
	return true
}

// patient is when to ask again whether to look at a table that is left alone. When a
// session ends nothing is looked at for some time anyway; what costs next to nothing
// may be looked at as soon as another writer waits.
func (f *legacyFamily) patient(l *tableLooks, now time.Time) time.Time {
	if 0 < l.cost && l.cost <= cheap {
		return now.Add(legacyEvery)
	}
	at := now.Add(afterwards)
	quiet, near := f.pace.expect(now, max(f.all, legacyLead))
	if quiet > 0 {
		at = earlier(at, now.Add(quiet))
	}
	if near {
		at = earlier(at, l.last.Add(oneSync))
	}
	if free := f.lock.idle(); free.After(now) {
		at = earlier(at, free)
	}
	if soon := now.Add(watchEvery); at.Before(soon) {
		return soon
	}
	return at
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
	return near && now.Sub(l.last) > oneSync && now.Sub(l.read) > oneSync
}

func (b *legacyBackend) lookAt(ctx context.Context, w *watched, t legacyTable, l *tableLooks) error {
	l.last = time.Now()
	if started, err := b.startBeside(ctx, t); started || err != nil {
		l.rest = l.last.Add(b.family(t.family).paused(l.cost, l.last))
		return err
	}
	l.rest = l.last.Add(legacyEvery) // where it is not there
	deltas, err := b.readTable(ctx, t)
	if err != nil {
		return err
	}
	w.rewritten(t.family, deltas)
	return nil
}

// rests leaves a table alone for some time after a reading for whatever reason.
func (f *legacyFamily) rests(table string, now time.Time) {
	if l := f.look(table); l.cost <= dearLook {
		l.rest = now.Add(f.paused(l.cost, now))
	}
}

// paused returns how long to leave a table alone after a look of that cost.
func (f *legacyFamily) paused(cost time.Duration, now time.Time) time.Duration {
	if f.lock.sessions != nil && !f.slow() { // the session is read in, too
		quiet, _ := f.pace.expect(now, max(f.all, legacyLead))
		if cost <= cheap {
			return max(2*legacyEvery, quiet)
		}
		return max(legacyBeside, legacyLong*cost, quiet)
	}
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
