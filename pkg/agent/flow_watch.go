// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/svcscope/svcscope/pkg/correlate"
	"github.com/svcscope/svcscope/pkg/kernel"
	"github.com/svcscope/svcscope/pkg/service"
)

// ErrNoService says that this node knows no Service of that name.
var ErrNoService = errors.New("not on this node")

// FlowWatch says which connections to watch.
type FlowWatch struct {
	Service service.Name
	Port    string // its name; empty: all ports
	// Started is called once changes are listened to.
	Started func()
	// Visit is called for each change of a connection to the Service.
	Visit func(*WatchedFlow)
	// Lost is called where changes came too fast.
	Lost func(error)
}

// WatchedFlow is a change of one connection to a Service.
type WatchedFlow struct {
	Time     time.Time
	Change   string // new, ended, or the state that it is in now
	Port     service.PortName
	Client   netip.AddrPort
	Frontend netip.AddrPort // the Service's address
	Endpoint netip.AddrPort // where it really goes
	Node     string         // the endpoint's; empty: not known
	// Source is the masqueraded client's; zero: it is not masqueraded.
	Source netip.AddrPort
	// Stale tells that Endpoint is none of the Service's.
	Stale bool
}

// WatchFlows watches the connections through this node to a Service until ctx
// ends. Names come from the API as in ReadOnce, and follow it. Errors:
// ErrNoService, those of ReadOnce and of kernel.WatchFlows.
func WatchFlows(ctx context.Context, cfg Config, w FlowWatch) (err error) {
	if err := cfg.validateSampling(); err != nil {
		return err
	}
	cfg.StartJitter, cfg.MaxRules, cfg.LockFile, cfg.ConntrackInterval, cfg.NFLOGGroup = 0, 0, "", 0, groupsNone
	routeLogs(cfg.logger())
	k := newKube(cfg, openWatcher(cfg))
	if err := k.check(); err != nil {
		return err
	}
	s := newSampler(cfg, thisHost(), k)
	defer func() { err = errors.Join(err, s.close()) }()
	if err := s.awaitAPI(ctx); err != nil {
		return err
	}
	defer k.stop()
	finder := &finder{sampler: s}
	if c := k.catalog(); c == nil || !c.Synced {
		s.pass(ctx) // the rules' names
		defer s.goOn(ctx)()
	}
	if !finder.now().Has(w.Service, w.Port) {
		return ErrNoService
	}
	if w.Started == nil {
		w.Started = func() {}
	}
	return kernel.WatchFlows(ctx, w.Started, func(e *kernel.FlowEvent) {
		if f := finder.watched(e, w); f != nil {
			w.Visit(f)
		}
	}, w.Lost)
}

// goOn reads the rules again on the interval, until the function that it returns
// is called.
func (s *sampler) goOn(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for wait(ctx, s.cfg.Interval); ctx.Err() == nil; wait(ctx, s.cfg.Interval) {
			s.pass(ctx)
		}
	}()
	return func() {
		cancel()
		<-done
	}
}

// finder is the Services of now.
type finder struct {
	sampler  *sampler
	catalog  *service.Catalog
	snapshot *correlate.Snapshot
	finds    *correlate.FlowFinder
}

// now follows the API or, where it is not known, the rules.
func (f *finder) now() *correlate.FlowFinder {
	catalog, snapshot := f.sampler.kube.catalog(), f.sampler.latest.Load()
	if catalog != nil && catalog.Synced {
		snapshot = nil
	}
	if f.finds == nil || catalog != f.catalog || snapshot != f.snapshot {
		f.catalog, f.snapshot = catalog, snapshot
		f.finds = correlate.NewFlowFinder(f.sampler.flowInputs())
	}
	return f.finds
}

// watched is the event as it is told; nil for one of another Service.
func (f *finder) watched(e *kernel.FlowEvent, w FlowWatch) *WatchedFlow {
	port, endpoint, ok := f.now().Find(&e.Flow)
	if !ok || port.Name != w.Service || w.Port != "" && port.Port != w.Port {
		return nil
	}
	out := &WatchedFlow{
		Time: time.Now(), Port: port, Client: e.Flow.Orig.Src, Frontend: e.Flow.Orig.Dst, Endpoint: e.Flow.Reply.Src,
		Stale: endpoint == nil,
	}
	switch e.Change {
	case kernel.FlowNew:
		out.Change = "new"
	case kernel.FlowEnded:
		out.Change = "ended"
	default:
		out.Change = e.Flow.StateName()
	}
	if e.Flow.Reply.Dst.Addr() != e.Flow.Orig.Src.Addr() {
		out.Source = e.Flow.Reply.Dst
	}
	if endpoint != nil {
		out.Node = endpoint.NodeName
	}
	return out
}

// String is client → frontend → endpoint.
func (f *WatchedFlow) String() string {
	return fmt.Sprintf("%s → %s → %s", f.Client, f.Frontend, f.Endpoint)
}
