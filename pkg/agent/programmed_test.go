// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/svcscope/svcscope/pkg/drift"
	"github.com/svcscope/svcscope/pkg/internal/kerneltest"
	"github.com/svcscope/svcscope/pkg/kernel"
	"github.com/svcscope/svcscope/pkg/kubeproxy"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/ruleset"
	"github.com/svcscope/svcscope/pkg/service"
)

// TestWrittenBeforeItIsRead: what a reading of x_tables finds was there when the last session was over.
func TestWrittenBeforeItIsRead(t *testing.T) {
	start := time.Unix(1_000_000, 0)
	at := func(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }
	const opened, closed = kernel.LockOpened, kernel.LockClosed
	type event struct {
		kind kernel.LockEventKind
		ms   int
	}
	tests := []struct {
		name   string
		events []event
		read   int
		want   int
	}{
		{"no session", nil, 500, 500},
		{"a session before", []event{{opened, 100}, {closed, 150}}, 500, 150},
		{"two of them", []event{{opened, 100}, {closed, 150}, {opened, 200}, {closed, 230}}, 500, 230},
		{"the next one has begun since", []event{{opened, 100}, {closed, 150}, {opened, 600}}, 500, 150},
		{"another one is under way", []event{{opened, 100}, {closed, 150}, {opened, 400}}, 500, 500},
		{"another one has waited for it", []event{{opened, 100}, {opened, 120}, {closed, 150}}, 500, 500},
		{"another one was, and is over", []event{{opened, 100}, {closed, 150}, {opened, 400}, {closed, 600}}, 500, 500},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newLegacyBackend(nil)
			f := b.family(netfilter.IPv4)
			if f.at = at(tt.read); b.written(f) != at(tt.read) {
				t.Errorf("without a lock file %v, want when it was read", b.written(f).Sub(start))
			}
			b.lock.sessions = newSessions()
			b.lock.sessions.read(tableRead{table: legacyTable{netfilter.IPv4, "nat"}, begin: at(0), end: at(1)})
			for _, e := range tt.events {
				b.lock.sessions.event(kernel.LockEvent{Kind: e.kind, At: at(e.ms)})
			}
			if got := b.written(f); !got.Equal(at(tt.want)) {
				t.Errorf("written after %v, want %d ms", got.Sub(start), tt.want)
			}
		})
	}
}

// TestCommitsThatBringEndpoints: what was not there at one look and is at the next was written in between.
func TestCommitsThatBringEndpoints(t *testing.T) {
	start := time.Unix(1_000_000, 0)
	at := func(s int) time.Time { return start.Add(time.Duration(s) * time.Second) }
	port := drift.PortFamily{Port: webPort, Family: netfilter.IPv4}
	before, after := programmingChains([]byte{2}), programmingChains([]byte{2, 3})
	commit := func(b ruleset.Backend, after, seen int) drift.Commit {
		return drift.Commit{Family: netfilter.IPv4, Backend: b, After: at(after), Seen: at(seen)}
	}
	half := commit(ruleset.NFT, 0, 15)
	half.Half = true
	tests := []struct {
		name    string
		backend ruleset.Backend
		looks   map[int][]string // by the second; the change comes at 5
		seen    []drift.Commit
		want    []drift.Commit
	}{
		{"nothing", ruleset.NFT, nil, nil, nil},
		{"no look before", ruleset.NFT, map[int][]string{7: after}, []drift.Commit{commit(ruleset.NFT, 0, 15)}, []drift.Commit{commit(ruleset.NFT, 0, 15)}},
		{"a look of before the change", ruleset.NFT, map[int][]string{4: before, 7: after}, []drift.Commit{commit(ruleset.NFT, 0, 15)}, []drift.Commit{commit(ruleset.NFT, 0, 15)}},
		{"a look", ruleset.NFT, map[int][]string{6: before, 7: after}, []drift.Commit{commit(ruleset.NFT, 0, 15)}, []drift.Commit{commit(ruleset.NFT, 6, 15)}},
		{"it has not come", ruleset.NFT, map[int][]string{6: before, 7: before}, []drift.Commit{commit(ruleset.NFT, 0, 15)}, []drift.Commit{commit(ruleset.NFT, 0, 15)}},
		{"filter alone was written", ruleset.NFT, map[int][]string{6: before, 7: after}, []drift.Commit{half}, []drift.Commit{half}},
		{"by whom nothing tells", ruleset.NFT, map[int][]string{6: before, 7: after}, nil, nil},
		{"in x_tables", ruleset.Legacy, map[int][]string{6: before, 7: after}, nil, []drift.Commit{commit(ruleset.Legacy, 6, 15)}},
		{"of another backend", ruleset.NFT, map[int][]string{6: before, 7: after}, []drift.Commit{commit(ruleset.Legacy, 0, 15)}, []drift.Commit{commit(ruleset.Legacy, 0, 15)}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := fakeSampler(&fakeBackend{answers: []answer{{set: emptyRules()}}}, nil, nil).programming
			catalog := programmingWith(&service.Catalog{}, 1, []byte{2})
			p.announce(nil, 1, catalog, at(0))
			p.announce([]service.Name{webPort.Name}, 2, programmingWith(catalog, 2, []byte{2, 3}), at(5))
			for s := range 15 {
				if chains := tt.looks[s]; chains != nil {
					p.found(tt.backend, port, chains, sight{at(s), at(s)})
				}
			}
			if diff := cmp.Diff(tt.want, p.commits(tt.seen, at(15)), cmp.Comparer(func(a, b []drift.Commit) bool { return slices.Equal(a, b) })); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			if again := p.commits(nil, at(30)); len(again) > 0 {
				t.Errorf("told twice: %v", again)
			}
		})
	}
}

