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
	"github.com/svcscope/svcscope/pkg/netfilter/nflog"
	"github.com/svcscope/svcscope/pkg/policy"
)

const (
	// groupsEvery is how often is looked which groups to bind.
	groupsEvery = 10 * time.Second
	// freeBefore is for how long nobody must have held a group that is bound unasked.
	freeBefore = 10 * time.Minute
	// Between two attempts to bind a group is the first time, and twice as much after
	// each up to the last.
	firstRetry, lastRetry = groupsEvery, 10 * time.Minute
)

// packetLog is kernel.PacketLog.
type packetLog interface {
	Next(context.Context, func(*nflog.Packet)) error
	Stats() kernel.PacketLogStats
	HasFlows() bool
	Close() error
}

// logGroups binds groups of NFLOG and reads them.
type logGroups struct {
	choice groupChoice
	open   func(group uint16) (packetLog, error)
	held   func() ([]kernel.LogGroup, error)
	log    *slog.Logger
	events *dropLog
	// freeFor is freeBefore, but for a command that somebody waits for.
	freeFor time.Duration
	// declined is what the log says of how not to bind a group.
	declined string
	// chosen is called when groups were chosen for the first time, and when what is told of
	// one has changed since.
	chosen func()
	// look wakes run before its time.
	look chan struct{}
	// free is since when nobody is seen to hold a group that rules log to.
	free map[uint16]time.Time

	mu     sync.Mutex // guards what is in groups, and what follows
	groups map[uint16]*logGroup
	passed map[uint16]correlate.LogGroup // that rules log to, and that are not to be read
	rules  map[uint16]int                // that log to a group
	before uint64                        // packets of groups that were let go, that were not decoded
}

// logGroup is one that is bound, or was to be.
type logGroup struct {
	state correlate.LogGroup // of earlier sockets, and what is told
	open  packetLog          // nil: not bound
	stop  func()             // ends the reader and waits for it
	retry time.Duration
	next  time.Time // of the next attempt
}

func newLogGroups(choice groupChoice, h host, log *slog.Logger) *logGroups {
	if h.packetLog == nil || h.logGroups == nil {
		choice = groupChoice{}
	}
	return &logGroups{
		choice: choice, open: h.packetLog, held: h.logGroups, log: log, events: newDropLog(), freeFor: freeBefore, declined: "; --nflog.group=none declines", chosen: func() {},
		look: make(chan struct{}, 1), groups: make(map[uint16]*logGroup), free: make(map[uint16]time.Time),
	}
}

// run binds and reads groups until ctx ends; then all are free again.
func (g *logGroups) run(ctx context.Context, in func() dropInputs) {
	if g.choice.none() {
		return
	}
	tick := time.NewTicker(groupsEvery)
	defer tick.Stop()
	var told []correlate.LogGroup
	for first := true; ctx.Err() == nil; first = false {
		g.choose(ctx, in, time.Now())
		now := g.states()
		if first || !slices.EqualFunc(told, now, sameState) {
			g.chosen()
		}
		told = now
		select {
		case <-ctx.Done():
		case <-g.look:
		case <-tick.C:
		}
	}
	for group := range g.groups {
		g.release(group)
	}
}

// byGroup orders groups.
func byGroup(a, b correlate.LogGroup) int { return cmp.Compare(a.Group, b.Group) }

// sameState reports whether the same is to be said of both.
func sameState(a, b correlate.LogGroup) bool {
	return a.Group == b.Group && a.State == b.State && a.Err == b.Err
}

// choose binds the groups that are to be bound, and lets others go.
func (g *logGroups) choose(ctx context.Context, in func() dropInputs, now time.Time) {
	want, with := g.choice.groups, in()
	rules := rulesByGroup(with.loggers)
	g.mu.Lock()
	g.rules = rules
	g.mu.Unlock()
	if g.choice.auto {
		want = g.unheld(rules, with.calico, now)
	}
	for group := range g.groups {
		if !slices.Contains(want, group) {
			if g.isBound(group) {
				g.log.Info("NFLOG group is let go: no rule logs to it, or others may want it", "group", group)
			}
			g.release(group)
			g.mu.Lock()
			g.before += g.groups[group].state.Undecoded
			delete(g.groups, group)
			g.mu.Unlock()
		}
	}
	for _, group := range want {
		if ctx.Err() == nil {
			g.bind(ctx, group, in, now)
		}
	}
}

func (g *logGroups) isBound(group uint16) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.groups[group] != nil && g.groups[group].open != nil
}

