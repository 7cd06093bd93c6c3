// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
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
	// chosen is called when groups were bound for the first time.
	chosen func()

	mu     sync.Mutex // guards what is in groups, and before
	groups map[uint16]*logGroup
	before uint64 // packets of groups that were let go, that were not decoded
	// free is since when nobody is seen to hold a group that rules log to.
	free map[uint16]time.Time
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
		groups: make(map[uint16]*logGroup), free: make(map[uint16]time.Time),
	}
}

// run binds and reads groups until ctx ends; then all are free again.
func (g *logGroups) run(ctx context.Context, in func() dropInputs) {
	if g.choice.none() {
		return
	}
	tick := time.NewTicker(groupsEvery)
	defer tick.Stop()
	for first := true; ctx.Err() == nil; first = false {
		if g.choose(ctx, in, time.Now()); first {
			g.chosen()
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
	for group := range g.groups {
		g.release(group)
	}
}

// choose binds the groups that are to be bound, and lets others go.
func (g *logGroups) choose(ctx context.Context, in func() dropInputs, now time.Time) {
	want := g.choice.groups
	if g.choice.auto {
		want = g.unheld(in(), now)
	}
	for group := range g.groups {
		if !slices.Contains(want, group) {
			g.release(group)
			g.log.Info("NFLOG group is let go: no rule logs to it, or others may want it", "group", group)
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

// unheld are the groups that rules log to and that nobody has held for a time. Those
// of Calico are never among them where it is: it may bind them at any time.
func (g *logGroups) unheld(in dropInputs, now time.Time) []uint16 {
	const calicoFirst, calicoLast = 1, 3
	all, err := g.held()
	if err != nil && !errors.Is(err, kernel.ErrAbsent) {
		g.log.Debug("groups that are held are not known", "err", err)
		return slices.Sorted(maps.Keys(g.groups))
	}
	free := make(map[uint16]time.Time)
	for i := range in.loggers {
		l := &in.loggers[i]
		if l.Group == 0 || in.calico && l.Group >= calicoFirst && l.Group <= calicoLast {
			continue
		}
		if !g.isBound(l.Group) && slices.ContainsFunc(all, func(h kernel.LogGroup) bool { return h.Group == l.Group }) {
			continue
		}
		if free[l.Group] = now; !g.free[l.Group].IsZero() {
			free[l.Group] = g.free[l.Group]
		}
	}
	g.free = free
	var want []uint16
	for group, since := range free {
		if g.isBound(group) || now.Sub(since) >= g.freeFor {
			want = append(want, group)
		}
	}
	slices.Sort(want)
	return want
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
		b = &logGroup{state: correlate.LogGroup{Group: group}}
		g.mu.Lock()
		g.groups[group] = b
		g.mu.Unlock()
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
	b.open, b.retry = l, 0
	b.state.Bound, b.state.Err, b.state.Absent, b.state.HasFlows = true, "", false, l.HasFlows()
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
	g.mu.Lock()
	was := b.state.Err
	b.state.Err, b.state.Absent = err.Error(), errors.Is(err, kernel.ErrAbsent)
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
}

// close closes the socket, whose counts stay.
func (b *logGroup) close() {
	if b.open == nil {
		return
	}
	_ = b.open.Close()
	b.state = b.now()
	b.open, b.state.Bound = nil, false
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

// states returns the groups that are read or were to be, in order.
func (g *logGroups) states() []correlate.LogGroup {
	g.mu.Lock()
	defer g.mu.Unlock()
	var all []correlate.LogGroup
	for _, group := range slices.Sorted(maps.Keys(g.groups)) {
		all = append(all, g.groups[group].now())
	}
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
// is no fault.
func (g *logGroups) collector() correlate.CollectorState {
	c := correlate.CollectorState{Name: "nflog", Success: true}
	for _, s := range g.states() {
		if !s.Bound && s.Err != "" && !s.Absent {
			c.Success, c.Err = false, s.Err
		}
	}
	return c
}

// calicoPresent reports whether a snapshot has chains of Calico.
func calicoPresent(s *correlate.Snapshot) bool {
	return s != nil && slices.ContainsFunc(s.Tables, func(t correlate.TableSize) bool { return t.Owner == policy.Calico })
}
