// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/svcscope/svcscope/pkg/correlate"
	"github.com/svcscope/svcscope/pkg/kernel"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/conntrack"
)

// slowConntrack takes its time to give the entries.
type slowConntrack struct {
	fakeConntrack
	takes  time.Duration
	begins []time.Time
}

func (f *slowConntrack) Flows(ctx context.Context, filter kernel.FlowFilter, visit func(*conntrack.Flow)) (kernel.FlowDump, error) {
	f.begins = append(f.begins, time.Now())
	wait(ctx, f.takes)
	return f.fakeConntrack.Flows(ctx, filter, visit)
}

// webFlow is a connection to web by its cluster address.
func webFlow() conntrack.Flow {
	f := conntrack.Flow{Family: netfilter.IPv4, Protocol: 6, State: conntrack.TCPEstablished, HasState: true, Status: conntrack.SeenReply | conntrack.DstNAT}
	f.Orig = conntrack.Tuple{Src: netip.MustParseAddrPort("10.77.0.9:1024"), Dst: netip.MustParseAddrPort("10.96.0.10:80")}
	f.Reply = conntrack.Tuple{Src: netip.MustParseAddrPort("10.77.0.2:8080"), Dst: f.Orig.Src}
	return f
}

func newFlowReader(f conntrackReader, interval time.Duration) *flowReader {
	s := fakeSampler(&fakeBackend{answers: []answer{{set: emptyRules()}}}, nil, nil)
	s.flows.interval = interval
	s.flows.reader.open = func() (conntrackReader, error) { return f, nil }
	return s.flows
}

func noServices() (none correlate.FlowInputs) { return none }

// TestFlowsTakeTheirShare reads a table that takes so long that the interval
// has to grow, and one that does not.
func TestFlowsTakeTheirShare(t *testing.T) {
	for _, tt := range []struct {
		takes, want time.Duration
		err         error
	}{
		{100 * time.Millisecond, 30 * time.Second, nil},
		{2 * time.Second, 100 * time.Second, nil},
		{30 * time.Second, 25 * time.Minute, errors.New("overrun")}, // what fails has worked, too
	} {
		takes, want := tt.takes, tt.want
		synctest.Test(t, func(t *testing.T) {
			f := &slowConntrack{takes: takes}
			f.flows, f.flowsErr = []conntrack.Flow{webFlow()}, tt.err
			r := newFlowReader(f, 30*time.Second)
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan struct{})
			freed := 0
			go func() { r.run(ctx, nil, noServices, func() { freed++ }); close(done) }()
			time.Sleep(flowsAwait + 3*want + time.Second)
			cancel()
			<-done
			if freed != 1 {
				t.Errorf("memory was given back %d times, want once", freed)
			}
			if len(f.begins) != 4 {
				t.Fatalf("takes %v: read %d times, want 4", takes, len(f.begins))
			}
			for i := range f.begins[1:] {
				if got := f.begins[i+1].Sub(f.begins[i]); got != want {
					t.Errorf("takes %v: the next after %v, want %v", takes, got, want)
				}
			}
			got := r.latest.Load()
			if tt.err != nil {
				return
			}
			if got.flows.Interval != want || got.flows.Duration != takes || got.flows.Entries != 1 || !got.collector.Success {
				t.Errorf("takes %v: %+v, %+v", takes, got.flows, got.collector)
			}
		})
	}
}

// TestFlowsThatFail keeps what was read, until it is too old to be believed.
func TestFlowsThatFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeConntrack{flows: []conntrack.Flow{webFlow()}}
		r := newFlowReader(f, 30*time.Second)
		r.read(t.Context(), noServices(), time.Now())
		f.flowsErr = errors.New("overrun")
		time.Sleep(30 * time.Second)
		r.read(t.Context(), noServices(), time.Now())
		got := r.latest.Load()
		if f := got.told(time.Now()); f == nil || f.Entries != 1 || got.collector.Success || got.collector.Err != "overrun" {
			t.Errorf("after one failure: %+v", got)
		}
		time.Sleep(flowsBelieved)
		if f := r.latest.Load().told(time.Now()); f != nil {
			t.Errorf("after %v without a reading there are still %d entries", flowsBelieved, f.Entries)
		}
		f.flowsErr = nil
		r.read(t.Context(), noServices(), time.Now())
		if got := r.latest.Load(); got.told(time.Now()) == nil || !got.collector.Success {
			t.Errorf("when it is read again: %+v", got)
		}
	})
}

// TestNoFlows never opens what is not wanted.
func TestNoFlows(t *testing.T) {
	r := newFlowReader(nil, 0)
	r.reader.open = func() (conntrackReader, error) { t.Error("opened"); return nil, errNoHost }
	r.run(t.Context(), nil, noServices, func() {})
	if r.latest.Load() != nil {
		t.Error("read")
	}
}

// TestSnapshotHasFlows goes from the entries to the snapshot.
func TestSnapshotHasFlows(t *testing.T) {
	f := &fakeConntrack{flows: []conntrack.Flow{webFlow(), webFlow()}}
	s := fakeSampler(&fakeBackend{answers: []answer{{set: webRules(t, "1", "0")}}}, nil, nil)
	s.flows.reader.open = func() (conntrackReader, error) { return f, nil }
	s.pass(t.Context())
	s.pass(t.Context())
	s.flows.read(t.Context(), s.flowInputs(), time.Now())
	s.pass(t.Context())
	got := s.latest.Load().Flows
	if got == nil || len(got.Services) != 1 || got.Services[0].Port.Name.Name != "web" || got.Services[0].Replied != 2 || got.Services[0].Stale != 0 {
		t.Errorf("%+v", got)
	}
}
