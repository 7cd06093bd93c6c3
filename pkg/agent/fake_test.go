// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/svcscope/svcscope/pkg/correlate"
	"github.com/svcscope/svcscope/pkg/internal/iptsave"
	"github.com/svcscope/svcscope/pkg/kernel"
	"github.com/svcscope/svcscope/pkg/kubeproxy"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/conntrack"
	"github.com/svcscope/svcscope/pkg/ruleset"
	"github.com/svcscope/svcscope/pkg/service"
)

// fakeBackend answers with one set of rules after another; the last stays.
type fakeBackend struct {
	answers []answer
	reads   []time.Time
	known   []*familyRules
	looking func(*watched) // what a look does
}

type answer struct {
	set       *ruleset.Ruleset
	undecoded map[string]uint64
	err       error
}

func (f *fakeBackend) read(context.Context) (map[string]uint64, error) {
	a := f.answers[min(len(f.reads), len(f.answers)-1)]
	f.reads = append(f.reads, time.Now())
	if a.err == nil {
		known := f.of(a.set)
		known.replace(a.set)
		known.again = true
	}
	return a.undecoded, a.err
}

// of returns what is known of the family that a set is of.
func (f *fakeBackend) of(rs *ruleset.Ruleset) *familyRules {
	for _, k := range f.families() {
		if k.set.Backend == rs.Backend && k.set.Family == rs.Family {
			return k
		}
	}
	f.known = append(f.known, newFamily(rs.Backend, rs.Family, rs))
	return f.known[len(f.known)-1]
}

// families has one that was not read, beside those that the answers are of.
func (f *fakeBackend) families() []*familyRules {
	if f.known == nil {
		backend := ruleset.NFT
		for _, a := range f.answers {
			if a.set != nil {
				backend = a.set.Backend
			}
		}
		f.known = []*familyRules{newFamily(backend, netfilter.IPv4, &ruleset.Ruleset{Backend: backend, Family: netfilter.IPv4})}
	}
	return f.known
}

func (*fakeBackend) refusers() []*familyRules { return nil }

func (*fakeBackend) tell(context.Context, *correlate.Names, useCommit) (bool, error) {
	return false, nil
}

func (f *fakeBackend) look(_ context.Context, w *watched, _ bool) (next time.Time, err error) {
	if f.looking != nil {
		f.looking(w)
	}
	return next, nil
}

func (*fakeBackend) unseen(*familyRules, string) (time.Duration, bool) { return 0, false }
func (*fakeBackend) changes() []correlate.RulesetChanges               { return nil }
func (*fakeBackend) stats() kernel.ReadStats                           { return kernel.ReadStats{} }
func (*fakeBackend) close() error                                      { return nil }

// emptyRules is legacy without tables.
func emptyRules() *ruleset.Ruleset {
	return &ruleset.Ruleset{Backend: ruleset.Legacy, Family: netfilter.IPv4}
}

// webRules is a legacy ruleset with web, whose rules have passed these packets.
func webRules(t *testing.T, connections, external string) *ruleset.Ruleset {
	t.Helper()
	sep := kubeproxy.EndpointChain(webPort, ipv4().endpoints[0])
	text := strings.NewReplacer("SVC", kubeproxy.ServiceChain(webPort), "EXT", kubeproxy.ExternalChain(webPort), "SEP", sep).Replace(`*nat
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:KUBE-SERVICES - [0:0]
:EXT - [0:0]
:SVC - [0:0]
:SEP - [0:0]
[0:0] -A OUTPUT -j KUBE-SERVICES
[0:0] -A KUBE-SERVICES -d 10.96.0.10/32 -p tcp -m comment --comment "shop/web:http cluster IP" -m tcp --dport 80 -j SVC
[` + external + `:0] -A EXT -j SVC
[` + connections + `:0] -A SVC -m comment --comment "shop/web:http -> 10.77.0.2:8080" -j SEP
[0:0] -A SEP -p tcp -m comment --comment "shop/web:http" -m tcp -j DNAT --to-destination 10.77.0.2:8080
COMMIT
`)
	rs, err := iptsave.Parse(netfilter.IPv4, ruleset.Legacy, text)
	if err != nil {
		t.Fatal(err)
	}
	return rs
}

// fakeConntrack has a settable count.
type fakeConntrack struct {
	entries  atomic.Uint64
	stats    *kernel.ConntrackStats
	statsErr error
	flows    []conntrack.Flow
	flowsErr error
	closed   bool
}

