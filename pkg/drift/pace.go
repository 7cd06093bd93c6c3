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
	took := p.slow - p.slow/4 // a sync that takes long once is forgotten within some commits
	if !p.half.IsZero() {
		took = max(took, c.After.Sub(p.half))
	}
	if !p.waiting.IsZero() && !c.After.Before(p.waiting) {
		if !p.stuck { // else it did not sync
			took = max(took, c.After.Sub(p.waiting))
		}
		p.waiting = time.Time{}
	}
	p.slow, p.half = took, time.Time{}
}

// busy reports whether kube-proxy is in the middle of a sync.
func (p *pace) busy(r *Reading) bool { return !p.half.IsZero() && r.Time.Sub(p.half) < p.limit(r) }

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
	return !p.waiting.IsZero() && r.Time.Sub(later(p.waiting, p.last.Seen)) >= p.limit(r)
}

func (p *pace) slowest(r *Reading) time.Duration { return max(p.slow, r.SlowestSync) }

// limit is how long a change may wait without any commit.
func (p *pace) limit(r *Reading) time.Duration { return max(syncs, slowSyncs*p.slowest(r)) }

// echo is for how long rules may still be of what the API wanted before: a sync that began
// before a change writes them, and the next one takes as long again.
func (p *pace) echo(r *Reading) time.Duration { return 2 * p.slowest(r) }

// rests reports whether kube-proxy has written nothing for so long that nothing of before a
// time can still wait for it. Where it was never seen to write, nothing is known of
// how long it takes: then twice as long.
func (p *pace) rests(r *Reading, since time.Time) bool {
	if p.last.Seen.IsZero() {
		return r.Time.Sub(since) >= 2*p.limit(r)
	}
	return r.Time.Sub(later(since, p.last.Seen)) >= p.limit(r)
}

// settled reports whether kube-proxy knows of nothing more that it has not written since a
// time: nothing is known to wait for it, or it has made two commits since.
func (p *pace) settled(now, since time.Time, quiet time.Duration) bool {
	return now.Sub(since) >= quiet && (p.waiting.IsZero() || p.commits(since) == 2)
}

// hearsay is how much later than here news of the API may come to kube-proxy.
const hearsay = 2 * time.Second

// hasWritten reports whether kube-proxy must have written what the API wants since a time:
// it has made two commits since, of which the second one's sync began when it knew, or one, and has
// been quiet since with nothing left to write.
func (p *pace) hasWritten(now, since time.Time, grace, quiet time.Duration) bool {
	if now.Sub(since) < grace {
		return false
	}
	if p.commits(since.Add(hearsay)) == 2 {
		return true
	}
	return p.commits(since) > 0 && p.waiting.IsZero() && now.Sub(p.last.Seen) >= quiet
}
