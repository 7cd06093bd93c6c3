// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/svcscope/svcscope/pkg/correlate"
	"github.com/svcscope/svcscope/pkg/kernel"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/nflog"
	"github.com/svcscope/svcscope/pkg/policy"
)

// fakeGroups is a kernel's groups of NFLOG, some of which others hold.
type fakeGroups struct {
	mu   sync.Mutex
	held map[uint16]uint32
	open map[uint16]*fakePacketLog
	err  error
}

func (f *fakeGroups) bind(group uint16) (packetLog, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if port := f.held[group]; port != 0 {
		return nil, &kernel.LogGroupHeldError{LogGroup: kernel.LogGroup{Group: group, PortID: port}}
	}
	if f.err != nil {
		return nil, f.err
	}
	l := &fakePacketLog{packets: make(chan []nflog.Packet), broken: make(chan error, 1), closed: make(chan struct{})}
	f.open[group] = l
	return l, nil
}

func (f *fakeGroups) all() ([]kernel.LogGroup, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []kernel.LogGroup
	for group, port := range f.held {
		all = append(all, kernel.LogGroup{Group: group, PortID: port})
	}
	for group, l := range f.open {
		if !l.isClosed() {
			all = append(all, kernel.LogGroup{Group: group, PortID: 1})
		}
	}
	return all, nil
}

// fakePacketLog gives datagrams of packets.
type fakePacketLog struct {
	packets chan []nflog.Packet
	broken  chan error
	closed  chan struct{}
	mu      sync.Mutex
	stats   kernel.PacketLogStats
}

func (l *fakePacketLog) Next(ctx context.Context, visit func(*nflog.Packet)) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-l.closed:
		return os.ErrClosed
	case err := <-l.broken:
		return err
	case all := <-l.packets:
		l.mu.Lock()
		l.stats.Received += uint64(len(all))
		l.mu.Unlock()
		for i := range all {
			visit(&all[i])
		}
		return nil
	}
}

func (l *fakePacketLog) Stats() kernel.PacketLogStats {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stats
}

func (*fakePacketLog) HasFlows() bool { return false }

func (l *fakePacketLog) Close() error {
	close(l.closed)
	return nil
}

func (l *fakePacketLog) isClosed() bool {
	select {
	case <-l.closed:
		return true
	default:
		return false
	}
}

func newFakeGroups() *fakeGroups {
	return &fakeGroups{held: make(map[uint16]uint32), open: make(map[uint16]*fakePacketLog)}
}

func (f *fakeGroups) read(choice groupChoice) *logGroups {
	return newLogGroups(choice, host{packetLog: f.bind, logGroups: f.all}, slog.New(slog.DiscardHandler))
}

// bound are the groups that are read.
func bound16(g *logGroups) []uint16 {
	var all []uint16
	for _, s := range g.states() {
		if s.Read() {
			all = append(all, s.Group)
		}
	}
	return all
}

func inputsOf(calico bool, groups ...uint16) func() dropInputs {
	in := dropInputs{calico: calico, flows: func() correlate.FlowInputs { return correlate.FlowInputs{} }}
	for _, group := range groups {
		in.loggers = append(in.loggers, correlate.FamilyLogger{Family: netfilter.IPv4, Logger: policy.Logger{Group: group}})
	}
	return func() dropInputs { return in }
}

