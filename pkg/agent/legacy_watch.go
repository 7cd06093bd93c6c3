// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"time"

	"github.com/svcscope/svcscope/pkg/kernel"
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

// readDue reads the tables that are due. The ledger is told of each reading: the
// next one may be of the same table, when it was written.
func (s *sampler) readDue(ctx context.Context) {
	for ctx.Err() == nil {
		table, at, ok := s.legacy.lock.next()
		if !ok || at.After(time.Now()) {
			break
		}
		if s.readOne(ctx, table) {
			s.tell(ctx, s.xtables, time.Now())
		}
	}
}

// readOne reads a table and reports whether that went well.
func (s *sampler) readOne(ctx context.Context, table legacyTable) bool {
	begin := time.Now()
	if started, err := s.legacy.startBeside(ctx, table); started || err != nil {
		if err != nil {
			s.legacy.lock.skip(table)
		}
		return false
	}
	deltas, err := s.legacy.readTable(ctx, table)
	if !s.legacy.lock.readSince(table, begin) {
		// The next sampling reads all of it, and says why if it cannot.
		s.legacy.lock.skip(table)
	}
	if err != nil {
		return false
	}
	s.xtables.watched.rewritten(table.family, deltas)
	return true
}
