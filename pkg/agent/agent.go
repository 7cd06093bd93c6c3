// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"runtime/debug"
	"time"

	"github.com/prometheus/common/version"
	"golang.org/x/sync/errgroup"

	"github.com/svcscope/svcscope/pkg/correlate"
	"github.com/svcscope/svcscope/pkg/ledger"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/ruleset"
)

// Run runs the agent until ctx ends, and then returns nil. It returns an error
// before it has begun to sample where cfg is wrong or an address cannot be
// listened on, and later only if a server fails.
func Run(ctx context.Context, cfg Config) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	routeLogs(cfg.logger())
	limitGarbage()
	k := newKube(cfg, openWatcher(cfg))
	if err := k.check(); err != nil {
		return err
	}
	s := newSampler(cfg, thisHost(), k)
	s.introduce()
	return run(ctx, s)
}

// gcPercent is the garbage that the heap may have before it is collected, in
// percent of what is in use. Most of an agent's heap is what it knows of the
// rules, which stays; the runtime's own 100 would double it for nothing.
const gcPercent = 40

// limitGarbage sets gcPercent, unless the environment says otherwise.
func limitGarbage() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
}

// introduce logs what this process is and may do.
func (s *sampler) introduce() {
	attrs := []any{"version", cmp.Or(version.Version, "unknown"), "node", s.cfg.NodeName, "uid", os.Geteuid()}
	if has, err := s.host.netAdmin(); err != nil {
		attrs = append(attrs, "err", err)
	} else {
		attrs = append(attrs, "cap_net_admin", has)
	}
	s.log.Info("agent starts", attrs...)
}

// run owns the agent's goroutines; it closes s.
func run(ctx context.Context, s *sampler) (err error) {
	defer func() { err = errors.Join(err, s.close()) }()
	group, ctx := errgroup.WithContext(ctx)
	servers, err := listen(ctx, s)
	if err != nil {
		return err
	}
	for _, server := range servers {
		group.Go(func() error { return server.run(ctx) })
	}
	group.Go(func() error { return s.kube.run(ctx) })
	group.Go(func() error { s.conntrack.watch(ctx); return nil })
	group.Go(func() error { s.flows.run(ctx, s.kube.first, s.flowInputs, s.freeMemory); return nil })
	group.Go(func() error { s.groups.run(ctx, s.dropInputs); return nil })
	group.Go(func() error { s.tap.run(ctx, s.tapInputs, s.dropInputs); return nil })
	group.Go(func() error { s.loop(ctx); return nil })
	return group.Wait()
}

// loop samples at once, then on the interval, and when the API's first list
// has come. What the API announces to change is read in between.
func (s *sampler) loop(ctx context.Context) {
	tick := time.NewTicker(s.cfg.Interval)
	defer tick.Stop()
	again, due, programmed := time.NewTimer(time.Hour), time.NewTimer(time.Hour), time.NewTimer(time.Hour)
	defer again.Stop()
	defer due.Stop()
	defer programmed.Stop()
	synced, late, waits := s.kube.first, false, false
	s.pass(ctx)
	s.freeMemory() // the first reading leaves much garbage, too
	for {
		if d, ok := s.lockDue(time.Now()); ok {
			due.Reset(d)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			// It would wait for what is read beside, and look at nothing meanwhile.
			if late = !late && s.legacy.reads(); !late {
				s.pass(ctx)
			}
		case e, ok := <-s.legacy.lock.events():
			s.legacy.lock.take(e, ok, time.Now())
		case <-due.C:
			s.readDue(ctx)
		case read := <-s.legacy.came:
			if s.arrived(ctx, read); late && !s.legacy.reads() {
				late = false
				s.pass(ctx)
			}
		case <-synced:
			synced = nil
			s.pass(ctx)
			// The first list leaves tens of megabytes of garbage, which the
			// runtime would keep for a heap that never grows so large again.
			s.freeMemory()
		case <-s.kube.news:
			s.heard(ctx)
			again.Reset(0)
			if !waits {
				waits = true
				programmed.Reset(programEvery)
			}
		case <-programmed.C:
			d := s.programmed(ctx)
			if waits = d > 0; waits {
				programmed.Reset(d)
			}
		case <-again.C:
			if d := s.round(ctx); d > 0 {
				again.Reset(d)
			}
		}
	}
}

