// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"slices"
	"time"
)

const (
	// oneSync is within what kube-proxy writes the tables of one sync.
	oneSync = 100 * time.Millisecond
	// paceKept is how many gaps are remembered, and paceOdd the part of them that
	// may be shorter than a pace: a family that waits for the lock behind the
	// other one is written late, and then early.
	paceKept = 32
	paceOdd  = 16
	// paceEven is the part of the least gap by which half of them may differ from
	// it where the writer keeps a pace.
	paceEven = 8
	// paceMost is the longest gap of a pace, but where looks take so long that they
	// are rarer: kube-proxy's least interval is 1 s, and a change that comes later
	// is written at once.
	paceMost = 1500 * time.Millisecond
	// paceLead is the part of a gap that a look should have ended before the
	// expected write, and paceLate the one after it in which it is waited for.
	paceLead = 96
	paceLate = 16
)

// pace is the rhythm of a writer while it keeps one: kube-proxy writes a stream
// of changes at its least interval (--iptables-min-sync-period).
type pace struct {
	last time.Time
	gaps []time.Duration // the oldest first
	rare time.Duration   // between looks, as they cost so much
}

// most is the longest gap of a pace.
func (p *pace) most() time.Duration { return max(paceMost, p.rare) }

// wrote notes that new rules were seen.
func (p *pace) wrote(at time.Time) {
	gap := at.Sub(p.last)
	if gap < oneSync {
		return
	}
	if len(p.gaps) == paceKept {
		p.gaps = slices.Delete(p.gaps, 0, 1)
	}
	if !p.last.IsZero() {
		p.gaps = append(p.gaps, gap)
	}
	if gap > 2*p.most() { // what was before says nothing any more
		p.gaps = nil
	}
	p.last = at
}

// least is a gap that few fall below; 0 without two, or where they are not even
// or too long.
func (p *pace) least() time.Duration {
	n := len(p.gaps)
	if n < 2 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(p.gaps))
	least, middle := sorted[n/paceOdd], sorted[n/2]
	if least > p.most() || middle-least > least/paceEven {
		return 0
	}
	return least
}

// expect says in how long to look next, so that a look of that cost is over just
// before the next write, and whether that is waited for now; neither without a
// pace, or where the write is overdue.
func (p *pace) expect(now time.Time, cost time.Duration) (quiet time.Duration, near bool) {
	least := p.least()
	if least == 0 {
		return 0, false
	}
	next := p.last.Add(least)
	if d := next.Add(-least/paceLead - cost - cost/2).Sub(now); d > 0 {
		return d, false
	}
	return 0, now.Before(next.Add(least / paceLate))
}
