// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/svcscope/svcscope/pkg/correlate"
	"github.com/svcscope/svcscope/pkg/kernel"
)

const (
	// flowShare is the part of one core that reading entries may take: with a
	// large table the interval grows.
	flowShare = 50
	// flowsAwait is how long the first reading waits for the API.
	flowsAwait = 10 * time.Second
	// flowsBelieved is for how long a reading is told of after it, where none
	// succeeds.
	flowsBelieved = 5 * time.Minute
)

// flowReader reads the entries of connection tracking, in a goroutine of its own: a
// reading of a million takes seconds.
type flowReader struct {
	interval time.Duration // --conntrack.interval; 0: never
	reader   reader[conntrackReader]
	table    collector
	counter  correlate.FlowCounter
	begun    time.Time // the last reading
	// The entries that were not decoded: in the last reading, and those that came
	// since the start.
	undecoded, lost uint64
	latest          atomic.Pointer[flowsState]
}

// flowsState is what is published of the readings.
type flowsState struct {
	flows     *correlate.Flows // of the last one that came to its end; nil before
	collector correlate.CollectorState
	undecoded uint64
	stats     kernel.ReadStats
}

// run reads until ctx ends. in returns what is known now.
func (f *flowReader) run(ctx context.Context, synced <-chan struct{}, in func() correlate.FlowInputs, freeMemory func()) {
	if f.interval == 0 {
		return
	}
	await(ctx, synced, flowsAwait)
	for first := true; ctx.Err() == nil; first = false {
		begin := time.Now()
		f.read(ctx, in(), begin)
		if first { // what making the index took is garbage
			freeMemory()
		}
		took := time.Since(begin)
		wait(ctx, max(f.interval, flowShare*took)-took)
	}
}

// await waits for the channel, for d, or for the end of ctx.
func await(ctx context.Context, c <-chan struct{}, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-c:
	case <-t.C:
	case <-ctx.Done():
	}
}

// read reads the table once and publishes what it had.
func (f *flowReader) read(ctx context.Context, in correlate.FlowInputs, begin time.Time) {
	table, err := f.count(ctx, in, begin)
	if ctx.Err() != nil {
		return // the agent is ending; the source is not at fault
	}
	end := time.Now()
	f.table.report(begin, end, err)
	state := &flowsState{flows: table, collector: f.table.CollectorState, undecoded: f.lost}
	if f.reader.ready {
		state.stats = f.reader.value.FlowStats()
	}
	if last := f.latest.Load(); table == nil && last != nil {
		state.flows = last.flows
	}
	if table != nil {
		table.Duration = end.Sub(begin)
		if !f.begun.IsZero() {
			table.Interval = begin.Sub(f.begun)
		}
	}
	f.begun = begin
	f.latest.Store(state)
}

// crowdedFrom is the share of the source ports from which on a new connection may
// find none: source NAT may have a smaller range than all of them.
const crowdedFrom = 0.25

// crowded reports whether source ports may be short toward some destination: false
// where the last reading says that they are not.
func (f *flowReader) crowded(now time.Time) bool {
	last := f.latest.Load()
	if last == nil {
		return true
	}
	flows := last.told(now)
	return flows == nil || len(flows.Ports) > 0 && flows.Ports[0].Pressure() >= crowdedFrom
}

// told returns the last reading, while it may be believed.
func (s *flowsState) told(now time.Time) *correlate.Flows {
	if s.flows == nil || !s.collector.Success && now.Sub(s.flows.Time) > max(flowsBelieved, 2*s.flows.Interval) {
		return nil
	}
	return s.flows
}

// count returns what one reading has, nil where it is not whole.
func (f *flowReader) count(ctx context.Context, in correlate.FlowInputs, now time.Time) (*correlate.Flows, error) {
	r, err := f.reader.get()
	if err != nil {
		return nil, err
	}
	f.counter.Begin(in, now)
	dump, err := r.Flows(ctx, kernel.FlowFilter{}, f.counter.Add)
	if err != nil {
		f.counter.Abort()
		return nil, err
	}
	table := f.counter.End()
	// What stands in the table undecoded is counted once, not at each reading.
	more := dump.Undecoded - min(dump.Undecoded, f.undecoded)
	f.undecoded = dump.Undecoded
	f.lost += more
	if more > 0 {
		f.table.log.Warn("entries of connection tracking cannot be decoded and are left out", "entries", dump.Undecoded, "err", dump.UndecodedErr)
	}
	return table, nil
}

func (f *flowReader) close() error { return f.reader.close() }

// flowInputs is what entries are held against now. It may be called from any
// goroutine.
func (s *sampler) flowInputs() correlate.FlowInputs {
	state := s.kube.state()
	in := correlate.FlowInputs{Catalog: s.kube.catalog(), Stalled: state.enabled && !state.services}
	if snapshot := s.latest.Load(); snapshot != nil {
		in.Rows = snapshot.Services
	}
	in.Pods, in.Policies = s.kube.pods()
	local := s.addresses()
	in.Local, in.Routed = local.Own, local.Routed
	return in
}

// addresses are the node's own, and those with routes of their own; none where they
// are not known.
func (s *sampler) addresses() (local kernel.Addresses) {
	if s.host.addresses == nil {
		return local
	}
	local, err := s.host.addresses()
	if err != nil {
		s.log.Debug("the node's own addresses are not known", "err", err)
	}
	return local
}
