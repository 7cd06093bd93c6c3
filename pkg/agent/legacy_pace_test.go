// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"testing"
	"time"
)

func TestPace(t *testing.T) {
	const s = time.Second
	tests := []struct {
		name   string
		writes []time.Duration
		now    time.Duration
		quiet  time.Duration
		near   bool
	}{
		{"never written", nil, s, 0, false},
		{"two writes make no pace", []time.Duration{10 * s, 11 * s}, 11 * s, 0, false},
		{"just written", []time.Duration{10 * s, 11 * s, 12 * s}, 12 * s, s - s/paceLead, false},
		{"halfway", []time.Duration{10 * s, 11 * s, 12 * s}, 12*s + s/2, s/2 - s/paceLead, false},
		{"it will be written", []time.Duration{10 * s, 11 * s, 12 * s}, 13*s - s/paceLead, 0, true},
		{"late", []time.Duration{10 * s, 11 * s, 12 * s}, 13*s + s/20, 0, true},
		{"overdue", []time.Duration{10 * s, 11 * s, 12 * s}, 13*s + s/10, 0, false},
		{"two tables of one sync", []time.Duration{10 * s, 10*s + 5*ms, 11 * s, 11*s + 5*ms, 12 * s, 12*s + 5*ms}, 12*s + s/2, s/2 - s/paceLead, false},
		{"the shorter gap counts", []time.Duration{10 * s, 11*s + 100*ms, 12*s + 100*ms}, 12*s + 600*ms, s/2 - s/paceLead, false},
		{"no pace", []time.Duration{10 * s, 11 * s, 13 * s}, 13*s + s/2, 0, false},
		{"a pace that was broken", []time.Duration{10 * s, 11 * s, 12 * s, 12*s + 300*ms}, 12*s + 500*ms, 0, false},
		{"another pace", []time.Duration{10 * s, 11 * s, 15 * s, 19 * s}, 20 * s, 3*s - 4*s/paceLead, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			at := func(d time.Duration) time.Time { return time.Unix(1000, 0).Add(d) }
			var p pace
			for _, w := range tt.writes {
				p.wrote(at(w))
			}
			if quiet, near := p.expect(at(tt.now)); quiet != tt.quiet || near != tt.near {
				t.Errorf("quiet for %v, near %v, want %v and %v", quiet, near, tt.quiet, tt.near)
			}
		})
	}
}
