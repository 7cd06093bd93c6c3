// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"sync"
	"time"

	"github.com/svcscope/svcscope/pkg/correlate"
)

// countEvery is how often the number of entries is read.
const countEvery = time.Second

// conntrack reads the connection-tracking table's size and statistics.
type conntrack struct {
	mu     sync.Mutex // guards all fields; count and read may run side by side
	reader reader[conntrackReader]
	peak   uint64 // since the last read
}

// count reads the number of entries, for the peak. Errors are left to read.
func (c *conntrack) count(ctx context.Context) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.reader.ready {
		return
	}
	if n, err := c.reader.value.Count(ctx); err == nil {
		c.peak = max(c.peak, n)
	}
}

// watch counts until ctx ends.
func (c *conntrack) watch(ctx context.Context) {
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

// read returns the table's state, and begins a new peak.
func (c *conntrack) read(ctx context.Context) (*correlate.Conntrack, error) {
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
	out.Peak, c.peak = max(c.peak, out.Entries), out.Entries
	// Sizes need no capability, statistics do: give what there is.
	s, err := r.Stats(ctx)
	out.Stats = correlate.ConntrackStats{
		Found: s.Found, Invalid: s.Invalid, InsertFailed: s.InsertFailed, Drop: s.Drop, EarlyDrop: s.EarlyDrop,
		Error: s.Error, SearchRestart: s.SearchRestart, ClashResolve: s.ClashResolve, ChainTooLong: s.ChainTooLong,
	}
	return out, err
}

func (c *conntrack) close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.reader.close()
}
