// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/svcscope/svcscope/pkg/kernel"
	"github.com/svcscope/svcscope/pkg/netfilter"
)

const (
	// share is the part of a session that readings of one table may take: a
	// reading holds the kernel's mutex that the writer needs.
	share = 10
	// free is what they may take of any session. Restores of a small table
	// take some milliseconds, and kube-proxy's sync around them some tens.
	free = time.Millisecond
	// cheap is a reading that is made as soon as a session begins: of the one
	// before that of its table, too.
	cheap = free / 4
	// justRead is how old a reading may be that is not repeated when the next session
	// begins: kube-proxy writes filter and then nat, and a reading of filter would
	// wait for as long as the kernel copies nat to the writer, not idle but spinning.
	justRead = 3 * time.Millisecond
	// farOff is how long before a write is expected nothing is read that costs next to
	// nothing either.
	farOff = 250 * time.Millisecond
	// afterwards is how long after a session its tables are read: kube-proxy is
	// about to write the next one, or to go on with its sync, on processors that
	// readings would take. What a new rule counts until then is not lost.
	afterwards = 50 * time.Millisecond
	// heldFor is the least of how long a session keeps what is watched from being
	// read: as long as the longest of the last ones.
	heldFor = 100 * time.Millisecond
	// lastingFrom is when a session has taken long: what is cheap is looked at in it.
	lastingFrom = 20 * time.Millisecond
	// lengthsKept is how many lengths of sessions are remembered.
	lengthsKept = 16
	// patient is how many halves of the longest session it may last before the
	// count of openings is taken to be wrong: the kernel tells of two closings that
	// follow each other at once as of one.
	patient = 3
	// leastPatience is the least of that, and all of it for the session of one who
	// waited, while nobody waits for it: its closing may be the one that was not told
	// of. unknownPatience is what it is while no session is known.
	leastPatience   = 100 * time.Millisecond
	unknownPatience = time.Second
)

// How far into a session of usual length a reading may end. A commit's last
// part writes the table: it is a tenth to a fifth of the session.
const (
	firstEnd = 0.65
	leastEnd = 0.30
	mostEnd  = 0.80
)

// sessions tells when to read tables of x_tables around the sessions of their
// writers: from an opening of the lock file, or the closing by the one who held it
// before, to the closing. It is fed with what happens and asked what is next; it
// has no clock of its own.
//
// A table is read once in a session, to know what rules have counted before the
// writer replaces them, again where it lasts longer than usual, and once after it. Where that costs too much of the
// session, or the writer of the table keeps a pace and is not due yet (some writes
// are early: what costs next to nothing is read all the same), only after it; never after one that was too short to write it.
type sessions struct {
	opened int       // descriptors of the lock file
	heard  time.Time // the last event
	lost   bool      // the last session was taken to be over without a closing
	waited bool      // the session at hand, or the last one, is of one who waited for the one before
	begin  time.Time // of the session at hand or the last one
	burst  time.Time // the begin of the first one of those that followed each other at once
	end    time.Time // of the last one
	open   time.Duration
	all    lengths // of sessions of whatever kind that were seen to end
	tables map[legacyTable]*sessionTable
	// quiet is for how long a table's writer that keeps a pace is not due yet; nil
	// where nothing is known of any.
	quiet func(legacyTable, time.Time) time.Duration
	// away reports whether a table can't be read now; nil: all can.
	away func(legacyTable) bool
}

// sessionTable is what is known of one table.
type sessionTable struct {
	cost    time.Duration // of a reading
	lengths lengths       // of sessions that changed it
	until   float64       // the part of a session after which a reading has ended
	longest time.Duration // of the sessions since the last reading
	over    time.Time     // when the last of them ended
	late    bool          // a reading in the session at hand came after the change
	plan    time.Time     // when to read in the session at hand; zero: not any more
	again   bool          // it was read in it, which goes on
	due     time.Time     // when to read after it; zero: never
	end     time.Time     // of the last reading
	good    time.Time     // when the last one began that was not late
	gap     time.Duration // from a good reading to the end of a session after it; 0 where the change may be of a session at hand
}

// lengths are those of the newest sessions.
type lengths []time.Duration

func (l *lengths) add(d time.Duration) {
	if len(*l) == lengthsKept {
		*l = slices.Delete(*l, 0, 1)
	}
	*l = append(*l, d)
}

// usual is a length that few sessions fall below; 0 while none is known.
func (l lengths) usual() time.Duration {
	if len(l) == 0 {
		return 0
	}
	return slices.Sorted(slices.Values(l))[len(l)/8]
}

