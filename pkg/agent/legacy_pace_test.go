// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"testing"
	"time"

	"github.com/svcscope/svcscope/pkg/netfilter"
)

func TestPace(t *testing.T) {
	const s = time.Second
	tests := []struct {
		name   string
		writes []time.Duration
		now    time.Duration
		cost   time.Duration
		quiet  time.Duration
		near   bool
	}{
		{"never written", nil, s, 0, 0, false},
		{"two writes make no pace", []time.Duration{10 * s, 11 * s}, 11 * s, 0, 0, false},
		{"just written", []time.Duration{10 * s, 11 * s, 12 * s}, 12 * s, 0, s - s/paceLead, false},
		{"halfway", []time.Duration{10 * s, 11 * s, 12 * s}, 12*s + s/2, 0, s/2 - s/paceLead, false},
		{"a look takes long", []time.Duration{10 * s, 11 * s, 12 * s}, 12*s + s/2, 100 * ms, s/2 - s/paceLead - 150*ms, false},
		{"it will be written", []time.Duration{10 * s, 11 * s, 12 * s}, 13*s - s/paceLead, 0, 0, true},
		{"a look would be over too late", []time.Duration{10 * s, 11 * s, 12 * s}, 13*s - 50*ms, 100 * ms, 0, true},
		{"late", []time.Duration{10 * s, 11 * s, 12 * s}, 13*s + s/20, 0, 0, true},
		{"overdue", []time.Duration{10 * s, 11 * s, 12 * s}, 13*s + s/10, 0, 0, false},
		{"two tables of one sync", []time.Duration{10 * s, 10*s + 5*ms, 11 * s, 11*s + 5*ms, 12 * s, 12*s + 5*ms}, 12*s + s/2, 0, s/2 - s/paceLead, false},
		{"the shorter gap counts", []time.Duration{10 * s, 11*s + 100*ms, 12*s + 100*ms}, 12*s + 600*ms, 0, s/2 - s/paceLead, false},
		{"the shortest of some", []time.Duration{10 * s, 11 * s, 12*s + 100*ms, 13*s + 200*ms, 14*s + 300*ms}, 14*s + 500*ms, 0, s - 200*ms - s/paceLead, false},
		{"that some are longer does not matter", []time.Duration{10 * s, 11 * s, 12*s + 80*ms, 13*s + 160*ms, 14*s + 240*ms}, 14*s + 240*ms, 0, s - s/paceLead, false},
		{"one short gap of many does not count", evenly(paceOdd, 11*s, s), 26 * s, 0, s - s/paceLead, false},
		{"no pace", []time.Duration{10 * s, 11 * s, 13 * s}, 13*s + s/2, 0, 0, false},
		{"a pace that was broken", []time.Duration{10 * s, 11 * s, 12 * s, 12*s + 300*ms}, 12*s + 500*ms, 0, 0, false},
		{"another pace", []time.Duration{10 * s, 11 * s, 15 * s, 19 * s}, 20 * s, 0, 0, false},
		{"a writer that seldom has work has no pace", evenly(paceKept, 15*s, 4*s), 139*s + s, 0, 0, false},
		{"a pace before a long rest is forgotten", append(evenly(paceKept, 15*s, s), 100*s, 100*s+300*ms), 100*s + 400*ms, 0, 0, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			at := func(d time.Duration) time.Time { return time.Unix(1000, 0).Add(d) }
			var p pace
			for _, w := range tt.writes {
				p.wrote(at(w))
			}
			if quiet, near := p.expect(at(tt.now), tt.cost); quiet != tt.quiet || near != tt.near {
				t.Errorf("quiet for %v, near %v, want %v and %v", quiet, near, tt.quiet, tt.near)
			}
		})
	}
}

// evenly is n writes, and one half a gap before the first.
func evenly(n int, first, gap time.Duration) []time.Duration {
	writes := []time.Duration{first - gap/2}
	for i := range n {
		writes = append(writes, first+time.Duration(i)*gap)
	}
	return writes
}

// TestMissed has a family that is about to be written, looked at or not.
func TestMissed(t *testing.T) {
	at := func(d time.Duration) time.Time { return time.Unix(1000, 0).Add(d) }
	for _, tt := range []struct {
		name      string
		now, last time.Duration
		want      bool
	}{
		{"nothing is expected yet", 12*time.Second + 500*ms, 11 * time.Second, false},
		{"not looked at", 13 * time.Second, 12 * time.Second, true},
		{"looked at", 13 * time.Second, 13*time.Second - 20*ms, false},
		{"overdue", 13*time.Second + 200*ms, 12 * time.Second, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var f legacyFamily
			for _, w := range []time.Duration{10 * time.Second, 11 * time.Second, 12 * time.Second} {
				f.pace.wrote(at(w))
			}
			if got := f.missed(&tableLooks{last: at(tt.last)}, at(tt.now)); got != tt.want {
				t.Errorf("missed: %v, want %v", got, tt.want)
			}
		})
	}
}

// TestInTheWay has IPv4 looked at shortly before IPv6 is written.
func TestInTheWay(t *testing.T) {
	at := func(d time.Duration) time.Time { return time.Unix(1000, 0).Add(d) }
	for _, tt := range []struct {
		name    string
		cost    time.Duration
		watched bool // something of IPv6
		ahead   time.Duration
		want    bool
	}{
		{"a long look", 10 * ms, true, 500 * ms, true},
		{"a short one", ms, true, 500 * ms, false},
		{"nothing is watched there", 10 * ms, false, 500 * ms, false},
		{"both are about to be written", 10 * ms, true, 0, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newLegacyBackend(nil)
			w := newWatched()
			b.of = &w
			if tt.watched {
				announce(w.refusals, netfilter.IPv6, at(time.Hour))
			}
			for i := range 4 { // IPv4 is written so much later
				b.family(netfilter.IPv6).pace.wrote(at(time.Duration(i) * time.Second))
				b.family(netfilter.IPv4).pace.wrote(at(time.Duration(i)*time.Second + tt.ahead))
			}
			if got := b.inTheWay(b.family(netfilter.IPv4), tt.cost, at(4*time.Second)); got != tt.want {
				t.Errorf("in the way: %v, want %v", got, tt.want)
			}
		})
	}
}
