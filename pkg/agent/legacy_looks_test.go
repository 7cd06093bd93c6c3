// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"testing"
	"time"

	"github.com/svcscope/svcscope/pkg/kernel"
	"github.com/svcscope/svcscope/pkg/netfilter"
)

// looked is a backend whose tables were read once, with refusals that are watched; its
// lock file is, too, where that is wanted.
func looked(t *testing.T, lock bool) (*legacyBackend, *watched, *tornReader) {
	t.Helper()
	reader := &tornReader{tables: []string{"nat", "filter"}, t: t}
	b := newLegacyBackend(func() (legacyReader, error) { return reader, nil })
	if lock {
		b.lock.path, b.lock.watch = "lock", func(string) (lockWatch, error) { return quietLock{}, nil }
		if err := b.lock.retry(time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := b.read(t.Context()); err != nil {
		t.Fatal(err)
	}
	w := newWatched()
	announce(w.refusals, netfilter.IPv4, time.Now().Add(time.Hour))
	return b, &w, reader
}

// TestLooksAfterOtherReadings: what was just read, for whatever reason, is not looked at.
func TestLooksAfterOtherReadings(t *testing.T) {
	b, w, reader := looked(t, false)
	filter := legacyTable{netfilter.IPv4, "filter"}
	look := func() int64 {
		t.Helper()
		before := reader.reads.Load()
		if _, err := b.look(t.Context(), w, false); err != nil {
			t.Fatal(err)
		}
		return reader.reads.Load() - before
	}
	b.family(filter.family).look(filter.name).rest = time.Time{}
	if n := look(); n != 1 {
		t.Errorf("%d tables were looked at, want filter", n)
	}
	b.family(filter.family).look(filter.name).rest = time.Time{}
	if _, err := b.readTable(t.Context(), filter); err != nil {
		t.Fatal(err)
	}
	if n := look(); n != 0 {
		t.Error("it was looked at right after it was read")
	}
}

// TestLooksAfterSessions: tables are left alone until they are read after the session.
func TestLooksAfterSessions(t *testing.T) {
	b, w, reader := looked(t, true)
	now := time.Now()
	for _, e := range []kernel.LockEvent{{Kind: kernel.LockOpened, At: now.Add(-5 * ms)}, {Kind: kernel.LockClosed, At: now.Add(time.Minute)}} {
		b.lock.take(e, true, e.At)
	}
	filter := b.family(netfilter.IPv4).look("filter")
	filter.rest = time.Time{}
	before := reader.reads.Load()
	next, err := b.look(t.Context(), w, false)
	if err != nil {
		t.Fatal(err)
	}
	if n := reader.reads.Load() - before; n != 0 {
		t.Errorf("%d tables were looked at", n)
	}
	if want := now.Add(time.Minute + afterwards); !next.Equal(want) {
		t.Errorf("the next look is at %v, want %v", next, want)
	}
}

// TestLooksBesideSessions: where a writer's session is watched, looks before it are rarer.
func TestLooksBesideSessions(t *testing.T) {
	for _, tt := range []struct {
		name string
		lock bool
		nat  time.Duration
		want time.Duration // at filter, which costs next to nothing
		own  time.Duration // at nat
	}{
		{"nothing is watched", false, ms, legacyEvery, legacyEvery / 2},
		{"a small table", true, ms, 2 * legacyEvery, legacyBeside},
		{"a larger one", true, 3 * longLook, 2 * legacyEvery, 3 * longLook * legacyLong},
		{"one that takes long", true, 2 * dearLook, legacyEvery, 2 * dearLook * legacyLong},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b, _, _ := looked(t, tt.lock)
			f := b.family(netfilter.IPv4)
			f.look("nat").cost = tt.nat
			f.expect([]string{"filter", "nat"})
			now := time.Now()
			f.pace.last, f.pace.gaps = time.Time{}, nil
			for i := range 4 {
				f.pace.wrote(now.Add(time.Duration(i-4) * time.Second))
			}
			if got := f.paused(cheap, now); got != tt.want {
				t.Errorf("%v between looks at filter, want %v", got, tt.want)
			}
			if got := f.paused(tt.nat, now); got != tt.own {
				t.Errorf("%v between looks at nat, want %v", got, tt.own)
			}
		})
	}
}

// TestLooksWait: a table that is left alone as a writer is at work is not asked for all the time.
func TestLooksWait(t *testing.T) {
	for _, tt := range []struct {
		name string
		cost time.Duration
		pace time.Duration // since the last write of one a second; 0: no pace
		want time.Duration
	}{
		{"after the session", 5 * ms, 0, afterwards},
		{"cheap, and a writer may come to wait", cheap, 0, legacyEvery},
		{"until a write is expected", 5 * ms, 920 * ms, time.Second - time.Second/paceLead - legacyLead - legacyLead/2 - 920*ms},
		{"as it is expected", 5 * ms, 960 * ms, afterwards},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b, _, _ := looked(t, true)
			f, now := b.family(netfilter.IPv4), time.Now()
			b.lock.take(kernel.LockEvent{Kind: kernel.LockOpened, At: now.Add(-5 * ms)}, true, now)
			l := f.look("nat")
			l.cost, l.last = tt.cost, now.Add(-5*ms)
			f.expect([]string{"nat"})
			f.pace.last, f.pace.gaps = time.Time{}, nil
			for i := range 4 {
				if tt.pace > 0 {
					f.pace.wrote(now.Add(time.Duration(i-3)*time.Second - tt.pace))
				}
			}
			if got := f.patient(l, now).Sub(now); got != tt.want {
				t.Errorf("%v, want %v", got, tt.want)
			}
		})
	}
}
