// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"github.com/svcscope/svcscope/pkg/service"
)

// Config is what New needs.
type Config struct {
	// REST tells how to reach the API; see LoadConfig. It is not changed.
	REST *rest.Config
	// NodeName is the node whose Node object and local endpoints count.
	NodeName string
	// Pods has the node's pods followed, and Policies the names of all NetworkPolicies.
	// Events lets Lost write Events.
	Pods, Policies, Events bool
	// StartJitter delays the first list by a random time up to this, so that
	// a rollout on many nodes does not list everything at once.
	StartJitter time.Duration
	// UserAgent is svcscope/<version>; empty is client-go's own.
	UserAgent string
	// Logger gets changes of the state, once each; nil is silent.
	Logger *slog.Logger

	// For tests; zero is the default.
	settle   time.Duration // from a change to the catalog that has it
	interval time.Duration // least time between two catalogs
	retry    time.Duration // between two attempts to write Events
	backoff  *wait.Backoff
}

const (
	defaultSettle   = 50 * time.Millisecond
	defaultInterval = time.Second
)

// State is how following the API goes.
type State struct {
	// Synced is true from the first complete list on: the catalog is known,
	// if perhaps old.
	Synced bool
	// Current is true while every resource that is asked for is followed: the catalog
	// is what the API says, but for a second.
	Current bool
	// ServicesCurrent is Current of Services and their endpoints alone: a role
	// without nodes or pods leaves it true.
	ServicesCurrent bool
	// NodeMissing is true while the API answers that it has no Node of the
	// configured name: not before the first answer, and not without a name.
	// Most likely the name is wrong; zones and local endpoints are then unknown.
	NodeMissing bool
	// NodeRefused is true while the API does not let the Node be read, so that its zone
	// is not known, as with a role without nodes.
	NodeRefused bool
	// Err is the last failure of a resource that is not followed now, with
	// operation and resource; without one, what is wrong with NodeMissing;
	// empty while all is well.
	Err string
	// WaitUntil is when the first list will be sent, while it is held back
	// by StartJitter; else zero.
	WaitUntil time.Time
}

// Watcher follows the API. Its methods may be called at any time by any
// goroutine; those that read never wait.
type Watcher struct {
	cfg     Config
	clients *clients
	catalog atomic.Pointer[service.Catalog]
	state   atomic.Pointer[State]
	// Nil until they are listed.
	podsNow     atomic.Pointer[service.Pods]
	policiesNow atomic.Pointer[service.Policies]
	losses      chan loss // to be written as Events

	changed chan struct{} // for the reader, one slot
	dirty   chan struct{} // for the builder, one slot

	announced chan struct{} // for the reader, one slot

	mu       sync.Mutex
	failing  bool          // guarded by mu: a failure has been logged
	lost     bool          // guarded by mu: it was one of an API that had been there
	tables   *tables       // guarded by mu
	followed [kinds]bool   // guarded by mu: a watch stands
	failures [kinds]string // guarded by mu: why none does
	waiting  time.Time     // guarded by mu
	running  bool          // guarded by mu
}

// New prepares a Watcher; it makes no request before Run. Errors are those of
// cfg: unreadable certificates and the like.
func New(cfg Config) (*Watcher, error) {
	if cfg.REST == nil {
		return nil, errors.New("watch API: no REST config")
	}
	if cfg.Pods && cfg.NodeName == "" {
		return nil, errors.New("watch API: the pods of a node without a name")
	}
	c, err := newClients(cfg.REST, cfg.UserAgent)
	if err != nil {
		return nil, err
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.settle == 0 {
		cfg.settle = defaultSettle
	}
	if cfg.interval == 0 {
		cfg.interval = defaultInterval
	}
	if cfg.retry == 0 {
		cfg.retry = retryLost
	}
	if cfg.backoff == nil {
		b := backoff()
		cfg.backoff = &b
	}
	w := &Watcher{
		cfg: cfg, clients: c, tables: newTables(cfg.NodeName),
		changed: make(chan struct{}, 1), dirty: make(chan struct{}, 1), announced: make(chan struct{}, 1),
		losses: make(chan loss, maxLost),
	}
	w.catalog.Store(&service.Catalog{Node: service.Node{Name: cfg.NodeName}})
	w.state.Store(&State{})
	return w, nil
}

// Catalog returns the newest picture, never nil. Before the first complete
// list it is empty and not Synced; while the API is away it is the last one.
func (w *Watcher) Catalog() *service.Catalog { return w.catalog.Load() }

// Synced reports whether a complete list has arrived.
func (w *Watcher) Synced() bool { return w.catalog.Load().Synced }

// State returns how following the API goes.
func (w *Watcher) State() State { return *w.state.Load() }

// Changed gets a value after Catalog, Pods, Policies or State changed. It has one slot,
// for one reader: several changes may give one value.
func (w *Watcher) Changed() <-chan struct{} { return w.changed }

// Run follows the API until ctx ends and then returns nil. It never gives up:
// an API that is away is tried again, at most 30 seconds apart. Run may be
// called once.
func (w *Watcher) Run(ctx context.Context) error {
	w.mu.Lock()
	again := w.running
	w.running = true
	w.mu.Unlock()
	if again {
		return errors.New("watch API: already running")
	}
	defer w.clients.close()
	if !w.holdBack(ctx) {
		return nil
	}
	var wg sync.WaitGroup
	if w.cfg.Events {
		wg.Go(func() { w.writeEvents(ctx) })
	}
	for _, r := range w.reflectors() {
		wg.Go(func() { w.follow(ctx, r) })
	}
	w.build(ctx)
	wg.Wait()
	return nil
}

// healthy is how long a resource must have been followed for the next failure
// to be the first of a row.
const healthy = 2 * time.Minute

// follow keeps r going. Its own loop would log every failure; here the sources
// have told them already.
func (w *Watcher) follow(ctx context.Context, r *cache.Reflector) {
	delay := *w.cfg.backoff
	for ctx.Err() == nil {
		start := time.Now()
		_ = r.ListAndWatchWithContext(ctx)
		if time.Since(start) > healthy {
			delay = *w.cfg.backoff
		}
		sleep(ctx, delay.Step())
	}
}

// holdBack waits for the jitter.
func (w *Watcher) holdBack(ctx context.Context) bool {
	if w.cfg.StartJitter <= 0 {
		return ctx.Err() == nil
	}
	d := rand.N(w.cfg.StartJitter) //nolint:gosec // G404: it spreads load and keeps no secret
	w.update(func() { w.waiting = time.Now().Add(d) })
	ok := sleep(ctx, d)
	w.update(func() { w.waiting = time.Time{} })
	return ok
}

// build makes a catalog of what has changed, and the like of what else is followed, until
// ctx ends: at most one an interval, and a little after the first of a burst of changes.
func (w *Watcher) build(ctx context.Context) {
	var last time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.dirty:
		}
		if !sleep(ctx, max(w.cfg.settle, time.Until(last.Add(w.cfg.interval)))) {
			return
		}
		last = time.Now()
		w.update(func() {
			if w.tables.complete() && (w.tables.changed() || !w.Synced()) {
				w.catalog.Store(w.tables.catalog(w.catalog.Load()))
			}
			w.publishOthers()
		})
	}
}