func (f *fakeConntrack) Count(context.Context) (uint64, error)   { return f.entries.Load(), nil }
func (f *fakeConntrack) Limit(context.Context) (uint64, error)   { return 1000, nil }
func (f *fakeConntrack) Buckets(context.Context) (uint64, error) { return 256, nil }
func (f *fakeConntrack) Close() error                            { f.closed = true; return nil }
func (f *fakeConntrack) FlowStats() kernel.ReadStats             { return kernel.ReadStats{} }
func (f *fakeConntrack) Flows(_ context.Context, _ kernel.FlowFilter, visit func(*conntrack.Flow)) (kernel.FlowDump, error) {
	for i := range f.flows {
		visit(&f.flows[i])
	}
	return kernel.FlowDump{Entries: uint64(len(f.flows))}, f.flowsErr
}
func (f *fakeConntrack) Stats(context.Context) (kernel.ConntrackStats, error) {
	if f.statsErr != nil {
		return kernel.ConntrackStats{}, f.statsErr
	}
	if f.stats != nil {
		return *f.stats, nil
	}
	drops := uint64(3)
	return kernel.ConntrackStats{Drop: &drops}, nil
}

// fakeWatcher is an API that syncs when told to.
type fakeWatcher struct {
	mu      sync.Mutex
	catalog *service.Catalog
	state   apiState
	changed chan struct{}
	names   []service.Name // what ChangedSince says

	pods     *service.Pods
	policies *service.Policies
	lost     []string // Events
}

func newFakeWatcher() *fakeWatcher {
	return &fakeWatcher{catalog: &service.Catalog{}, changed: make(chan struct{}, 1)}
}

func (f *fakeWatcher) set(c *service.Catalog, s apiState) {
	f.mu.Lock()
	f.catalog, f.state = c, s
	f.mu.Unlock()
	f.changed <- struct{}{}
}

func (f *fakeWatcher) Catalog() *service.Catalog {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.catalog
}

func (f *fakeWatcher) State() apiState {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.state
}

func (f *fakeWatcher) Pods() *service.Pods {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.pods
}

func (f *fakeWatcher) Policies() *service.Policies {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.policies
}

func (f *fakeWatcher) Lost(p *service.Pod, what string, packets uint64, _ time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lost = append(f.lost, fmt.Sprintf("%s %s: %s: %d", p.UID, p.Name, what, packets))
	return true
}

func (f *fakeWatcher) Changed() <-chan struct{}   { return f.changed }
func (f *fakeWatcher) Announced() <-chan struct{} { return nil }
func (f *fakeWatcher) ChangedSince(version uint64) ([]service.Name, bool, uint64) {
	return f.names, version == 0, version + 1
}
func (f *fakeWatcher) Run(ctx context.Context) error { <-ctx.Done(); return nil }

var errNoHost = errors.New("not on this host")

// fakeHost has no reader but conntrack.
func fakeHost(c *fakeConntrack) host {
	return host{
		nftables:  func() (nftablesReader, error) { return nil, errNoHost },
		notices:   func() (noticeSource, error) { return nil, errNoHost },
		legacy:    func() (legacyReader, error) { return nil, errNoHost },
		lock:      func(string) (lockWatch, error) { return nil, kernel.ErrAbsent },
		conntrack: func() (conntrackReader, error) { return c, nil },
		ipvs:      func() bool { return false },
		netAdmin:  func() (bool, error) { return true, nil },
		kernel:    "6.18.0",
	}
}

// logs collects what is logged.
type logs struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logs) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), text)
}

// await waits until text was logged.
func (l *logs) await(t *testing.T, text string) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); l.count(text) == 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the log does not say %q:\n%s", text, l.b.String())
		}
	}
}

// fakeSampler reads rules from b in the place of legacy.
func fakeSampler(b *fakeBackend, w watcher, l *logs) *sampler {
	cfg := DefaultConfig()
	cfg.Kube, cfg.NodeName = KubeNever, "node-a"
	if w != nil {
		cfg.Kube = KubeAuto
	}
	if l != nil {
		cfg.Logger = slog.New(slog.NewTextHandler(l, nil))
	}
	k := newKube(cfg, func() (watcher, error) {
		if w == nil {
			return nil, errNoHost
		}
		return w, nil
	})
	table := &fakeConntrack{}
	table.entries.Store(10)
	s := newSampler(cfg, fakeHost(table), k)
	s.sources[0].backend = &fakeBackend{answers: []answer{{set: &ruleset.Ruleset{Backend: ruleset.NFT, Family: netfilter.IPv4}}}}
	s.sources[1].backend = b
	return s
}

// totals is cluster and external of web in the newest snapshot.
func totals(s *sampler) (cluster, external uint64) {
	for _, p := range s.latest.Load().Services {
		if p.Port == webPort {
			return p.Cluster, p.External
		}
	}
	return 0, 0
}

// replace takes rules of which nothing is known to be as before.
func (f *familyRules) replace(rs *ruleset.Ruleset) {
	f.set, f.rules = rs, correlate.NewRules(rs)
	f.counters = correlate.NewCounters()
	f.read, f.fresh, f.whole = true, true, true
}