// onceWait is how long one reading waits for the API.
const onceWait = 5 * time.Second

// ReadOnce reads this node's kernel once, for a caller without an agent. The
// numbers are the rules' own counters: connections since each rule was written
// (ServicePort.SinceRule). The entries of connection tracking are read where
// ConntrackInterval is not 0. Names come from the API if it answers within some
// seconds; with KubeAlways it is an error that it does not. Of cfg it takes the
// fields from Kube to KubePolicies, ConntrackInterval and Logger.
func ReadOnce(ctx context.Context, cfg Config) (*correlate.Snapshot, error) {
	if err := cfg.validateSampling(); err != nil {
		return nil, err
	}
	cfg.StartJitter = 0
	cfg.MaxServices = math.MaxInt
	cfg.MaxRules, cfg.LockFile, cfg.NFLOGGroup, cfg.Tap = 0, "", groupsNone, false // one look
	routeLogs(cfg.logger())
	k := newKube(cfg, openWatcher(cfg))
	if err := k.check(); err != nil {
		return nil, err
	}
	return readOnce(ctx, newSampler(cfg, thisHost(), k))
}

func readOnce(ctx context.Context, s *sampler) (snapshot *correlate.Snapshot, err error) {
	defer func() { err = errors.Join(err, s.close()) }()
	if err := s.awaitAPI(ctx); err != nil {
		return nil, err
	}
	defer s.kube.stop()
	// Counters that come after a baseline without any start at 0: each has
	// its whole value counted.
	s.since = true
	for _, b := range []ruleset.Backend{ruleset.NFT, ruleset.Legacy} {
		for _, f := range families() {
			for range 2 {
				s.ledger.Apply(ledger.Reading{Source: correlate.LedgerSource(b, f)}, time.Now())
			}
			s.drops.Begin(correlate.LedgerSource(b, f), time.Now())
		}
	}
	s.drops.Begin(correlate.LedgerSource(ruleset.NFT, netfilter.FamilyINet), time.Now())
	s.pass(ctx)
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("read rules of this node: %w", err)
	}
	if s.flows.interval != 0 { // the rules only help with names
		s.readFlowsOnce(ctx)
		return s.latest.Load(), nil
	}
	if err := s.readRules(); err != nil {
		return nil, fmt.Errorf("read rules of this node: %w", err)
	}
	return s.latest.Load(), nil
}

// readFlowsOnce adds the entries of connection tracking to the snapshot.
func (s *sampler) readFlowsOnce(ctx context.Context) {
	s.flows.counter.Grace = 0
	s.flows.read(ctx, s.flowInputs(), time.Now())
	table := s.latest.Load().Conntrack
	if table != nil { // of one reading there are neither losses nor a forecast
		table = new(*table)
		table.LossesSince, table.Filling = time.Time{}, false
	}
	s.publish(table)
}

// awaitAPI starts to follow the API and waits for its first list. The caller
// stops it.
func (s *sampler) awaitAPI(ctx context.Context) error {
	if s.kube.off() {
		return nil
	}
	s.kube.start(ctx)
	wake := time.NewTimer(onceWait)
	defer wake.Stop()
	select {
	case <-s.kube.first:
		return nil
	case <-ctx.Done():
		s.kube.stop()
		return fmt.Errorf("read API: %w", ctx.Err())
	case <-wake.C:
	}
	if s.kube.mode != KubeAlways {
		return nil
	}
	defer s.kube.stop()
	if why := s.kube.state().err; why != "" {
		return fmt.Errorf("read API: %s", why)
	}
	return fmt.Errorf("read API: no answer in %v", onceWait)
}

// wait waits for d or the end of ctx.
func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
