// SPDX-License-Identifier: Apache-2.0

package agent

import "time"

const (
	// oneSync is within what kube-proxy writes the tables of one sync.
	oneSync = 100 * time.Millisecond
	// paceEven is the part of a gap by which the one after it may differ where
	// the writer keeps a pace.
	paceEven = 8
	// paceLead is the part of a gap before and after the expected write in which
	// it is waited for.
	paceLead = 16
)

// pace is the rhythm of a writer while it keeps one: kube-proxy writes a stream
// of changes at its least interval (--iptables-min-sync-period).
type pace struct {
	last time.Time
	gaps [2]time.Duration
}

// wrote notes that new rules were seen.
func (p *pace) wrote(at time.Time) {
	gap := at.Sub(p.last)
	if gap < oneSync {
		return
	}
	p.last, p.gaps = at, [2]time.Duration{p.gaps[1], gap}
}

// expect says in how long the next write is to be waited for, and whether it is
// now; neither without a pace, or where the write is overdue.
func (p *pace) expect(now time.Time) (quiet time.Duration, near bool) {
	least, most := min(p.gaps[0], p.gaps[1]), max(p.gaps[0], p.gaps[1])
	if least == 0 || most-least > least/paceEven {
		return 0, false
	}
	next, lead := p.last.Add(least), least/paceLead
	if d := next.Add(-lead).Sub(now); d > 0 {
		return d, false
	}
	return 0, now.Before(next.Add(lead))
}
