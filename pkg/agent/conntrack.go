// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"sync"
	"time"

	"github.com/svcscope/svcscope/pkg/correlate"
)

const (
	// countEvery is how often the number of entries is read.
	countEvery = time.Second
	// The forecast looks at the last counts, and at some of the last quarter of
	// an hour: see correlate.TimeToFull.
	shortCounts = 20
	longCounts  = 60
	longEvery   = 15 * time.Second
)

// sizes reads the connection-tracking table's size and statistics.
type sizes struct {
	mu     sync.Mutex // guards all fields; count and read may run side by side
	reader reader[conntrackReader]
	// interval is of the samplings; peaks has what is higher than what came later.
	interval time.Duration
	peaks    peaks
	// The last counts, the oldest first.
	short, long []correlate.Count
	// What was lost of which cause since the first statistics, and those of the
	// last reading.
	lost   [correlate.NumLossCauses]uint64
	since  time.Time
	before *correlate.ConntrackStats
	// When that was, and how many taken tuples NAT finds a second while no entry
	// fails, as a mean of the last minutes.
	beforeAt time.Time
	usual    float64
}

// count reads the number of entries, for the peak. Errors are left to read.
func (c *sizes) count(ctx context.Context) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.reader.ready {
		return
	}
	if n, err := c.reader.value.Count(ctx); err == nil {
		c.note(n, time.Now())
	}
}

// note keeps a count. c.mu is held.
func (c *sizes) note(n uint64, now time.Time) {
	c.peaks.note(n, now, c.window())
	c.short = appendLast(c.short, correlate.Count{At: now, Entries: n}, shortCounts)
	if len(c.long) == 0 || now.Sub(c.long[len(c.long)-1].At) >= longEvery {
		c.long = appendLast(c.long, correlate.Count{At: now, Entries: n}, longCounts)
	}
}

// peakFor is for how long the highest count is told, at least: most scrapes are no
// more than a minute apart, and would not see that of one sampling.
const peakFor = time.Minute

func (c *sizes) window() time.Duration { return max(peakFor, c.interval) }

// peaks is the last counts but for those that a later one has reached, so that of any
// time until now the first that is left is the highest.
type peaks []correlate.Count

// note adds a count, and drops what is older than d.
func (p *peaks) note(n uint64, now time.Time, d time.Duration) {
	all := *p
	for len(all) > 0 && all[len(all)-1].Entries <= n {
		all = all[:len(all)-1]
	}
	all = append(all, correlate.Count{At: now, Entries: n})
	old := 0
	for now.Sub(all[old].At) > d {
		old++
	}
	*p = append(all[:0], all[old:]...)
}

// since returns the highest count of a time until now.
func (p peaks) since(t time.Time) uint64 {
	for _, c := range p {
		if !c.At.Before(t) {
			return c.Entries
		}
	}
	return 0
}

// appendLast appends to what has at most n elements the last of which counts.
func appendLast(w []correlate.Count, c correlate.Count, n int) []correlate.Count {
	if len(w) == n {
		copy(w, w[1:])
		w = w[:n-1]
	}
	return append(w, c)
}

// watch counts until ctx ends.
func (c *sizes) watch(ctx context.Context) {
	tick := time.NewTicker(countEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			c.count(ctx)
		}
	}
}

// read returns the table's state. crowded is false where source ports are known not
// to be short.
func (c *sizes) read(ctx context.Context, crowded bool) (*correlate.Conntrack, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r, err := c.reader.get()
	if err != nil {
		return nil, err
	}
	out := &correlate.Conntrack{}
	if out.Entries, err = r.Count(ctx); err != nil {
		return nil, err
	}
	if out.Limit, err = r.Limit(ctx); err != nil {
		return nil, err
	}
	if out.Buckets, err = r.Buckets(ctx); err != nil {
		return nil, err
	}
	now := time.Now()
	c.peaks.note(out.Entries, now, c.window())
	out.Peak = c.peaks.since(now.Add(-c.window()))
	out.TimeToFull, out.Filling = correlate.TimeToFull(out.Limit, c.short, c.long)
	if out.Limit > 0 && out.Entries >= out.Limit {
		out.TimeToFull, out.Filling = 0, true
	}
	// Sizes need no capability, statistics do: give what there is.
	s, err := r.Stats(ctx)
	out.Stats = correlate.ConntrackStats{
		Found: s.Found, Invalid: s.Invalid, InsertFailed: s.InsertFailed, Drop: s.Drop, EarlyDrop: s.EarlyDrop,
		Error: s.Error, SearchRestart: s.SearchRestart, ClashResolve: s.ClashResolve, ChainTooLong: s.ChainTooLong,
	}
	if err == nil {
		c.lose(out, crowded, time.Now())
	}
	out.Losses, out.LossesSince = c.lost, c.since
	return out, err
}

// lose adds up what was lost since the last statistics. c.mu is held.
func (c *sizes) lose(t *correlate.Conntrack, crowded bool, now time.Time) {
	if c.before == nil {
		c.since = now
	} else {
		passed := now.Sub(c.beforeAt).Seconds()
		lost := correlate.Losses(c.before, &t.Stats, c.usual*passed, crowded, c.peaks.since(c.beforeAt), t.Limit)
		for cause, n := range lost {
			c.lost[cause] += n
		}
		if lost[correlate.LossTableFull] > 0 {
			t.TimeToFull, t.Filling = 0, true // what it evicts keeps the count below the limit
		}
		c.learn(&t.Stats, passed)
	}
	c.before, c.beforeAt = &t.Stats, now
}

// learn notes how often NAT finds tuples taken. c.mu is held.
func (c *sizes) learn(now *correlate.ConntrackStats, passed float64) {
	const weight = 0.2 // of the newest reading
	if c.before.Found == nil || now.Found == nil || passed <= 0 || correlate.Unconfirmed(c.before, now) > 0 {
		return
	}
	c.usual += weight * (float64(*now.Found-*c.before.Found)/passed - c.usual)
}

func (c *sizes) close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.reader.close()
}
