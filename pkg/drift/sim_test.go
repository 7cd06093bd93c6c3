// SPDX-License-Identifier: Apache-2.0

package drift

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/svcscope/svcscope/pkg/kubeproxy"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/service"
)

// world is an API, a kube-proxy and an agent at a node, each of which hears of things in
// its own time.
type world struct {
	t   *testing.T
	rng *rand.Rand
	now time.Time
	// events are to come.
	events []event

	cluster  cluster
	services int
	api      *service.Catalog
	changed  map[service.Name]time.Time // as announced to the agent
	apiDown  bool                       // for the agent

	proxy model
	node  *node

	catalog  *service.Catalog // the agent's
	catalogs []*service.Catalog
	comparer Comparer
	commits  Commits
	judge    *Judge
	verdicts int
	// blind: not all commits are seen, as with x_tables.
	blind bool
}

// model is kube-proxy's IPv4 proxier.
type model struct {
	known   *service.Catalog
	changes map[string]bool // chains that the next sync writes
	busy    bool
	ended   time.Time
	full    bool
	down    bool
	// takes is how long a sync takes, lag how late the API's news may come.
	takes func() time.Duration
	lag   time.Duration
	// period is --iptables-min-sync-period, and fails tells whether a restore fails.
	period time.Duration
	fails  func() bool
}

type event struct {
	at time.Time
	do func()
}

func newWorld(t *testing.T, seed uint64, services int) *world {
	w := &world{
		t: t, rng: rand.New(rand.NewPCG(seed, 2)), now: start, services: services, judge: NewJudge(0),
		changed: map[service.Name]time.Time{}, node: newNode(t, netfilter.IPv4),
	}
	w.cluster = cluster{rng: w.rng}
	w.api = w.cluster.catalog(services)
	w.catalog = w.api
	w.proxy = model{
		known: w.api, changes: map[string]bool{}, lag: time.Second, period: time.Second,
		fails: func() bool { return false },
		takes: func() time.Duration { return 20*time.Millisecond + w.upTo(2*time.Second) },
	}
	w.node.sync(t, w.api, flags{}, w.rng)
	return w
}

func (w *world) one(of int) bool { return w.rng.IntN(of) == 0 }

func (w *world) upTo(d time.Duration) time.Duration { return time.Duration(w.rng.Int64N(int64(d))) }

func (w *world) after(d time.Duration, do func()) {
	e := event{w.now.Add(d), do}
	i, _ := slices.BinarySearchFunc(w.events, e, func(a, b event) int {
		if a.at.After(b.at) {
			return 1
		}
		return -1
	})
	w.events = slices.Insert(w.events, i, e)
}

// run lets time pass.
func (w *world) run(d time.Duration) {
	end := w.now.Add(d)
	for len(w.events) > 0 && !w.events[0].at.After(end) {
		e := w.events[0]
		w.events = w.events[1:]
		w.now = e.at
		e.do()
	}
	w.now = end
}

// change has the API change something, of which kube-proxy and the agent hear in their
// own time.
func (w *world) change() {
	next, names := w.cluster.change(w.api, w.services)
	w.publish(next, names)
}

func (w *world) publish(next *service.Catalog, names []service.Name) {
	old := w.api
	w.api = next
	w.after(w.upTo(w.proxy.lag), func() {
		if w.proxy.known.Version < next.Version {
			w.proxy.known = next
		}
		for _, n := range names {
			for _, svc := range []*service.Service{old.Service(n), next.Service(n)} {
				eachPort(svc, func(pf PortFamily) { w.proxy.touch(pf.Port, old, next) })
			}
		}
		w.sync()
	})
	told := w.upTo(200 * time.Millisecond)
	w.after(told, func() {
		for _, n := range names {
			w.changed[n] = w.now
		}
	})
	w.after(told+w.upTo(1200*time.Millisecond), func() {
		w.catalogs = append(w.catalogs, next)
		if !w.apiDown && next.Version > w.catalog.Version {
			w.catalog = next
		}
	})
}

// touch has the next sync write the chains of a port.
func (p *model) touch(port service.PortName, catalogs ...*service.Catalog) {
	for _, chain := range kubeproxy.ChainsOf(kubeproxy.Hash(port)) {
		p.changes[chain] = true
	}
	for _, c := range catalogs {
		for _, e := range c.EndpointsOf(port, false) {
			p.changes[kubeproxy.EndpointChain(port, e.Addr)] = true
		}
	}
}