// bind binds a group and begins to read it, unless it is or has just been tried.
func (g *logGroups) bind(ctx context.Context, group uint16, in func() dropInputs, now time.Time) {
	b := g.groups[group]
	if b == nil {
		b = &logGroup{state: correlate.LogGroup{Group: group}} // told of once it was tried
	}
	if g.isBound(group) || now.Before(b.next) {
		return
	}
	l, err := g.open(group)
	if err != nil {
		g.failed(b, err, now)
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	g.mu.Lock()
	g.groups[group], b.open, b.retry = b, l, 0
	b.state.State, b.state.Err, b.state.Holder, b.state.Next, b.state.HasFlows = correlate.LogGroupRead, "", 0, time.Time{}, l.HasFlows()
	if b.state.Created.IsZero() {
		b.state.Created = now
	}
	g.mu.Unlock()
	b.stop = func() {
		cancel()
		<-done
	}
	g.log.Info("NFLOG group is read: no other process can bind it"+g.declined, "group", group, "conntrack", l.HasFlows())
	go func() {
		defer close(done)
		defer cancel()
		if err := (&dropSource{log: l, events: g.events, in: in}).run(ctx); ctx.Err() == nil {
			g.ended(b, err)
		}
	}()
}

// failed notes that a group could not be bound.
func (g *logGroups) failed(b *logGroup, err error, now time.Time) {
	b.retry = min(max(2*b.retry, firstRetry), lastRetry)
	b.next = now.Add(b.retry)
	held := &kernel.LogGroupHeldError{}
	g.mu.Lock()
	g.groups[b.state.Group] = b
	was := b.state.Err
	b.state.Err, b.state.State, b.state.Holder, b.state.Next = err.Error(), correlate.LogGroupFailed, 0, b.next
	switch {
	case errors.As(err, &held):
		b.state.State, b.state.Holder = correlate.LogGroupHeld, held.PortID
	case errors.Is(err, kernel.ErrAbsent):
		b.state.State = correlate.LogGroupNoRule
	}
	g.mu.Unlock()
	if was == err.Error() {
		return
	}
	if errors.Is(err, kernel.ErrAbsent) {
		g.log.Info("NFLOG group is not read yet: no rule logs to a group here", "group", b.state.Group)
	} else {
		g.log.Warn("NFLOG group cannot be read", "group", b.state.Group, "err", err)
	}
}

// ended notes that a group's socket has failed; it is bound anew at the next look.
func (g *logGroups) ended(b *logGroup, err error) {
	g.log.Error("NFLOG group is no longer read", "group", b.state.Group, "err", err)
	g.mu.Lock()
	defer g.mu.Unlock()
	b.close()
	b.state.Err = fmt.Sprint(err)
}

// release ends a group's reader.
func (g *logGroups) release(group uint16) {
	b := g.groups[group]
	if b.stop != nil {
		b.stop()
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	b.close()
	b.state.Err = "it was let go"
}

// close closes the socket, whose counts stay.
func (b *logGroup) close() {
	if b.open == nil {
		return
	}
	_ = b.open.Close()
	b.state = b.now()
	b.open, b.state.State = nil, correlate.LogGroupFailed
}

// now is the state with what the open socket has counted.
func (b *logGroup) now() correlate.LogGroup {
	s := b.state
	if b.open != nil {
		n := b.open.Stats()
		s.Packets, s.Lost, s.Undecoded = s.Packets+n.Received, s.Lost+n.Lost, s.Undecoded+n.Undecoded
	}
	return s
}

// states returns the groups that are read or were to be, and those that are passed over, in
// order.
func (g *logGroups) states() []correlate.LogGroup {
	g.mu.Lock()
	defer g.mu.Unlock()
	var all []correlate.LogGroup
	for _, b := range g.groups {
		s := b.now()
		s.Rules = g.rules[s.Group]
		all = append(all, s)
	}
	for group, s := range g.passed {
		if g.groups[group] == nil { // it is still being let go
			all = append(all, s)
		}
	}
	slices.SortFunc(all, byGroup)
	return all
}

// undecoded counts packets of no known shape, since the start.
func (g *logGroups) undecoded() uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := g.before
	for _, b := range g.groups {
		n += b.now().Undecoded
	}
	return n
}

// collector tells whether all groups that are to be read are. That no rule logs to one
// is no fault, and neither is one that is passed over, unless nobody knows who holds it.
func (g *logGroups) collector() correlate.CollectorState {
	c := correlate.CollectorState{Name: "nflog", Success: true}
	for _, s := range g.states() {
		if s.State == correlate.LogGroupFailed || s.State == correlate.LogGroupHeld && !s.Passed {
			c.Success, c.Err = false, s.Err
		}
	}
	return c
}

// calicoPresent reports whether a snapshot has chains of Calico.
func calicoPresent(s *correlate.Snapshot) bool {
	return s != nil && slices.ContainsFunc(s.Tables, func(t correlate.TableSize) bool { return t.Owner == policy.Calico })
}