// TestGroupsThatNobodyHolds binds, with auto, what rules log to and what nobody has
// held for ten minutes; never Calico's where it is. It tells what it passes over, and why.
func TestGroupsThatNobodyHolds(t *testing.T) {
	f := newFakeGroups()
	g := f.read(groupChoice{auto: true})
	ctx, stop := context.WithCancel(t.Context())
	defer func() {
		stop()
		for group := range g.groups {
			g.release(group)
		}
	}()
	const free = "it is to be read once it has been free for 10 minutes"
	const held = `100 held "NFLOG group 100 is held by netlink port 4242; ` + free + `"`
	const left = `0 left "NFLOG group 0 is left alone: it is the default, which others may want at any time; --nflog.group=0 reads it"`
	const calicos = `1 left "NFLOG group 1 is left alone: Calico, whose chains are here, may bind it at any time"`
	waits := func(group int) string {
		return fmt.Sprintf(`%[1]d waiting "nobody reads NFLOG group %[1]d; %[2]s"`, group, free)
	}
	reads := func(group int) string { return fmt.Sprintf(`%d read ""`, group) }
	start := time.Unix(1e9, 0)
	steps := []struct {
		at   time.Duration
		in   func() dropInputs
		held []uint16
		want []uint16
		told []string
	}{
		{0, inputsOf(false, 0, 1, 100), []uint16{100}, nil, []string{left, waits(1), held}},
		{freeBefore, inputsOf(false, 0, 1, 100), []uint16{100}, []uint16{1}, []string{left, reads(1), held}},
		{freeBefore + 10*time.Second, inputsOf(false, 0, 1, 100), nil, []uint16{1}, []string{left, reads(1), waits(100)}},
		{2 * freeBefore, inputsOf(true, 0, 1, 100), nil, nil, []string{left, calicos, waits(100)}},
		{2*freeBefore + 10*time.Second, inputsOf(true, 0, 1, 100), nil, []uint16{100}, []string{left, calicos, reads(100)}},
		{2*freeBefore + 20*time.Second, inputsOf(true, 1), nil, nil, []string{calicos}},
		{2*freeBefore + 30*time.Second, inputsOf(true, 1, 100), nil, nil, []string{calicos, waits(100)}},
		{3*freeBefore + 30*time.Second, inputsOf(true, 1, 100), nil, []uint16{100}, []string{calicos, reads(100)}},
		{3*freeBefore + 40*time.Second, inputsOf(false), nil, nil, nil},
	}
	for i, s := range steps {
		f.mu.Lock()
		clear(f.held)
		for _, group := range s.held {
			f.held[group] = 4242
		}
		f.mu.Unlock()
		g.choose(ctx, s.in, start.Add(s.at))
		if got := bound16(g); !slices.Equal(got, s.want) {
			t.Errorf("step %d: %v are read, want %v", i, got, s.want)
		}
		if d := cmp.Diff(s.told, states(g.states())); d != "" {
			t.Errorf("step %d: told (-want +got):\n%s", i, d)
		}
		if c := g.collector(); !c.Success {
			t.Errorf("step %d: %+v", i, c)
		}
	}
}

// TestGroupThatIsHeld is asked for by its number: it is told who holds it, and tried
// again, less and less often.
func TestGroupThatIsHeld(t *testing.T) {
	f := newFakeGroups()
	f.held[100] = 4242
	g := f.read(groupChoice{groups: []uint16{100}})
	ctx, stop := context.WithCancel(t.Context())
	now, in := time.Unix(1e9, 0), inputsOf(false)
	g.choose(ctx, in, now)
	const want = "NFLOG group 100 is held by netlink port 4242"
	if s := g.states(); len(s) != 1 || s[0].State != correlate.LogGroupHeld || s[0].Err != want || s[0].Holder != 4242 || !s[0].Next.Equal(now.Add(firstRetry)) {
		t.Fatalf("got %+v, want %q", s, want)
	}
	if c := g.collector(); c.Success || c.Err != want {
		t.Errorf("got %+v, want %q", c, want)
	}
	var waits []time.Duration
	for last := now; len(waits) < 8; {
		now = now.Add(groupsEvery)
		before := g.groups[100].next
		if g.choose(ctx, in, now); g.groups[100].next != before {
			waits, last = append(waits, now.Sub(last)), now
		}
	}
	minutes := []time.Duration{10 * time.Second, 20 * time.Second, 40 * time.Second, 80 * time.Second, 160 * time.Second, 320 * time.Second, lastRetry, lastRetry}
	if d := cmp.Diff(minutes, waits); d != "" {
		t.Errorf("attempts after (-want +got):\n%s", d)
	}
	f.mu.Lock()
	clear(f.held)
	f.mu.Unlock()
	g.choose(ctx, in, now.Add(lastRetry))
	if s := g.states(); !s[0].Read() || s[0].Err != "" || !g.collector().Success {
		t.Errorf("got %+v of a group that is free", s)
	}
	stop()
	g.release(100)
	if s := g.states(); s[0].Read() || !f.open[100].isClosed() {
		t.Errorf("got %+v after its end", s)
	}
}

