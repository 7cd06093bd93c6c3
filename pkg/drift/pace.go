// SPDX-License-Identifier: Apache-2.0

package drift

import "time"

// pace is how kube-proxy is known to work in one family.
type pace struct {
	// last and previous are its last two commits; zero where there were none.
	last, previous Commit
	// half is when filter was seen to be written, and nat not since; zero otherwise.
	half time.Time
	// waiting is since when a change of the API waits without a commit that is sure to
	// have come after it; zero while none does.
	waiting time.Time
	// slow is how long changes have waited at least for the commit after them: the
	// longest, but for what came long ago.
	slow time.Duration
	// late is the same, those included that have waited for too long, as far as they may
	// have waited for a sync.
	late time.Duration
	// stuck: a change waits for too long. stuckSince is when that began.
	stuck      bool
	stuckSince time.Time
	// kernel and api are the last readings by which the node's own chains were judged,
	// and Services; zero where the last one was not.
	kernel, api time.Time
}

// commit takes a commit that was seen.
func (p *pace) commit(c *Commit) {
	if c.Half {
		p.half = c.Seen
		return
	}
	p.previous, p.last = p.last, *c
	// A sync that takes long once is forgotten within some commits.
	p.slow, p.late = p.slow-p.slow/4, p.late-p.late/4
	if !p.half.IsZero() {
		p.slow = max(p.slow, c.After.Sub(p.half))
	}
	if !p.waiting.IsZero() && !c.After.Before(p.waiting) {
		if waited := c.After.Sub(p.waiting); p.stuck { // maybe it did not sync
			p.late = max(p.late, min(waited, 2*syncs))
		} else {
			p.slow = max(p.slow, waited)
		}
		p.waiting = time.Time{}
	}
	p.half = time.Time{}
}

// busy reports whether kube-proxy is in the middle of a sync.
func (p *pace) busy(r *Reading) bool { return !p.half.IsZero() && r.Time.Sub(p.half) < p.limit() }

// forget begins anew: kube-proxy's rules were not recognised.
func (p *pace) forget() { p.kernel, p.api, p.waiting = time.Time{}, time.Time{}, time.Time{} }

// read notes a reading by which the family was judged.
func (p *pace) read(r *Reading) {
	p.kernel, p.api = r.Time, time.Time{}
	if r.Current {
		p.api = r.Time
	}
}

// before is the last reading by which such a difference was judged.
func (p *pace) before(d *Difference) time.Time {
	if d.OfNode() && !d.InFlight {
		return p.kernel
	}
	return p.api
}

// commits counts the commits, of the last two, that are sure to have come after a time.
func (p *pace) commits(since time.Time) int {
	switch {
	case p.last.Seen.IsZero() || p.last.After.Before(since):
		return 0
	case p.previous.Seen.IsZero() || p.previous.After.Before(since):
		return 1
	}
	return 2
}

// wait takes the time of the oldest change that waits, zero where none does. What waits is
// another change each time where endpoints come and go: the family's waiting goes on.
func (p *pace) wait(oldest time.Time) {
	if oldest.IsZero() || p.waiting.IsZero() {
		p.waiting = oldest
	}
}

// stands reports whether a change waits for so long without any commit that kube-proxy is
// taken not to sync.
func (p *pace) stands(r *Reading) bool {
	return !p.waiting.IsZero() && r.Time.Sub(later(p.waiting, p.last.Seen)) >= p.limit()
}

// limit is how long a change may wait without any commit.
func (p *pace) limit() time.Duration { return max(syncs, slowSyncs*p.slow) }

// echo is for how long rules may still be of what the API wanted before: a sync that began
// before a change writes them, and the next one takes as long again.
func (p *pace) echo() time.Duration { return 2 * max(p.late, p.slow) }

// rests reports whether kube-proxy has written nothing for so long that nothing of before a
// time can still wait for it. How long its next sync takes is not known: longer than
// others, if it has much to write, and the first one that is slow tells only at its end.
func (p *pace) rests(r *Reading, since time.Time) bool {
	return r.Time.Sub(later(since, p.last.Seen)) >= max(2*syncs, p.limit(), p.echo())
}

// settled reports whether kube-proxy knows of nothing more that it has not written since a
// time: nothing is known to wait for it, or it has made two commits since.
func (p *pace) settled(now, since time.Time, quiet time.Duration) bool {
	return now.Sub(since) >= quiet && (p.waiting.IsZero() || p.commits(since) == 2)
}

// retries is how long kube-proxy may be quiet although it has something to write: it tries a
// restore that failed again after half a minute (--iptables-sync-period), and that may wait
// for xtables' lock.
const retries = 45 * time.Second

// hearsay is how much later than here news of the API may come to kube-proxy.
const hearsay = 2 * time.Second

// hasWritten reports whether kube-proxy must have written what the API wants since a
// change, and the rules of what was found first at a time: it has made two commits since, of
// which the second one's sync began when it knew, or one after the change, whose sync may have
// begun before, and rests with nothing left to write.
func (p *pace) hasWritten(r *Reading, change, first time.Time, grace time.Duration) bool {
	if r.Time.Sub(first) < grace {
		return false
	}
	if p.commits(first.Add(hearsay)) == 2 {
		return true
	}
	return p.commits(change) > 0 && p.waiting.IsZero() && p.rests(r, first)
}
