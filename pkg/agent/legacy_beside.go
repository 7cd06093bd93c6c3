// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"time"

	"github.com/svcscope/svcscope/pkg/kernel"
	"github.com/svcscope/svcscope/pkg/ruleset"
)

// beside reads one table at a time in a goroutine of its own, with a reader of its
// own: the kernel copies a large one for a tenth of a second, and as long it takes
// to compare it with what was read before. What is cheap goes on being read
// meanwhile. All its methods are for one goroutine.
type beside struct {
	reader[legacyReader]
	table legacyTable     // the last one
	came  chan besideRead // its reading is to come; nil: there is none
	stats kernel.ReadStats
}

// besideRead is a reading that was made and taken over by the family's rules.
type besideRead struct {
	tableRead
	delta ruleset.Delta
	err   error
	done  time.Time
	stats kernel.ReadStats
}

// start begins to read a table of f, where none is being read. What f.follow has
// belongs to the reading until it has come.
func (b *beside) start(ctx context.Context, f *legacyFamily, name string) error {
	r, err := b.get()
	if err != nil {
		return err
	}
	came := make(chan besideRead, 1)
	b.table, b.came = legacyTable{f.set.Family, name}, came
	go func() {
		read, d, err := f.follows(ctx, r, name)
		came <- besideRead{tableRead: read, delta: d, err: err, done: time.Now(), stats: r.Stats()}
	}()
	return nil
}

func (b *beside) close() error {
	if b.came != nil {
		<-b.came
		b.came = nil
	}
	return b.reader.close()
}

// startBeside begins to read a table that takes long, and reports whether it did:
// where the ledger doubts what it was told of the family, all of that is to be read.
func (b *legacyBackend) startBeside(ctx context.Context, t legacyTable) (bool, error) {
	f := b.family(t.family)
	if f.look(t.name).cost <= dearLook || f.doubted || !f.familyRules.read {
		return false, nil
	}
	err := b.beside.start(ctx, f, t.name)
	f.away = err == nil
	return true, err
}

// arrive takes a reading that was made beside others.
func (b *legacyBackend) arrive(read besideRead) (legacyTable, error) {
	t := b.beside.table
	f := b.family(t.family)
	b.beside.came, b.beside.stats, f.away = nil, read.stats, false
	if read.err != nil {
		f.failed = f.failed || !read.end.IsZero()
		b.lock.skip(t)
		return t, read.err
	}
	f.used(&read.tableRead, read.delta, read.done)
	f.take([]ruleset.Delta{read.delta})
	f.sight[t.name] = read.end
	return t, nil
}

// arrived takes a reading that was made beside others and tells the ledger. Where
// it failed, the next sampling reads all of it, and says why if it cannot.
func (s *sampler) arrived(ctx context.Context, read besideRead) {
	t, err := s.legacy.arrive(read)
	if err == nil {
		s.xtables.watched.rewritten(t.family, []ruleset.Delta{read.delta})
		s.tell(ctx, s.xtables, time.Now())
	}
}

// settle waits for a reading that is being made: the next one may find its table
// rewritten.
func (s *sampler) settle(ctx context.Context) {
	if s.legacy.beside.came == nil {
		return
	}
	s.arrived(ctx, <-s.legacy.beside.came)
}
