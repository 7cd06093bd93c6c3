// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"testing"
	"time"

	"github.com/svcscope/svcscope/pkg/internal/kerneltest"
	"github.com/svcscope/svcscope/pkg/kernel"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/service"
)

// dearScene has nat take long to read in both families, and what comes of f's way
// announced to change.
func dearScene(t *testing.T, f family) *sampler {
	t.Helper()
	f.load(t, "legacy")
	f.serve(t)
	s, api := watching(t, f)
	for _, known := range s.legacy.known {
		known.look("nat").cost = time.Second
	}
	api.names = []service.Name{webPort.Name}
	s.announced(time.Now())
	return s
}

// besideOf looks until that table was asked for beside others, and returns its reading,
// which was not taken.
func besideOf(t *testing.T, s *sampler, table legacyTable) besideRead {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); {
		s.xtables.rest = time.Time{}
		known := s.legacy.family(table.family)
		known.look(table.name).rest = time.Time{} // it was read a while ago
		if table.name != "filter" {
			known.look("filter").cost = cheap // on however busy a machine
		}
		s.round(t.Context())
		for s.legacy.reads() {
			read := <-s.legacy.came
			if read.asked == table {
				return read
			}
			s.arrived(t.Context(), read)
		}
	}
	t.Fatalf("%v is not looked at beside the others", table)
	return besideRead{}
}

// TestDearLooks has a table that takes long to read looked at beside the others,
// and rewritten right after that; what came before must not be lost, whoever
// takes the reading.
func TestDearLooks(t *testing.T) {
	for _, tt := range []struct {
		name string
		late bool // the table is rewritten before the reading is taken
	}{{"taken when it comes", false}, {"taken before a whole reading", true}} {
		for _, f := range []family{ipv4(), ipv6()} {
			t.Run(tt.name+"/"+f.name, func(t *testing.T) {
				kerneltest.Run(t, func(t *testing.T) {
					s := dearScene(t, f)
					connect(t, f.cluster(), 70)
					nat := legacyTable{netfilter.IPv4, "nat"}
					if f.iptables == "ip6tables" {
						nat.family = netfilter.IPv6
					}
					known := s.legacy.family(nat.family)
					read := besideOf(t, s, nat)
					if tables := read.tables; len(tables) != 2 || tables[0].table.name != "filter" || tables[1].table.name != "nat" {
						t.Errorf("%+v: want filter, which may be about to be written, and nat", tables)
					}
					known.fresh = true
					if s.tell(t.Context(), s.xtables, time.Now()); !known.fresh {
						t.Fatal("the ledger was told of a family that is being read")
					}
					if tt.late {
						s.legacy.came <- read
					} else {
						s.arrived(t.Context(), read)
					}
					f.restore(t, "legacy", f.chains())
					f.restore(t, "legacy", f.rules(""))
					connect(t, f.cluster(), 3)
					s.pass(t.Context())
					if known.away {
						t.Error("the reading was not taken")
					}
					check(t, page(t, s), f, 73, 0)
				})
			})
		}
	}
}

// TestDearLooksInDoubt: where the ledger doubts what it was told, all is read.
func TestDearLooksInDoubt(t *testing.T) {
	kerneltest.Run(t, func(t *testing.T) {
		f := ipv4()
		s := dearScene(t, f)
		connect(t, f.cluster(), 70)
		s.legacy.family(netfilter.IPv4).doubted = true
		read := besideOf(t, s, legacyTable{netfilter.IPv4, "filter"}) // the first that is wanted
		if len(read.tables) < 2 {
			t.Fatalf("%+v: the rest is not read", read.tables)
		}
		s.arrived(t.Context(), read)
		f.restore(t, "legacy", f.chains())
		f.restore(t, "legacy", f.rules(""))
		connect(t, f.cluster(), 3)
		s.pass(t.Context())
		check(t, page(t, s), f, 73, 0)
	})
}

