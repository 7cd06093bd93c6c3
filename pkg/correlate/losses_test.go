// SPDX-License-Identifier: Apache-2.0

package correlate

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestLosses(t *testing.T) {
	stats := func(found, failed, drop, evicted, chain uint64) *ConntrackStats {
		return &ConntrackStats{Found: &found, InsertFailed: &failed, Drop: &drop, EarlyDrop: &evicted, ChainTooLong: &chain, ClashResolve: new(uint64)}
	}
	old := func(found, failed, drop uint64) *ConntrackStats {
		return &ConntrackStats{Found: &found, InsertFailed: &failed, Drop: &drop, EarlyDrop: new(uint64)}
	}
	zero := stats(0, 0, 0, 0, 0)
	for _, tt := range []struct {
		name        string
		before, now *ConntrackStats
		peak        uint64
		usual       float64
		want        map[LossCause]uint64
	}{
		{"nothing", zero, zero, 10, 0, nil},
		{"a full table", zero, stats(0, 0, 7, 0, 0), 96, 0, map[LossCause]uint64{LossTableFull: 7}},
		{"a full table that evicts", zero, stats(0, 0, 7, 3, 0), 10, 0, map[LossCause]uint64{LossTableFull: 10}},
		{"a tracker", zero, stats(0, 0, 7, 0, 0), 10, 0, map[LossCause]uint64{LossOther: 7}},
		{"a clash", zero, stats(3, 2, 2, 0, 0), 10, 0, map[LossCause]uint64{LossClash: 2}},
		{"no port", zero, stats(600, 2, 2, 0, 0), 10, 0, map[LossCause]uint64{LossPorts: 2}},
		{"ports and clashes", zero, stats(2400, 30, 30, 0, 0), 10, 0, map[LossCause]uint64{LossPorts: 18, LossClash: 12}},
		{"a clash while NAT tries as ever", zero, stats(640, 1, 1, 0, 0), 10, 600, map[LossCause]uint64{LossClash: 1}},
		{"no port while NAT tries as ever", zero, stats(640+262, 2, 2, 0, 0), 10, 320, map[LossCause]uint64{LossPorts: 2}},
		{"entries that had to go", zero, stats(0, 0, 0, 9, 0), 10, 0, map[LossCause]uint64{LossTableFull: 9}},
		{"a long chain", zero, stats(0, 2, 0, 0, 2), 10, 0, map[LossCause]uint64{LossChain: 2}},
		{"a dying entry", zero, stats(0, 1, 0, 0, 0), 10, 0, map[LossCause]uint64{LossClash: 1}},
		{"all at once", zero, stats(0, 5, 9, 1, 2), 99, 0, map[LossCause]uint64{LossChain: 2, LossClash: 3, LossTableFull: 7}},
		{"since the reading before", stats(0, 5, 9, 1, 2), stats(0, 6, 10, 1, 2), 10, 0, map[LossCause]uint64{LossClash: 1}},
		{"a kernel without most statistics", &ConntrackStats{}, &ConntrackStats{Drop: new(uint64)}, 10, 0, nil},
		{"clashes that Linux before 5.10 resolved", old(0, 0, 0), old(0, 450, 0), 10, 0, nil},
		{"one that it did not", old(0, 0, 0), old(0, 450, 1), 10, 0, map[LossCause]uint64{LossClash: 1}},
	} {
		got := map[LossCause]uint64{}
		for c, n := range Losses(tt.before, tt.now, tt.usual, true, tt.peak, 100) {
			if n > 0 {
				got[LossCause(c)] = n
			}
		}
		if tt.want == nil {
			tt.want = map[LossCause]uint64{}
		}
		if d := cmp.Diff(tt.want, got); d != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, d)
		}
	}
}

// TestLossesWhilePortsAreFree: what fails is no lack of ports where few are taken,
// however often NAT finds a tuple taken.
func TestLossesWhilePortsAreFree(t *testing.T) {
	stats := func(found, failed uint64) *ConntrackStats {
		return &ConntrackStats{Found: &found, InsertFailed: &failed, Drop: &failed, ClashResolve: new(uint64)}
	}
	for crowded, want := range map[bool]LossCause{true: LossPorts, false: LossClash} {
		if got := Losses(stats(0, 0), stats(1500, 10), 0, crowded, 10, 100); got[want] != 10 {
			t.Errorf("crowded %v: %v, want 10 of %v", crowded, got, want)
		}
	}
}