// TestChangeAndCommitWithinOneInterval has kube-proxy write a change between two readings, and somebody
// edit the rules before the second one: that is the Service's drift, not a kube-proxy that does not sync.
func TestChangeAndCommitWithinOneInterval(t *testing.T) {
	for _, backend := range []string{"nft", "legacy"} {
		t.Run(backend, func(t *testing.T) {
			kerneltest.Run(t, func(t *testing.T) {
				all, few := ipv4(), ipv4()
				few.endpoints = all.endpoints[:1]
				all.load(t, backend)
				all.restore(t, backend, few.chains())
				s, api, _ := drifting(t, &few)
				api.names = []service.Name{webPort.Name}
				at := time.Now()
				judged(t, s, at)

				api.catalog = all.catalog()
				s.announced(time.Now())
				look := func() {
					s.read(t.Context(), s.xtables) // as around the sessions of writers
					s.programmed(t.Context())
				}
				look()
				all.restore(t, backend, all.chains())
				all.restore(t, backend, all.rules(""))
				if look(); len(s.programming.waiting) > 0 {
					t.Fatalf("it waits for %v", s.programming.waiting)
				}
				kerneltest.Exec(t, "", "iptables-"+backend, "-w", "5", "-t", "nat", "-D", kubeproxy.ServiceChain(webPort), "1")

				var told []drift.Kind
				for range 10 {
					at = at.Add(15 * time.Second)
					d := judged(t, s, at)
					told = kinds(d)
					if slices.ContainsFunc(d.Drifts, func(d drift.Drift) bool { return d.Kind == drift.NotSyncing }) {
						t.Errorf("kube-proxy is said not to sync: %v", d.Drifts)
					}
				}
				if !slices.Equal(told, []drift.Kind{drift.MissingEndpoint}) {
					t.Errorf("after two minutes and a half %v, want missing_endpoint", told)
				}
			})
		})
	}
}

// TestCatchesUp: what the API takes back was there for a time. Before the third change of a port x_tables are
// read, unless nobody can have written.
func TestCatchesUp(t *testing.T) {
	for _, dear := range []bool{false, true} {
		for _, session := range []bool{false, true} {
			t.Run(fmt.Sprintf("dear %v, session %v", dear, session), func(t *testing.T) {
				kerneltest.Run(t, func(t *testing.T) { catchUp(t, dear, session) })
			})
		}
	}
}

func catchUp(t *testing.T, dear, session bool) {
	all := ipv4()
	all.endpoints = append(all.endpoints, netip.MustParseAddrPort("10.77.0.4:8080"))
	without := func(i int) *family {
		f := all
		f.endpoints = slices.Delete(slices.Clone(all.endpoints), i, i+1)
		return &f
	}
	all.load(t, "legacy")
	all.restore(t, "legacy", without(0).chains())
	s, api, _ := drifting(t, without(0))
	api.names = []service.Name{webPort.Name}
	lock := s.legacy.lock
	lock.path, lock.watch = "lock", func(string) (lockWatch, error) { return quietLock{}, nil }
	s.pass(t.Context())
	if dear {
		s.legacy.family(netfilter.IPv4).look("nat").cost = 2 * dearLook
	}
	write := func(f *family, kinds ...kernel.LockEventKind) {
		for _, kind := range kinds {
			if kind == kernel.LockClosed {
				all.restore(t, "legacy", f.chains())
			}
			now := time.Now()
			lock.take(kernel.LockEvent{Kind: kind, At: now}, true, now)
		}
	}
	version := api.catalog.Version
	for i, wanted := range []*family{without(1), without(2), without(0)} {
		if i == 2 && session {
			write(without(2), kernel.LockOpened, kernel.LockClosed)
		}
		version++
		api.catalog = wanted.catalog()
		api.catalog.Version = version
		s.heard(t.Context())
	}
	for s.programming.held > 0 {
		s.arrived(t.Context(), <-s.legacy.came)
		s.programmed(t.Context())
	}
	if s.programming.catalog != api.catalog {
		t.Error("the newest catalog was not taken")
	}
	want := uint64(0)
	if session {
		want = 2
	}
	if got := delays(t, s, "IPv4"); got != want {
		t.Errorf("%d delays, want %d; waiting: %v", got, want, s.programming.waiting)
	}
}