// TestRecentReadings: a sampling leaves out a table that takes long and was read
// just before, but where the ledger doubts what it was told.
func TestRecentReadings(t *testing.T) {
	reader := &tornReader{tables: []string{"nat", "filter"}, t: t}
	b := newLegacyBackend(func() (legacyReader, error) { return reader, nil })
	f := b.family(netfilter.IPv4)
	for i, tt := range []struct {
		name    string
		prepare func()
		reads   int64
	}{
		{"the first", func() {}, 4},
		{"all are cheap", func() {}, 4},
		{"nat of IPv4 is dear", func() { f.look("nat").cost = time.Second }, 3},
		{"and in doubt", func() { f.doubted = true }, 4},
		{"read long ago", func() {
			f.doubted, f.look("nat").cost, f.look("nat").read = false, time.Second, time.Now().Add(-time.Minute)
		}, 4},
	} {
		before := reader.reads.Load()
		tt.prepare()
		if _, err := b.read(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := reader.reads.Load() - before; got != tt.reads {
			t.Errorf("%d, %s: %d tables were read, want %d", i, tt.name, got, tt.reads)
		}
	}
}

// TestDearReadingsThatFail: what can't be read keeps nothing else from being read,
// and is not tried over and over.
func TestDearReadingsThatFail(t *testing.T) {
	nat, filter, other := legacyTable{netfilter.IPv4, "nat"}, legacyTable{netfilter.IPv4, "filter"}, legacyTable{netfilter.IPv6, "filter"}
	for name, fail := range map[string]func(*tornReader){
		"torn": func(r *tornReader) { r.torn = "nat" },
		"gone": func(r *tornReader) { r.tables = []string{"filter"} },
	} {
		t.Run(name, func(t *testing.T) {
			reader := &tornReader{tables: []string{"nat", "filter"}, t: t}
			s := newTestSampler(testConfig())
			s.legacy = newLegacyBackend(func() (legacyReader, error) { return reader, nil })
			s.xtables.backend = s.legacy
			t.Cleanup(func() { _ = s.close() })
			lock := s.legacy.lock
			lock.path, lock.watch = "lock", func(string) (lockWatch, error) { return quietLock{}, nil }
			s.watchLock(time.Now())
			for range 2 { // the ledger doubts the first
				s.read(t.Context(), s.xtables)
				s.apply(t.Context())
			}
			s.legacy.family(nat.family).look("nat").cost = time.Second
			fail(reader)
			now := time.Now()
			lock.take(kernel.LockEvent{Kind: kernel.LockOpened, At: now.Add(-time.Second)}, true, now)
			lock.take(kernel.LockEvent{Kind: kernel.LockClosed, At: now.Add(-time.Millisecond)}, true, now)
			poll := time.Now().Add(5 * time.Second)
			for {
				if s.readDue(t.Context()); time.Now().After(poll) {
					t.Fatal("nat is not read after the session")
				}
				if !s.legacy.reads() {
					continue
				}
				read := <-s.legacy.came
				if read.asked == nat {
					s.legacy.came <- read
					break
				}
				s.arrived(t.Context(), read)
			}
			if !s.legacy.away(nat) || !s.legacy.away(filter) || s.legacy.away(other) {
				t.Error("all of IPv4 is away, and nothing else")
			}
			s.arrived(t.Context(), <-s.legacy.came)
			for range 3 {
				if s.readDue(t.Context()); s.legacy.reads() {
					t.Fatal("it is read again at once")
				}
			}
		})
	}
}

// TestApart has a dear look wait for a time at which no writer meets it.
func TestApart(t *testing.T) {
	at := func(d time.Duration) time.Time { return time.Unix(1000, 0).Add(d) }
	const cost = 100 * ms
	for _, tt := range []struct {
		name string
		now  time.Duration
		held bool
		want time.Duration
	}{
		{"just written", 3 * time.Second, false, time.Second - time.Second/paceLead - 3*cost},
		{"in time", 4*time.Second - 3*cost, false, 0},
		{"in time, but somebody writes", 4*time.Second - 3*cost, true, legacyEvery},
		{"too late", 4*time.Second - cost, false, legacyEvery},
		{"overdue", 5 * time.Second, false, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newLegacyBackend(nil)
			b.lock.sessions = newSessions()
			f := b.family(netfilter.IPv4)
			for i := range 4 {
				f.pace.wrote(at(time.Duration(i) * time.Second))
			}
			if tt.held {
				b.lock.sessions.opened = 1
			}
			if got := b.apart(f, cost, at(tt.now)); got != tt.want {
				t.Errorf("it waits for %v, want %v", got, tt.want)
			}
		})
	}
}