// newSessions knows of no session: not of one that is under way, either.
func newSessions() *sessions {
	return &sessions{tables: make(map[legacyTable]*sessionTable)}
}

// event takes what happened to the lock file.
func (s *sessions) event(e kernel.LockEvent) {
	switch e.Kind {
	case kernel.LockOpened:
		s.expire(e.At)
		if s.opened == 0 {
			s.start(e.At, false)
		}
		s.opened++
	case kernel.LockClosed:
		s.closed(e.At)
	case kernel.LockOverflow:
		if s.opened > 0 {
			s.stop(e.At)
		}
		s.opened = 0
	}
	s.heard = e.At
}

func (s *sessions) closed(now time.Time) {
	switch {
	case s.opened == 0 && !s.lost:
		return // of an opening that was not seen
	case s.lost: // it took longer than any before
		s.open -= s.end.Sub(s.begin)
	}
	s.opened, s.lost = max(0, s.opened-1), false
	s.all.add(now.Sub(s.begin))
	s.stop(now)
	if s.opened > 0 {
		s.start(now, true)
	}
}

// expire ends a session that has taken too long.
func (s *sessions) expire(now time.Time) {
	if s.opened > 0 && now.Sub(s.begin) >= s.patience() {
		s.stop(s.heard)
		s.opened, s.lost = 0, true
	}
}

// patience is how long a session may take.
func (s *sessions) patience() time.Duration {
	switch {
	case s.waited && s.opened == 1:
		return leastPatience
	case len(s.all) == 0:
		return unknownPatience
	}
	return max(leastPatience, patient*s.longest()/2)
}

func (s *sessions) start(now time.Time, waited bool) {
	s.begin, s.lost, s.waited = now, false, waited
	if now.Sub(s.end) > oneSync {
		s.burst = now
	}
	spent := make(map[netfilter.Family]time.Duration) // by what is planned: each has its own mutex
	for _, name := range s.byCost() {
		t, f := s.tables[name], name.family
		at, usual := time.Duration(0), s.all.usual()
		if until := time.Duration(float64(t.lengths.usual())*t.until) - t.cost; until > max(t.cost, free) && t.cost > cheap {
			at, usual = until, t.lengths.usual()
		}
		t.plan, t.again = time.Time{}, false
		if at == 0 && t.longest == 0 && now.Sub(t.end) < justRead || s.early(name, now) {
			continue
		}
		if spent[f]+t.cost <= allowed(usual) {
			t.plan, spent[f] = now.Add(at), spent[f]+t.cost
		}
	}
}

// early reports whether the writer of a table is not due yet: by far, where a
// reading costs next to nothing.
func (s *sessions) early(t legacyTable, now time.Time) bool {
	if s.quiet == nil {
		return false
	}
	quiet := s.quiet(t, now)
	return quiet > 0 && s.tables[t].cost > cheap || quiet > farOff
}

// byCost returns the tables, those first that cost least.
func (s *sessions) byCost() []legacyTable {
	return slices.SortedFunc(maps.Keys(s.tables), func(a, b legacyTable) int {
		return cmp.Or(cmp.Compare(s.tables[a].cost, s.tables[b].cost), cmp.Compare(a.family, b.family), cmp.Compare(a.name, b.name))
	})
}

// allowed is what readings may take of a session of that length.
func allowed(length time.Duration) time.Duration { return max(free, length/share) }

func (s *sessions) stop(now time.Time) {
	length := now.Sub(s.begin)
	s.end, s.open = now, s.open+length
	for _, t := range s.tables {
		t.plan = time.Time{}
		if t.mayBeOf(length) {
			t.longest, t.over = max(t.longest, length), now
		}
	}
	s.after(now)
}

// mayBeOf reports whether a session of that length may have written the table:
// a writer reads it first.
func (t *sessionTable) mayBeOf(length time.Duration) bool { return length >= t.cost/2 }

// after has the tables read when a session is over, as it is now.
func (s *sessions) after(now time.Time) {
	for _, t := range s.tables {
		if !t.mayBeOf(now.Sub(s.begin)) {
			continue
		}
		t.due = now.Add(max(t.cost, afterwards))
		if rest := t.end.Add((share - 1) * t.cost); rest.After(t.due) {
			t.due = rest
		}
	}
}

// held reports whether a writer may be at work.
func (s *sessions) held() bool { return s.opened > 0 }

