// SPDX-License-Identifier: Apache-2.0

package agent

import "time"

const (
	// oneSync is within what kube-proxy writes the tables of one sync.
	oneSync = 100 * time.Millisecond
	// paceEven is the part of the least gap by which the newest ones may differ
	// from it where the writer keeps a pace.
	paceEven = 8
	// paceLead is the part of a gap that a look should have ended before the
	// expected write, and paceLate the one after it in which it is waited for.
	paceLead = 96
	paceLate = 16
)

// pace is the rhythm of a writer while it keeps one: kube-proxy writes a stream
// of changes at its least interval (--iptables-min-sync-period).
type pace struct {
	last time.Time
	gaps [8]time.Duration // the newest first; 0 is none
}

// wrote notes that new rules were seen.
func (p *pace) wrote(at time.Time) {
	gap := at.Sub(p.last)
	if gap < oneSync {
		return
	}
	p.last = at
	copy(p.gaps[1:], p.gaps[:])
	p.gaps[0] = gap
}

// least is the shortest of the newest gaps that are even; 0 without two.
func (p *pace) least() time.Duration {
	least, most := p.gaps[0], p.gaps[0]
	for i, gap := range p.gaps[1:] {
		l, m := min(least, gap), max(most, gap)
		if gap == 0 || m-l > l/paceEven {
			if i == 0 {
				return 0
			}
			break
		}
		least, most = l, m
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
