// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"testing"
	"time"

	"github.com/svcscope/svcscope/pkg/kernel"
)

// TestSessionsThatLastAreReadAgain: a session takes four times as long as those before.
func TestSessionsThatLastAreReadAgain(t *testing.T) {
	b := newBench(t, 300*time.Microsecond, 80*time.Microsecond)
	for range 20 {
		b.sync(25 * ms)
	}
	b.sync(100 * ms)
	if got := b.gap[natTable]; got > 20*ms {
		t.Errorf("nat not looked at for %v", got)
	}
}

// TestSessionsThatMayStillGoOn: the first session takes ten times as long as what was seen
// of any, and all of its readings may lie in a dip.
func TestSessionsThatMayStillGoOn(t *testing.T) {
	s := newSessions()
	now := time.Unix(1000, 0)
	at := func(d time.Duration) time.Time { return now.Add(d) }
	event := func(kind kernel.LockEventKind, d time.Duration) { s.event(kernel.LockEvent{Kind: kind, At: at(d)}) }
	writing := func(d time.Duration) bool {
		s.expire(at(d))
		return s.read(tableRead{natTable, at(d), at(d + ms), true})
	}
	event(kernel.LockOpened, 0)
	event(kernel.LockClosed, 20*ms)
	event(kernel.LockOpened, 30*ms)
	for _, tt := range []struct {
		at   time.Duration
		held bool
	}{{50 * ms, true}, {500 * ms, false}, {time.Second, false}} {
		if !writing(tt.at) {
			t.Errorf("after %v: no writer is at work", tt.at)
		}
		if s.held() != tt.held {
			t.Errorf("after %v: held is %v, want %v", tt.at, s.held(), tt.held)
		}
	}
	event(kernel.LockClosed, 1100*ms)
	if writing(1150 * ms) {
		t.Error("a writer is at work after its closing")
	}
}
