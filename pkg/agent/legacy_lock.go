// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"time"

	"github.com/svcscope/svcscope/pkg/correlate"
	"github.com/svcscope/svcscope/pkg/kernel"
)

// lockWatch is kernel.LockWatch.
type lockWatch interface {
	Events() <-chan kernel.LockEvent
	Close() error
}

// watchAgain is how often a lock file that cannot be watched is looked for.
const watchAgain = 15 * time.Second

// legacyLock is the lock file of iptables-legacy, watched where it is there.
// The zero value watches none. It is for one goroutine.
type legacyLock struct {
	path  string // --legacy.lock-file; empty: not watched
	watch func(path string) (lockWatch, error)
	// quiet is for how long a table's writer that keeps a pace is not due yet.
	quiet func(legacyTable, time.Time) time.Duration
	// away reports whether a table can't be read now.
	away func(legacyTable) bool

	w        lockWatch
	sessions *sessions // nil while nothing is watched
	tried    time.Time
	before   time.Duration // that it was open, as earlier watches saw it
	told     time.Duration // the most of openTime: what is told only grows
	created  time.Time     // of the first watch
}

// retry begins to watch, where that was not tried for a while.
func (l *legacyLock) retry(now time.Time) error {
	if l.path == "" || l.w != nil || !l.tried.IsZero() && now.Sub(l.tried) < watchAgain {
		return nil
	}
	l.tried = now
	w, err := l.watch(l.path)
	if err != nil {
		return err
	}
	l.w, l.sessions = w, newSessions()
	l.sessions.quiet, l.sessions.away = l.quiet, l.away
	if l.created.IsZero() {
		l.created = now
	}
	return nil
}

// events is to be received from; what comes is for take.
func (l *legacyLock) events() <-chan kernel.LockEvent {
	if l.w == nil {
		return nil
	}
	return l.w.Events()
}

// take takes what was received from events. A watch that has ended is begun
// again: the file was replaced.
func (l *legacyLock) take(e kernel.LockEvent, ok bool, now time.Time) {
	if ok {
		l.sessions.event(e)
		return
	}
	l.before += l.sessions.lockOpen(now)
	l.w, l.sessions, l.tried = nil, nil, time.Time{}
}

// drain takes what has come until now.
func (l *legacyLock) drain(now time.Time) {
	for l.w != nil {
		select {
		case e, ok := <-l.w.Events():
			l.take(e, ok, now)
		default:
			l.sessions.expire(now)
			return
		}
	}
}

// read notes a reading of a table, and reports whether a writer was at work, as far as
// is known.
func (l *legacyLock) read(r tableRead) (writing bool) {
	l.drain(time.Now())
	if l.sessions != nil && (r.table.name == "nat" || r.table.name == "filter") { // where kube-proxy counts
		return l.sessions.read(r)
	}
	return false
}

// busy reports whether a writer is at work for whose session readings are
// planned.
func (l *legacyLock) busy(now time.Time) bool { return l.sessions != nil && l.sessions.busy(now) }

// held reports whether a writer may be at work.
func (l *legacyLock) held() bool { return l.sessions != nil && l.sessions.held() }

// lasting reports whether a session has been under way for long, while another
// writer waits.
func (l *legacyLock) lasting(now time.Time) bool {
	return l.sessions != nil && l.sessions.opened > 1 && now.Sub(l.sessions.begin) >= lastingFrom
}

// idle is from when on a writer that is still at work does not keep tables from being
// looked at; the zero time where none is.
func (l *legacyLock) idle() time.Time {
	if !l.held() {
		return time.Time{}
	}
	return l.sessions.idle()
}

// wrote returns when a writer began to write the rules that a reading finds new,
// as far as is known: with the last sessions.
func (l *legacyLock) wrote(read time.Time) time.Time {
	s := l.sessions
	if s == nil || !s.busy(read) && read.Sub(s.end) > time.Second {
		return read
	}
	return s.burst
}

// next returns which table to read next, and when; ok is false where that
// depends on what happens.
func (l *legacyLock) next() (t legacyTable, at time.Time, ok bool) {
	if l.sessions == nil {
		return legacyTable{}, time.Time{}, false
	}
	return l.sessions.next()
}

// blind returns for how long a table was not looked at before its counters
// were reset, as the newest reading shows; ok is false where that is not known.
func (l *legacyLock) blind(t legacyTable) (d time.Duration, ok bool) {
	if l.sessions == nil {
		return 0, false
	}
	d = l.sessions.blind(t)
	return d, d > 0
}

// openTime is for how long the file was open; nil where it is not watched.
func (l *legacyLock) openTime(now time.Time) *correlate.LockTime {
	if l.sessions == nil {
		return nil
	}
	l.told = max(l.told, l.before+l.sessions.lockOpen(now))
	return &correlate.LockTime{Open: l.told, Created: l.created}
}

func (l *legacyLock) close() error {
	if l.w == nil {
		return nil
	}
	err := l.w.Close()
	l.w, l.sessions = nil, nil
	return err
}

// readSince reports whether a reading of a table was noted since then.
func (l *legacyLock) readSince(t legacyTable, then time.Time) bool {
	if l.sessions == nil || l.sessions.tables[t] == nil {
		return false
	}
	return l.sessions.tables[t].end.After(then)
}

// skip takes a reading that was not made off the plan.
func (l *legacyLock) skip(t legacyTable) {
	if l.sessions != nil {
		l.sessions.skip(t)
	}
}

// after returns until when tables are left alone as a session has just ended.
func (l *legacyLock) after(now time.Time) (time.Time, bool) {
	if l.sessions == nil || l.sessions.held() || l.sessions.end.IsZero() {
		return time.Time{}, false
	}
	at := l.sessions.end.Add(afterwards)
	return at, now.Before(at)
}