// busy reports whether a writer is at work for whose session readings are
// planned: in one of usual length no other one writes.
func (s *sessions) busy(now time.Time) bool {
	return s.held() && now.Before(s.idle())
}

// idle is from when on the session at hand, if it still lasts, is not one of usual length.
func (s *sessions) idle() time.Time { return s.begin.Add(max(heldFor, s.longest())) }

// longest is the longest session of the last ones; 0 while none is known.
func (s *sessions) longest() time.Duration {
	if len(s.all) == 0 {
		return 0
	}
	return slices.Max(s.all)
}

// lockOpen returns for how long the lock file was open until now.
func (s *sessions) lockOpen(now time.Time) time.Duration {
	if s.opened > 0 {
		return s.open + now.Sub(s.begin)
	}
	return s.open
}

// next returns the table to be read next and when that is; ok is false where
// nothing is until something happens.
func (s *sessions) next() (t legacyTable, at time.Time, ok bool) {
	for name, table := range s.tables {
		when := table.due
		if s.held() {
			when = s.within(table)
		}
		if when.IsZero() || s.away != nil && s.away(name) || ok && !sooner(when, at, name, t) {
			continue
		}
		t, at, ok = name, when, true
	}
	return t, at, ok
}

// within returns when to read a table in a session: as planned, or when the
// session must be over.
func (s *sessions) within(t *sessionTable) time.Time {
	if !t.plan.IsZero() || t.due.IsZero() {
		return t.plan
	}
	if over := s.begin.Add(s.patience()); over.After(t.due) {
		return over
	}
	return t.due
}

// sooner orders what is due by time, and then by name: maps have no order.
func sooner(a, b time.Time, t, u legacyTable) bool {
	if !a.Equal(b) {
		return a.Before(b)
	}
	if t.family != u.family {
		return t.family < u.family
	}
	return t.name < u.name
}

// tableRead is a reading of one table.
type tableRead struct {
	table      legacyTable
	begin, end time.Time // of what the kernel does for it
	changed    bool      // its rules are others than at the last reading, or it fell into a dip
}

// read takes a reading that was made, whoever asked for it. All events up to
// its end were told before. It reports whether a writer was or may have been at work.
func (s *sessions) read(r tableRead) (writing bool) {
	t := s.tables[r.table]
	if t == nil {
		t = &sessionTable{until: firstEnd}
		s.tables[r.table] = t
	}
	spend(&t.cost, r.end.Sub(r.begin))
	closed := t.longest > 0 && !t.over.After(r.end) // since the last reading, and before this one
	inSession := s.held() || s.end.After(r.begin)
	late := inSession && r.changed && !closed
	t.late = t.late || late
	switch {
	case t.again: // it lasts longer than usual
	case late:
		t.until = max(t.until-0.1, leastEnd)
	case inSession && !r.changed && t.plan.After(s.begin):
		t.until = min(t.until+0.01, mostEnd)
	}
	t.gap = 0
	if closed {
		if r.changed || t.late {
			t.lengths.add(t.longest)
		}
		t.longest, t.late = 0, false
		if !t.good.IsZero() && !(s.held() && r.changed) {
			t.gap = t.over.Sub(t.good)
		}
	}
	if !late {
		t.good = r.begin // the kernel sums the counters first, and then copies the table
	}
	t.end = r.end
	if !t.plan.After(r.end) {
		s.replan(t, r)
	}
	if r.begin.After(t.over) {
		t.due = time.Time{}
	}
	return inSession || s.lost && !s.waited
}

// replan has a table read again while the session goes on that has not written it yet:
// on a busy machine one lasts twice or four times as long as the one before.
func (s *sessions) replan(t *sessionTable, r tableRead) {
	planned := !t.plan.IsZero() && !t.plan.Before(s.begin)
	t.plan = time.Time{}
	if usual := t.lengths.usual(); planned && usual > 0 && s.held() && !r.changed && !t.late && t.cost <= dearLook {
		t.plan, t.again = r.end.Add(max(usual/4, share*t.cost, free)), true
	}
}

// blind returns for how long a table was not looked at before a change that the
// last reading has seen: from the reading before the session to its end; 0 where
// that is not known.
func (s *sessions) blind(t legacyTable) time.Duration {
	if table := s.tables[t]; table != nil {
		return table.gap
	}
	return 0
}

// skip gives up the next reading of a table that is planned.
func (s *sessions) skip(t legacyTable) {
	table := s.tables[t]
	switch {
	case table == nil:
	case s.held() && !table.plan.IsZero():
		table.plan = time.Time{}
	default:
		table.due = time.Time{}
	}
}
