// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/svcscope/svcscope/pkg/correlate"
)

// DropWatch says what to do with drops as they come.
type DropWatch struct {
	// Sources is called once groups are bound, or cannot be, and when that has changed, with
	// a report of where events come from now: its Groups, Tap, NoEvents and Notes.
	Sources func(*correlate.DropsReport)
	// Visit is called for each event, with the names of its interfaces; missed events
	// came too fast before it.
	Visit func(e *correlate.DropEventReport)
}

// WatchDrops reads the groups of NFLOG that cfg names, for as long as ctx: with "auto"
// all that rules log to and that nobody holds. With cfg.Tap it reads what a table of its
// own logs, too, and it is an error that there can be none. Names come from the API as in
// ReadOnce.
func WatchDrops(ctx context.Context, cfg Config, w DropWatch) (failed error) {
	if err := cfg.validateSampling(); err != nil {
		return err
	}
	choice, err := parseGroups(cfg.NFLOGGroup)
	if err == nil && choice.none() && !cfg.Tap {
		err = errors.New("--nflog.group none: no group is left to read")
	}
	if err != nil {
		return err
	}
	cfg.StartJitter, cfg.MaxRules, cfg.LockFile, cfg.ConntrackInterval = 0, 0, "", 0
	routeLogs(cfg.logger())
	k := newKube(cfg, openWatcher(cfg))
	if err := k.check(); err != nil {
		return err
	}
	s := newSampler(cfg, thisHost(), k)
	defer func() { failed = errors.Join(failed, s.close()) }()
	if err := s.awaitAPI(ctx); err != nil {
		return err
	}
	defer k.stop()
	s.pass(ctx) // the rules that log
	if err := s.readRules(); err != nil && (choice.auto || cfg.Tap) {
		return fmt.Errorf("read rules of this node: %w", err)
	}
	defer s.goOn(ctx)()
	s.groups.freeFor = 0
	return s.watchDrops(ctx, w)
}

// watchDrops reads groups until ctx ends.
func (s *sampler) watchDrops(ctx context.Context, w DropWatch) error {
	tapped, stop, err := s.tapOnce(ctx)
	if err != nil {
		return err
	}
	defer stop()
	ctx, cancel := context.WithCancel(ctx) // the tap may end it, too
	done := make(chan struct{})
	chosen := make(chan struct{}, 1)
	s.groups.chosen = func() {
		select {
		case chosen <- struct{}{}:
		default:
		}
	}
	go func() {
		defer close(done)
		s.groups.run(ctx, s.dropInputs)
	}()
	defer func() {
		cancel()
		<-done
	}()
	select {
	case <-chosen:
	case <-done:
		if s.groups.choice.none() {
			break
		}
		return nil
	}
	w.Sources(s.dropSources())
	l := s.groups.events
	for next := uint64(0); ; {
		select {
		case <-chosen:
			w.Sources(s.dropSources())
		default:
		}
		events, missed, after, more := l.after(next, followedAtOnce)
		next = after
		for i := range events {
			e := s.dropReport(&events[i])
			e.Missed, missed = missed, 0
			w.Visit(&e)
		}
		if len(events) > 0 {
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case err := <-tapped:
			return err
		case <-chosen:
			w.Sources(s.dropSources())
		case <-more:
		}
	}
}

// dropSources reports where events come from now, and of the newest sampling what they lack.
func (s *sampler) dropSources() *correlate.DropsReport {
	newest := s.latest.Load()
	if newest == nil {
		newest = &correlate.Snapshot{}
	}
	r := correlate.NewDropsReport(s.withSources(newest), nil, nil)
	r.Source = correlate.SourceKernel
	return &r
}

// withSources is a snapshot with where events come from now: that may have changed since.
func (s *sampler) withSources(snapshot *correlate.Snapshot) *correlate.Snapshot {
	now := *snapshot
	now.LogGroups = s.groups.states()
	if s.tap.on {
		now.Tap = new(s.tap.told())
	}
	return &now
}

// tapOnce begins to tap, where that is wanted. It returns once what is refused is logged,
// with a channel that tells why the tap has failed, if it does, and a function that ends it.
func (s *sampler) tapOnce(ctx context.Context) (failed <-chan error, stop func(), err error) {
	if !s.tap.on {
		return nil, func() {}, nil
	}
	table, group, err := s.tap.begin(ctx)
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	started := make(chan struct{})
	s.tap.groups.chosen = sync.OnceFunc(func() { close(started) })
	done, ended := make(chan error, 1), make(chan struct{})
	go func() {
		defer close(ended)
		done <- errors.Join(s.tap.keep(ctx, table, group, s.tapInputs, s.dropInputs), table.Close())
	}()
	stop = func() {
		cancel()
		<-ended
	}
	select {
	case <-started:
		return done, stop, nil
	case err := <-done:
		cancel()
		return nil, nil, cmp.Or(err, ctx.Err())
	}
}