// sync begins one as soon as it may: a period after the end of the last one.
func (w *world) sync() {
	p := &w.proxy
	if p.busy || p.down {
		return
	}
	p.busy = true
	w.after(max(0, p.ended.Add(p.period).Sub(w.now)), w.begin)
}

func (w *world) begin() {
	p := &w.proxy
	changes, full := p.changes, p.full
	p.changes, p.full = map[string]bool{}, false
	known := p.known
	writer := proxier{catalog: known}
	writer.sync()
	took := p.takes()
	if p.fails() {
		w.after(took, w.failed)
		return
	}
	filter := time.Duration(float64(took) * w.rng.Float64())
	w.after(filter, func() { w.node.commit("filter", writer.filter, changes, full, w.rng) })
	w.after(took, func() {
		w.node.commit("nat", writer.nat, changes, full, w.rng)
		p.busy, p.ended = false, w.now
		if len(p.changes) > 0 || p.full {
			w.sync()
		}
	})
}

// failed ends a sync that wrote nothing, as when another program holds the lock of
// xtables: the next one writes everything, after 30 seconds or the next change.
func (w *world) failed() {
	p := &w.proxy
	p.busy, p.ended, p.full = false, w.now, true
	if len(p.changes) > 0 {
		w.sync()
		return
	}
	w.after(30*time.Second, w.sync)
}

// read is one of the agent's readings. The API's picture may be of just before the rules',
// or of just after.
func (w *world) read(ok func(*Verdict)) {
	judge := func(catalog *service.Catalog) {
		rules := []Rules{w.node.rules()}
		r := &Reading{
			Time: w.now, Current: !w.apiDown, Commits: w.seen(w.commits.See(rules, w.now)),
			Result:    w.comparer.Compare(&Input{Catalog: catalog, Rules: rules}),
			ChangedAt: func(n service.Name) time.Time { return w.changed[n] },
		}
		w.verdicts++
		ok(w.judge.Judge(r))
	}
	if w.rng.IntN(2) == 0 { // the rules first
		w.node.read(w.t)
		w.run(w.upTo(300 * time.Millisecond))
		judge(w.catalog)
		return
	}
	catalog := w.catalog
	w.run(w.upTo(300 * time.Millisecond))
	w.node.read(w.t)
	judge(catalog)
}

// seen are the commits that the agent sees.
func (w *world) seen(commits []Commit) []Commit {
	return slices.DeleteFunc(commits, func(c Commit) bool { return w.blind && (c.Half || w.one(2)) })
}

// readings makes them at moments of chance, some right after each other, for so long.
func (w *world) readings(d time.Duration, ok func(*Verdict)) {
	for end := w.now.Add(d); w.now.Before(end); {
		switch w.rng.IntN(4) {
		case 0:
			w.run(w.upTo(50 * time.Millisecond))
		case 1:
			w.run(w.upTo(500 * time.Millisecond))
		case 2:
			w.run(w.upTo(3 * time.Second))
		default:
			w.run(w.upTo(16 * time.Second))
		}
		w.read(ok)
	}
}

// churn has the API change for so long, at moments of chance.
func (w *world) churn(d, every time.Duration) {
	for at := time.Duration(0); at < d; at += w.upTo(every) {
		w.after(at, w.change)
	}
}

// none fails for any drift.
func (w *world) none(v *Verdict) { w.only(v) }

// only fails for any drift but of these kinds.
func (w *world) only(v *Verdict, kinds ...Kind) {
	w.t.Helper()
	for _, d := range v.Drifts {
		if !slices.Contains(kinds, d.Kind) {
			w.t.Fatalf("after %s: %+v", w.now.Sub(start), d)
		}
	}
}

// has reports whether a kind is drift.
func has(v *Verdict, k Kind) bool {
	return slices.ContainsFunc(v.Drifts, func(d Drift) bool { return d.Kind == k })
}

