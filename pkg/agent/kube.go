// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/svcscope/svcscope/pkg/service"
)

// configEvery is how often a configuration that cannot be loaded is tried
// again: a file may come later.
const configEvery = 30 * time.Second

// watcher is kube.Watcher.
type watcher interface {
	Catalog() *service.Catalog
	// Pods and Policies are nil until they have been listed, and where they are not
	// followed.
	Pods() *service.Pods
	Policies() *service.Policies
	// Lost writes an Event of a pod that has lost packets since a time, where Events are
	// to be written.
	Lost(pod *service.Pod, what string, packets uint64, since time.Time) bool
	State() apiState
	Changed() <-chan struct{}
	// ChangedSince lists the Services that changed after a version; all is
	// true where it cannot tell. Announced has a value when it has more to say.
	ChangedSince(version uint64) (names []service.Name, all bool, next uint64)
	Announced() <-chan struct{}
	Run(context.Context) error
}

// kube is the API as a source that may be off, away or not configured.
type kube struct {
	mode KubeMode
	// wantPods and wantPolicies: they are to be followed.
	wantPods, wantPolicies bool

	open  func() (watcher, error)
	log   *slog.Logger
	first chan struct{} // closed when all has been listed that can be
	news  chan struct{} // has a value when changes has something to say
	halt  func()        // set by start

	mu   sync.Mutex
	w    watcher   // guarded by mu; nil until open succeeds
	err  string    // guarded by mu: why there is none
	none bool      // guarded by mu: auto, and nothing names an API
	last time.Time // guarded by mu: when the watch was last seen current
	told uint64    // what changes has told; for its one caller
}

// kubeState is how it goes.
type kubeState struct {
	enabled bool // --kube is not never, and something names an API
	current bool
	// services: Services and endpoints are followed now, if not the Node.
	services bool
	noNode   bool // the API has no Node of the configured name
	unplaced bool // where the node is, it does not tell: it has none, or refuses it
	err      string
	until    time.Time // the first list is held back until then
	last     time.Time
}

func newKube(cfg Config, open func() (watcher, error)) *kube {
	return &kube{
		mode: cfg.Kube, wantPods: cfg.KubePods, wantPolicies: cfg.KubePolicies,
		open: open, log: cfg.logger(), first: make(chan struct{}), news: make(chan struct{}, 1),
	}
}

// off reports whether there will be no API while this process runs.
func (k *kube) off() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.mode == KubeNever || k.none
}

// check returns an error where the mode demands an API and nothing says which:
// that will not change while the process runs.
func (k *kube) check() error {
	if k.mode == KubeNever {
		return nil
	}
	w, err := k.open()
	k.mu.Lock()
	defer k.mu.Unlock()
	if err == nil {
		k.w = w
		return nil
	}
	k.err = err.Error()
	k.none = errors.Is(err, errNoAPI)
	if k.none && k.mode == KubeAlways {
		return fmt.Errorf("--kube=always: %w", err)
	}
	if k.none {
		k.log.Info("names come from rules: no API is configured", "err", err)
	}
	return nil
}

// run follows the API until ctx ends; it never ends for lack of it.
func (k *kube) run(ctx context.Context) error {
	w := k.await(ctx)
	if w == nil {
		return nil
	}
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	synced := false
	for {
		if !synced && k.listed(w) {
			synced = true
			close(k.first)
		}
		select {
		case err := <-done:
			if ctx.Err() != nil {
				return nil //nolint:nilerr // it was told to end
			}
			return err
		case <-w.Changed(): // the rules to come may be others now
		case <-w.Announced():
		}
		select {
		case k.news <- struct{}{}:
		default:
		}
	}
}

// listed reports whether all is known that the API has to tell: what it refuses to list
// beside the catalog is not waited for.
func (k *kube) listed(w watcher) bool {
	all := (!k.wantPods || w.Pods() != nil) && (!k.wantPolicies || w.Policies() != nil)
	return w.Catalog().Synced && (all || w.State().Err != "")
}

// pods returns the newest picture of the node's pods, and the names of all policies; nil
// where they are not known.
func (k *kube) pods() (*service.Pods, *service.Policies) {
	if w := k.watcher(); w != nil {
		return w.Pods(), w.Policies()
	}
	return nil, nil
}

// start follows the API in a goroutine that stop ends and waits for.
func (k *kube) start(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	k.halt = func() {
		cancel()
		<-done
	}
	go func() {
		defer close(done)
		if err := k.run(ctx); err != nil {
			k.log.Error("API cannot be followed", "err", err)
		}
	}()
}

// stop ends what start began, if it did.
func (k *kube) stop() {
	if k.halt != nil {
		k.halt()
		k.halt = nil
	}
}

// await returns the watcher once there is one; nil when ctx ends before or
// there will be none.
func (k *kube) await(ctx context.Context) watcher {
	if k.off() {
		return nil
	}
	said := false
	for ctx.Err() == nil {
		k.mu.Lock()
		w := k.w
		k.mu.Unlock()
		if w != nil {
			return w
		}
		w, err := k.open()
		k.mu.Lock()
		k.w = w
		if k.err = ""; err != nil {
			k.w, k.err = nil, err.Error()
		}
		k.mu.Unlock()
		if err == nil {
			return w
		}
		if !said {
			said = true
			k.log.Warn("names come from rules: the API's configuration cannot be loaded", "err", err)
		}
		wait(ctx, configEvery)
	}
	return nil
}

func (k *kube) watcher() watcher {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.w
}

// changes lists the Services that changed since the last call; all is true
// where that is not known.
func (k *kube) changes() (names []service.Name, all bool) {
	if w := k.watcher(); w != nil {
		names, all, k.told = w.ChangedSince(k.told)
	}
	return names, all
}

// catalog returns the newest picture of the API, or nil.
func (k *kube) catalog() *service.Catalog {
	if w := k.watcher(); w != nil {
		return w.Catalog()
	}
	return nil
}

func (k *kube) state() kubeState {
	w := k.watcher()
	k.mu.Lock()
	defer k.mu.Unlock()
	s := kubeState{enabled: k.mode != KubeNever && !k.none, err: k.err}
	if w == nil {
		s.last = k.last
		return s
	}
	api := w.State()
	if api.Current {
		k.last = time.Now()
	}
	s.services, s.unplaced = api.ServicesCurrent, api.NodeMissing || api.NodeRefused
	s.current, s.noNode, s.err, s.until, s.last = api.Current, api.NodeMissing, api.Err, api.WaitUntil, k.last
	return s
}
