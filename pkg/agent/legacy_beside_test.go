// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"testing"
	"time"

	"github.com/svcscope/svcscope/pkg/internal/kerneltest"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/service"
)

// TestDearLooks has a table that takes long to read looked at beside the others,
// and rewritten right after that; what came before must not be lost, whoever
// takes the reading.
func TestDearLooks(t *testing.T) {
	takes := map[string]func(*testing.T, *sampler){
		"when it comes": func(t *testing.T, s *sampler) { s.arrived(t.Context(), <-s.legacy.beside.came) },
		"before a whole reading": func(t *testing.T, s *sampler) {
			s.read(t.Context(), s.xtables)
			s.apply(t.Context())
		},
		"when the ledger doubts the last one": func(t *testing.T, s *sampler) {
			s.legacy.family(s.legacy.beside.table.family).doubted = true
			s.arrived(t.Context(), <-s.legacy.beside.came)
		},
	}
	for name, take := range takes {
		for _, f := range []family{ipv4(), ipv6()} {
			t.Run(name+"/"+f.name, func(t *testing.T) {
				kerneltest.Run(t, func(t *testing.T) {
					f.load(t, "legacy")
					f.serve(t)
					s, api := watching(t, f)
					for _, known := range s.legacy.known {
						known.look("nat").cost = time.Second
					}
					api.names = []service.Name{webPort.Name}
					s.announced(time.Now())
					connect(t, f.cluster(), 70)
					s.round(t.Context())
					if s.legacy.beside.came == nil {
						t.Fatal("nat is not looked at beside the others")
					}
					take(t, s)
					if s.legacy.beside.came != nil {
						t.Fatal("it is taken twice")
					}
					f.restore(t, "legacy", f.chains())
					f.restore(t, "legacy", f.rules(""))
					connect(t, f.cluster(), 3)
					s.pass(t.Context())
					check(t, page(t, s), f, 73, 0)
				})
			})
		}
	}
}

// TestDearLooksOfTablesThatAreGone: what can't be read is tried again, and keeps
// nothing from being read.
func TestDearLooksOfTablesThatAreGone(t *testing.T) {
	reader := &tornReader{tables: []string{"nat", "filter"}, t: t}
	b := newLegacyBackend(func() (legacyReader, error) { return reader, nil })
	if _, err := b.read(t.Context()); err != nil {
		t.Fatal(err)
	}
	nat, filter, other := legacyTable{netfilter.IPv4, "nat"}, legacyTable{netfilter.IPv4, "filter"}, legacyTable{netfilter.IPv6, "filter"}
	for torn, failed := range map[string]bool{"nat": true, "": false} {
		reader.torn = torn
		if err := b.beside.start(t.Context(), nat); err != nil {
			t.Fatal(err)
		}
		if !b.away(nat) || !b.away(filter) || b.away(other) {
			t.Errorf("away: nat %v, filter %v, filter of IPv6 %v, want all of IPv4", b.away(nat), b.away(filter), b.away(other))
		}
		if _, _, err := b.arrive(t.Context(), <-b.beside.came); (err != nil) != failed {
			t.Errorf("torn %q: %v", torn, err)
		}
		if b.away(nat) {
			t.Error("nat is still away")
		}
	}
	reader.tables = []string{"filter"}
	if err := b.beside.start(t.Context(), nat); err != nil {
		t.Fatal(err)
	}
	if err := b.settle(t.Context()); err != nil {
		t.Errorf("a table that is gone: %v", err)
	}
	if err := b.close(); err != nil {
		t.Error(err)
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
