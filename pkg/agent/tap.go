// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/svcscope/svcscope/pkg/correlate"
	"github.com/svcscope/svcscope/pkg/kernel"
	"github.com/svcscope/svcscope/pkg/service"
)

const (
	// tapEvery is how often is looked whether Services have changed.
	tapEvery = time.Second
	// tapRetry is how long is waited for another owner of the table to end, as in a
	// rolling update.
	tapRetry = 5 * time.Second
	// tapRetryLast is the longest time between two attempts where it is something else that
	// fails, after which times get longer.
	tapRetryLast = 10 * time.Minute
	// tapFails is how many readings in a row may fail before the table is made anew.
	tapFails = 5
	// tapGroup is the first of the groups of NFLOG of which the tap takes one that nobody
	// holds, and tapGroups how many there are.
	tapGroup, tapGroups = 10988, 8
	// tapLogged is how many packets a second are logged of each family at each hook.
	tapLogged = 100
)

// tapTable is kernel.Tap.
type tapTable interface {
	Set(context.Context, kernel.TapWays) (kernel.TapChange, error)
	Counts(context.Context) (map[kernel.TapKey]kernel.TapCount, error)
	Close() error
}

// tapInputs is what a plan is made of.
type tapInputs struct {
	catalog  *service.Catalog
	rows     []*correlate.ServicePort
	refusals *[]correlate.TapRefusal // the same pointer while they are the same
}

// same reports whether both give the same plan.
func (in *tapInputs) same(old *tapInputs) bool {
	if in.refusals != old.refusals {
		return false
	}
	if a, b := in.catalog, old.catalog; a != nil && a.Synced {
		return b != nil && b.Synced && a.SameServices(b)
	}
	return slices.Equal(in.rows, old.rows)
}

// tapper owns the tap: its table, and the group that it logs to.
type tapper struct {
	on       bool
	interval time.Duration // of readings
	open     func(context.Context, kernel.TapConfig) (tapTable, error)
	held     func() ([]kernel.LogGroup, error)
	log      *slog.Logger
	groups   *logGroups // with the tap's own group alone
	// with is what the plan planOf was made with.
	with   tapInputs
	planOf *correlate.TapPlan
	// totals and refusals are the sampler's.
	totals   *correlate.Tapped
	refusals refusalWays

	mu    sync.Mutex         // guards what follows
	plan  *correlate.TapPlan // that packets are read by
	tally *correlate.TapTally
	state correlate.Tap
}

func newTapper(cfg Config, h host, log *slog.Logger, events *dropLog) *tapper {
	t := &tapper{
		on: cfg.Tap && h.tap != nil, interval: cfg.Interval, open: h.tap, held: h.logGroups, log: log,
		groups: newLogGroups(groupChoice{}, h, log), plan: &correlate.TapPlan{}, planOf: &correlate.TapPlan{}, tally: correlate.NewTapTally(),
	}
	t.groups.events, t.groups.declined = events, ""
	return t
}

// run has a table for as long as ctx.
func (t *tapper) run(ctx context.Context, in func() tapInputs, drops func() dropInputs) {
	if !t.on {
		return
	}
	pause := tapRetry
	for ctx.Err() == nil {
		table, group, err := t.begin(ctx)
		if err == nil {
			pause = tapRetry
			err = t.keep(ctx, table, group, in, drops)
			_ = table.Close()
		}
		if ctx.Err() != nil {
			return
		}
		t.failed(err)
		wait(ctx, pause)
		if pause = min(2*pause, tapRetryLast); errors.Is(err, kernel.ErrTapped) {
			pause = tapRetry
		}
	}
}

// begin makes the table.
func (t *tapper) begin(ctx context.Context) (tapTable, uint16, error) {
	group, err := t.freeGroup()
	if err != nil {
		return nil, 0, err
	}
	table, err := t.open(ctx, kernel.TapConfig{Log: kernel.TapLog{
		Group: group, PerSecond: tapLogged, RangesPrefix: correlate.TapRangesPrefix,
	}})
	return table, group, err
}

// freeGroup is a group of NFLOG that nobody holds.
func (t *tapper) freeGroup() (uint16, error) {
	all, err := t.held()
	if err != nil && !errors.Is(err, kernel.ErrAbsent) {
		return 0, err
	}
	for group := uint16(tapGroup); group < tapGroup+tapGroups; group++ {
		if !slices.ContainsFunc(all, func(g kernel.LogGroup) bool { return g.Group == group }) {
			return group, nil
		}
	}
	return 0, fmt.Errorf("tap: NFLOG groups %d to %d are all held", tapGroup, tapGroup+tapGroups-1)
}

// failed notes why there is no table.
func (t *tapper) failed(err error) {
	t.mu.Lock()
	was := t.state.Err
	t.state.Active, t.state.Err = false, err.Error()
	t.mu.Unlock()
	switch {
	case was == err.Error():
	case errors.Is(err, kernel.ErrTapped):
		t.log.Info("the tap waits: another process has its table, as in a rolling update", "err", err)
	default:
		t.log.Error("the tap does not work", "err", err)
	}
}

