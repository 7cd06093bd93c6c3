// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/svcscope/svcscope/pkg/kernel"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/ruleset"
)

// watchLock begins to watch the lock file of iptables-legacy, where it is there.
func (s *sampler) watchLock(now time.Time) {
	err := s.legacy.lock.retry(now)
	if err == nil || errors.Is(err, kernel.ErrAbsent) || err.Error() == s.lockErr {
		return
	}
	s.lockErr = err.Error()
	s.log.Warn("the lock file of iptables-legacy is not watched: more is lost in its rewrites", "err", err)
}

// lockDue returns in how long a table of x_tables is to be read around the
// session of a writer; false where none is until something happens.
func (s *sampler) lockDue(now time.Time) (time.Duration, bool) {
	_, at, ok := s.legacy.lock.next()
	return max(0, at.Sub(now)), ok
}

// readDue reads the tables that are due. What leaves open which way connections
// came is read a second time, as the end of the session would leave it open for
// good: since the reading before, which may be long ago.
func (s *sampler) readDue(ctx context.Context) {
	var nat []netfilter.Family
	read := false
	for ctx.Err() == nil {
		table, at, ok := s.legacy.lock.next()
		if !ok || at.After(time.Now()) {
			break
		}
		if s.readOne(ctx, table) {
			read = true
			if table.name == "nat" {
				nat = append(nat, table.family)
			}
		}
	}
	if !read {
		return
	}
	src := s.sources[1]
	s.tell(ctx, src, time.Now())
	again := false
	for _, f := range src.families() {
		table := legacyTable{f.set.Family, "nat"}
		if f.pending && slices.Contains(nat, f.set.Family) && s.legacy.lock.twice(table) {
			again = s.readOne(ctx, table) || again
		}
	}
	if again {
		s.tell(ctx, src, time.Now())
	}
}

// readOne reads a table and reports whether that went well.
func (s *sampler) readOne(ctx context.Context, table legacyTable) bool {
	d, err := s.legacy.readTable(ctx, table)
	if err != nil {
		// The next sampling reads all of it, and says why if it cannot.
		s.legacy.lock.skip(table)
		return false
	}
	s.sources[1].watched.rewritten(table.family, []ruleset.Delta{d})
	return true
}
