// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"

	"github.com/svcscope/svcscope/pkg/correlate"
)

// DropWatch says what to do with drops as they come.
type DropWatch struct {
	// Started is called once groups are bound, or cannot be.
	Started func([]correlate.LogGroup)
	// Visit is called for each event, with the names of its interfaces; missed events
	// came too fast before it.
	Visit func(e *correlate.DropEventReport)
}

// WatchDrops reads the groups of NFLOG that cfg names, for as long as ctx: with "auto"
// all that rules log to and that nobody holds. Names come from the API as in ReadOnce.
func WatchDrops(ctx context.Context, cfg Config, w DropWatch) (failed error) {
	if err := cfg.validateSampling(); err != nil {
		return err
	}
	choice, err := parseGroups(cfg.NFLOGGroup)
	if err == nil && choice.none() {
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
	if err := s.readRules(); err != nil && choice.auto {
		return fmt.Errorf("read rules of this node: %w", err)
	}
	defer s.goOn(ctx)()
	s.groups.freeFor = 0
	return s.watchDrops(ctx, w)
}

// watchDrops reads groups until ctx ends.
func (s *sampler) watchDrops(ctx context.Context, w DropWatch) error {
	done := make(chan struct{})
	started := make(chan struct{})
	s.groups.chosen = func() { close(started) }
	go func() {
		defer close(done)
		s.groups.run(ctx, s.dropInputs)
	}()
	defer func() { <-done }()
	select {
	case <-started:
	case <-done:
		return nil
	}
	w.Started(s.groups.states())
	l := s.groups.events
	for next := uint64(0); ; {
		events, missed, after, more := l.after(next, followedAtOnce)
		next = after
		for i := range events {
			e := correlate.NewDropEventReport(&events[i], s.devices.name)
			e.Missed, missed = missed, 0
			w.Visit(&e)
		}
		if len(events) > 0 {
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case <-more:
		}
	}
}