// keep keeps the table as the Services are, and reads it, until ctx ends or the table
// fails.
func (t *tapper) keep(ctx context.Context, table tapTable, group uint16, in func() tapInputs, drops func() dropInputs) error {
	t.mu.Lock()
	t.tally.Reset()
	t.state.Active, t.state.Err = true, ""
	t.mu.Unlock()
	t.log.Info("the tap counts what is sent to Services", "table", "inet "+kernel.TapTable, "group", group)
	if err := t.change(ctx, table, in()); err != nil {
		return err
	}
	defer t.follow(ctx, group, drops)()
	tick := time.NewTicker(tapEvery)
	defer tick.Stop()
	read, fails := time.Now(), 0
	for {
		var err error
		if now := in(); !now.same(&t.with) {
			if err = t.count(ctx, table); err == nil {
				if err := t.change(ctx, table, now); err != nil {
					return err
				}
				read = time.Now()
			}
		} else if time.Since(read) >= t.interval {
			err = t.count(ctx, table)
			read = time.Now()
		}
		switch {
		case err == nil:
			fails = 0
		case ctx.Err() != nil:
		case fails == tapFails: // what was counted since the last reading is lost with the table
			return err
		default:
			fails++
			t.log.Warn("the tap's table is not read now", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// follow reads the tap's group until the function that it returns is called.
func (t *tapper) follow(ctx context.Context, group uint16, drops func() dropInputs) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	t.groups.choice = groupChoice{groups: []uint16{group}}
	go func() {
		defer close(done)
		t.groups.run(ctx, func() dropInputs {
			in := drops()
			in.tap = t.planned()
			return in
		})
	}()
	return func() {
		cancel()
		<-done
	}
}

// change makes another plan; what the one before has counted is told, but for its end, which
// comes with the change.
func (t *tapper) change(ctx context.Context, table tapTable, in tapInputs) error {
	var refusals []correlate.TapRefusal
	if in.refusals != nil {
		refusals = *in.refusals
	}
	plan := correlate.NewTapPlan(in.catalog, in.rows, refusals)
	var ways kernel.TapWays
	for w := range plan.Services {
		ways.Services = append(ways.Services, kernel.TapKey(w))
	}
	for w, r := range plan.Refused {
		there, here := &ways.Refused, &ways.RefusedHere
		if r.Early {
			there, here = &ways.Early, &ways.EarlyHere
		}
		*there = append(*there, kernel.TapKey(w))
		if r.Here() {
			*here = append(*here, kernel.TapKey(w))
		}
	}
	for w, r := range plan.Ranges {
		open := kernel.TapRanges{TapKey: kernel.TapKey(w)}
		for _, s := range r.Sources {
			open.Sources = append(open.Sources, kernel.TapRange(s))
		}
		ways.Ranges = append(ways.Ranges, open)
	}
	t.mu.Lock()
	t.plan = plan.Keeps(t.planOf) // before packets come by it
	t.mu.Unlock()
	change, err := table.Set(ctx, ways)
	t.mu.Lock()
	defer t.mu.Unlock()
	for k, n := range change.Ended {
		t.tally.End(correlate.Way(k), tapCount(n))
	}
	if err != nil {
		return err
	}
	t.tally.Plan(plan)
	t.planOf, t.with = plan, in
	t.state.Ways, t.state.Refused, t.state.Left = len(ways.Services), len(plan.Refused)+len(plan.Ranges), change.Left
	t.state.Err = ""
	if change.Left > 0 {
		t.state.Err = fmt.Sprintf("tap: %d ways to Services have no room and are not counted", change.Left)
		t.log.Warn("the tap has no room for all", "left", change.Left)
	}
	return nil
}

// count reads what was counted.
func (t *tapper) count(ctx context.Context, table tapTable) error {
	all, err := table.Counts(ctx)
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for k, n := range all {
		t.tally.Count(correlate.Way(k), tapCount(n))
	}
	return nil
}

func tapCount(n kernel.TapCount) correlate.TapCount {
	return correlate.TapCount{
		TapFlows: correlate.TapFlows{Attempts: n.Attempts, Translated: n.Connections}, Refused: n.Refused, RefusedHere: n.RefusedHere, Outside: n.Outside,
	}
}

func (t *tapper) planned() *correlate.TapPlan {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.plan
}

// take returns what was counted since the last call, and the state.
func (t *tapper) take() (taken correlate.TapTaken, state correlate.Tap) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.tally.Take(), t.now()
}

// told returns the state.
func (t *tapper) told() correlate.Tap {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.now()
}

// now is the state with its group's. Needs mu.
func (t *tapper) now() correlate.Tap {
	state := t.state
	for _, g := range t.groups.states() {
		state.Log = g
	}
	return state
}

// tapCollector tells whether there is a table, with room for all, whose group is read.
func tapCollector(state *correlate.Tap) correlate.CollectorState {
	why := cmp.Or(state.Err, state.Log.Err)
	return correlate.CollectorState{Name: "tap", Success: state.Active && why == "", Err: why}
}
