// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/svcscope/svcscope/pkg/correlate"
	"github.com/svcscope/svcscope/pkg/kernel"
)

// TestLossesFromReadingToReading: for lack of ports only where the last reading of the
// entries has them busy, and what NAT finds taken every day is no sign of it.
func TestLossesFromReadingToReading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &fakeBackend{answers: []answer{{set: emptyRules()}}}
		table := &fakeConntrack{stats: &kernel.ConntrackStats{}}
		s := fakeSampler(b, nil, nil)
		s.host.conntrack = func() (conntrackReader, error) { return table, nil }
		s.conntrack.reader.open = s.host.conntrack
		var found, failed, drop, evicted, resolved uint64
		pass := func() *correlate.Conntrack {
			t.Helper()
			time.Sleep(10 * time.Second)
			table.stats = &kernel.ConntrackStats{
				Found: new(found), InsertFailed: new(failed), Drop: new(drop), EarlyDrop: new(evicted), ClashResolve: new(resolved),
			}
			s.pass(t.Context())
			return s.latest.Load().Conntrack
		}
		used := func(n uint64) {
			s.flows.latest.Store(&flowsState{
				flows:     &correlate.Flows{Time: time.Now(), Ports: []correlate.PortUse{{Used: n}}},
				collector: correlate.CollectorState{Success: true},
			})
		}
		lost := func(full, clash, ports uint64) (want [correlate.NumLossCauses]uint64) {
			want[correlate.LossTableFull], want[correlate.LossClash], want[correlate.LossPorts] = full, clash, ports
			return want
		}
		pass()
		found += 100_000 // without a failure: a fifth of it is usual from now on
		pass()

		used(20_000)
		found, failed, drop = found+40_000+128*100, failed+300, drop+300
		if d := cmp.Diff(lost(0, 200, 100), pass().Losses); d != "" {
			t.Errorf("with busy ports (-want +got):\n%s", d)
		}
		used(100)
		found, failed, drop = found+40_000+128*100, failed+300, drop+300
		if d := cmp.Diff(lost(0, 500, 100), pass().Losses); d != "" {
			t.Errorf("with ports to spare (-want +got):\n%s", d)
		}
		evicted += 5
		got := pass()
		if d := cmp.Diff(lost(5, 500, 100), got.Losses); d != "" {
			t.Errorf("with entries evicted (-want +got):\n%s", d)
		}
		if !got.Filling || got.TimeToFull != 0 {
			t.Errorf("entries are evicted: full in %v, filling %v; want now", got.TimeToFull, got.Filling)
		}
	})
}