// TestNeverCriesWolf: while kube-proxy keeps up, nothing is drift at any moment.
func TestNeverCriesWolf(t *testing.T) {
	for _, seed := range seeds {
		for _, every := range []time.Duration{300 * time.Millisecond, 4 * time.Second, 40 * time.Second} {
			t.Run(fmt.Sprintf("%d/a change each %s", seed, every/2), func(t *testing.T) {
				w := newWorld(t, seed, 12)
				w.churn(100*every, every)
				w.readings(100*every+time.Minute, w.none)
				if len(w.comparer.Compare(&Input{Catalog: w.catalog, Rules: []Rules{w.node.rules()}}).Differences) > 0 {
					t.Error("rules and API have not met in the end")
				}
				t.Logf("%d changes, %d readings", w.api.Version, w.verdicts)
			})
		}
	}
}

// TestSlowKubeProxy: a kube-proxy that takes a minute for a sync is at most not syncing.
func TestSlowKubeProxy(t *testing.T) {
	for _, seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			w := newWorld(t, seed, 12)
			w.proxy.takes = func() time.Duration { return 50*time.Second + w.upTo(20*time.Second) }
			w.churn(30*time.Minute, 30*time.Second)
			w.readings(40*time.Minute, func(v *Verdict) { w.only(v, NotSyncing) })
		})
	}
}

// TestStoppedKubeProxy: one that has stopped is not syncing, and no Service's fault; when it
// comes back, all ends.
func TestStoppedKubeProxy(t *testing.T) {
	for _, seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			w := newWorld(t, seed, 12)
			w.churn(5*time.Minute, 4*time.Second)
			w.readings(time.Minute, w.none)
			w.proxy.down = true
			stopped, told := w.now, time.Time{}
			w.readings(4*time.Minute, func(v *Verdict) {
				w.only(v, NotSyncing)
				if has(v, NotSyncing) && told.IsZero() {
					told = w.now
				}
			})
			if after := told.Sub(stopped); told.IsZero() || after > 2*time.Minute {
				t.Errorf("told after %s", after)
			}
			w.proxy.down, w.proxy.full = false, true
			w.sync()
			ended := false
			w.readings(2*time.Minute, func(v *Verdict) {
				w.only(v, NotSyncing)
				ended = !has(v, NotSyncing)
			})
			if !ended {
				t.Error("not_syncing has not ended")
			}
		})
	}
}

// TestLostAPI: five minutes without the API under churn, for the agent or for both, are
// nothing.
func TestLostAPI(t *testing.T) {
	for _, both := range []bool{false, true} {
		for _, seed := range seeds {
			t.Run(fmt.Sprintf("both %v/%d", both, seed), func(t *testing.T) {
				w := newWorld(t, seed, 12)
				w.churn(10*time.Minute, 4*time.Second)
				w.readings(time.Minute, w.none)
				w.apiDown, w.proxy.down = true, both
				w.readings(5*time.Minute, w.none)
				w.apiDown = false
				for _, c := range w.catalogs {
					if c.Version > w.catalog.Version {
						w.catalog = c
					}
				}
				if both { // it comes back later than the agent
					w.after(20*time.Second, func() {
						w.proxy.down = false
						w.sync()
					})
				}
				w.readings(5*time.Minute, w.none)
			})
		}
	}
}

// TestManyServicesAtOnce: while kube-proxy loads 2,000 Services nothing is said.
func TestManyServicesAtOnce(t *testing.T) {
	const services = 2000
	w := newWorld(t, 1, 5)
	w.services = services
	w.proxy.takes = func() time.Duration { return 3*time.Second + w.upTo(10*time.Second) }
	const batches = 20
	for b := range batches {
		w.after(time.Duration(b)*400*time.Millisecond, func() {
			ch := service.Change{
				Version: w.api.Version + 1, Node: w.api.Node,
				Services: map[service.Name]*service.Service{}, Endpoints: map[service.Name][]service.PortEndpoints{},
			}
			var names []service.Name
			for i := b * services / batches; i < (b+1)*services/batches; i++ {
				name := service.Name{Namespace: "many", Name: fmt.Sprintf("svc-%05d", i)}
				ch.Services[name] = w.cluster.service(name)
				ch.Endpoints[name] = w.cluster.endpoints(ch.Services[name])
				names = append(names, name)
			}
			w.publish(w.api.Next(&ch), names)
		})
	}
	w.readings(2*time.Minute, w.none)
	if got := w.comparer.Compare(&Input{Catalog: w.catalog, Rules: []Rules{w.node.rules()}}); len(got.Differences) > 0 || len(w.catalog.Services) < services {
		t.Errorf("%d Services, %d differences", len(w.catalog.Services), len(got.Differences))
	}
}