// apply is how the sinks change the tables.
func (w *Watcher) apply(change func(*tables)) {
	w.mu.Lock()
	n := &w.tables.news
	n.now = time.Now()
	before := n.latest()
	change(w.tables)
	said := n.latest() != before
	w.mu.Unlock()
	notify(w.dirty)
	if said {
		notify(w.announced)
	}
}

// report takes what the sources tell.
func (w *Watcher) report(k kind, e event) {
	w.update(func() {
		switch {
		case e.end:
			w.followed[k] = false
		case e.err != nil:
			w.followed[k] = false
			w.failures[k] = fmt.Sprintf("%s %s: %s", e.op, k, reason(e.err))
			w.nodeRefused(k, e.err)
		default:
			w.failures[k] = ""
			w.followed[k] = w.followed[k] || e.op == "watch"
		}
	})
}

// update changes the state under the lock and publishes it if it is another.
func (w *Watcher) update(change func()) {
	w.mu.Lock()
	before, pods, policies := w.Catalog(), w.Pods(), w.Policies()
	change()
	prev, next := w.state.Load(), w.nextState()
	same := *prev == *next && before == w.Catalog() && pods == w.Pods() && policies == w.Policies()
	if !same {
		w.logChange(prev, next)
		w.state.Store(next)
	}
	w.mu.Unlock()
	if !same {
		notify(w.changed)
	}
}

func (w *Watcher) nextState() *State {
	s := &State{Synced: w.Synced(), WaitUntil: w.waiting, NodeMissing: w.tables.nodeless, NodeRefused: w.tables.refused}
	s.ServicesCurrent = s.Synced && w.followed[servicesKind] && w.followed[slicesKind]
	s.Current = s.ServicesCurrent && w.followed[nodeKind] &&
		(!w.cfg.Pods || w.followed[podsKind]) && (!w.cfg.Policies || w.followed[policiesKind])
	s.Err = w.failure()
	if s.Err == "" && s.NodeMissing {
		s.Err = fmt.Sprintf("node %q does not exist in the API: is --node-name right?", w.cfg.NodeName)
	}
	return s
}

// failure is why a resource is not followed; needs mu.
func (w *Watcher) failure() string {
	return cmp.Or(w.failures[:]...)
}

// logChange tells of a failure once, until everything is followed again: a
// server that starts may refuse one resource after another. Needs mu.
func (w *Watcher) logChange(prev, next *State) {
	failure := w.failure()
	switch {
	case failure != "" && !w.failing:
		w.failing, w.lost = true, prev.Synced
		msg := "kubernetes api not synced"
		if w.lost {
			msg = "kubernetes api lost"
		}
		w.cfg.Logger.Warn(msg, "err", failure)
	case next.Current && w.failing:
		if w.lost {
			w.cfg.Logger.Info("kubernetes api back")
		}
		w.failing, w.lost = false, false
	}
	if next.NodeMissing && !prev.NodeMissing {
		w.cfg.Logger.Warn("node does not exist in the kubernetes api: is --node-name right?", "node", w.cfg.NodeName)
	}
	if next.Synced && !prev.Synced {
		c := w.catalog.Load()
		w.cfg.Logger.Info("kubernetes api synced", "services", len(c.Services), "endpoint_slices", len(w.tables.slices))
	}
}

func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// reflector builds one.
func reflector[T any](w *Watcher, s *source, store *sink[T]) *cache.Reflector {
	s.backoff, s.report, s.decode = *w.cfg.backoff, w.report, store.decode
	return cache.NewReflectorWithOptions(s, store.object(), store, cache.ReflectorOptions{
		Name: "svcscope " + s.kind.String(), Backoff: w.cfg.backoff,
	})
}