// TestHoldersThatAreNotKnown: nothing is bound unasked, and why is told.
func TestHoldersThatAreNotKnown(t *testing.T) {
	f := newFakeGroups()
	unknown := true
	g := newLogGroups(groupChoice{auto: true}, host{packetLog: f.bind, logGroups: func() ([]kernel.LogGroup, error) {
		if unknown {
			return nil, fmt.Errorf("read bound groups of NFLOG: %w", os.ErrPermission)
		}
		return f.all()
	}}, slog.New(slog.DiscardHandler))
	g.freeFor = 0
	now, in := time.Unix(1e9, 0), inputsOf(false, 100)
	ctx, stop := context.WithCancel(t.Context())
	g.choose(ctx, in, now)
	const want = "read bound groups of NFLOG: permission denied"
	if s := g.states(); len(s) != 1 || s[0].State != correlate.LogGroupFailed || s[0].Err != want || len(f.open) != 0 {
		t.Errorf("got %+v, and %v is bound", s, f.open)
	}
	if c := g.collector(); c.Success || c.Err != want {
		t.Errorf("got %+v, want %q", c, want)
	}
	unknown = false
	g.choose(ctx, in, now.Add(groupsEvery))
	unknown = true // the group that is read is its own
	g.choose(ctx, in, now.Add(2*groupsEvery))
	if s := g.states(); len(s) != 1 || !s[0].Read() || !g.collector().Success {
		t.Errorf("got %+v of a group that nobody held", s)
	}
	stop()
	g.release(100)
}

// TestPacketsThatAreNotDecoded are told among what is not.
func TestPacketsThatAreNotDecoded(t *testing.T) {
	f := newFakeGroups()
	s := webSampler(t, "", nil)
	s.groups = f.read(groupChoice{groups: []uint16{100}})
	s.groups.choose(t.Context(), inputsOf(false), time.Now())
	l := f.open[100]
	l.mu.Lock()
	l.stats = kernel.PacketLogStats{Received: 9, Undecoded: 2}
	l.mu.Unlock()
	s.pass(t.Context())
	if n := s.latest.Load().Self.Undecoded["packet"]; n != 2 {
		t.Errorf("%d packets, want 2", n)
	}
	s.groups.choice.groups = nil // it is let go
	s.groups.choose(t.Context(), inputsOf(false), time.Now())
	if n := s.groups.undecoded(); n != 2 {
		t.Errorf("%d packets without the group, want 2", n)
	}
}

// TestGroupWithoutModule: that no rule logs to a group is no fault.
func TestGroupWithoutModule(t *testing.T) {
	f := newFakeGroups()
	f.err = fmt.Errorf("bind NFLOG group 100: %w", kernel.ErrAbsent)
	g := f.read(groupChoice{groups: []uint16{100}})
	g.choose(t.Context(), inputsOf(false), time.Unix(1e9, 0))
	if s := g.states(); s[0].Read() || s[0].State != correlate.LogGroupNoRule || !g.collector().Success {
		t.Errorf("got %+v, %+v", s, g.collector())
	}
}

// TestGroupWhoseSocketFails is bound anew, and its counts go on.
func TestGroupWhoseSocketFails(t *testing.T) {
	f := newFakeGroups()
	g := f.read(groupChoice{groups: []uint16{100}})
	ctx, stop := context.WithCancel(t.Context())
	now, in := time.Unix(1e9, 0), inputsOf(false)
	g.choose(ctx, in, now)
	f.open[100].packets <- make([]nflog.Packet, 3)
	f.open[100].broken <- errors.New("netlink: it broke")
	deadline := time.Now().Add(10 * time.Second)
	for bound16(g) != nil && time.Now().Before(deadline) {
		time.Sleep(time.Millisecond)
	}
	if s := g.states(); s[0].Read() || !strings.Contains(s[0].Err, "it broke") || s[0].Packets != 3 || !f.open[100].isClosed() {
		t.Fatalf("got %+v of a socket that failed", s)
	}
	g.choose(ctx, in, now.Add(groupsEvery))
	f.open[100].packets <- make([]nflog.Packet, 2)
	stop()
	g.release(100)
	if s := g.states(); s[0].Packets != 5 {
		t.Errorf("got %+v, want 5 packets in all", s)
	}
	if events, _, _, _ := g.events.after(0, 100); len(events) != 5 {
		t.Errorf("%d events, want 5", len(events))
	}
}

func TestGroupChoice(t *testing.T) {
	for s, want := range map[string]string{
		"auto": "{true []}", "none": "{false []}", "": "{false []}", "100": "{false [100]}", "2, 100,2": "{false [2 100]}",
		"0": "{false [0]}", "65536": "error", "x": "error", "100,": "error", "-1": "error",
	} {
		c, err := parseGroups(s)
		got := fmt.Sprint(c)
		if err != nil {
			got = "error"
			if !strings.Contains(err.Error(), "--nflog.group") {
				t.Errorf("%q: %v does not name the flag", s, err)
			}
		}
		if got != want {
			t.Errorf("%q: got %s, want %s", s, got, want)
		}
	}
}
