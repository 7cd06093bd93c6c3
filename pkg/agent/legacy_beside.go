// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"time"

	"github.com/svcscope/svcscope/pkg/kernel"
	"github.com/svcscope/svcscope/pkg/netfilter/xtables"
	"github.com/svcscope/svcscope/pkg/ruleset"
)

// beside reads one table at a time in a goroutine of its own, with a reader of its
// own: the kernel copies a large one for a tenth of a second, in which what is cheap
// goes on being read. All its methods are for one goroutine.
type beside struct {
	reader[legacyReader]
	table legacyTable     // the last one
	came  chan besideRead // its reading is to come; nil: there is none
	free  chan struct{}   // closed when the reader is not used any more; nil before the first reading
	stats kernel.ReadStats
}

// besideRead is a reading that has come.
type besideRead struct {
	begin, end time.Time
	table      *xtables.Table // nil after an error
	err        error
	stats      kernel.ReadStats
	done       chan<- struct{} // to be closed when the table was used
}

// start begins to read a table, where none is being read.
func (b *beside) start(ctx context.Context, t legacyTable) error {
	r, err := b.get()
	if err != nil {
		return err
	}
	b.wait()
	came, free := make(chan besideRead), make(chan struct{})
	b.table, b.came, b.free = t, came, free
	go func() {
		defer close(free)
		if err := readBeside(ctx, r, t, came); err != nil {
			select {
			case came <- besideRead{err: err, stats: r.Stats()}:
			case <-ctx.Done():
			}
		}
	}()
	return nil
}

// readBeside hands a table on, and returns when it was used.
func readBeside(ctx context.Context, r legacyReader, t legacyTable, came chan<- besideRead) error {
	begin := time.Now()
	return r.Read(ctx, t.family, t.name, func(table *xtables.Table) error {
		done := make(chan struct{})
		select {
		case came <- besideRead{begin: begin, end: time.Now(), table: table, stats: r.Stats(), done: done}:
			<-done
		case <-ctx.Done():
		}
		return nil
	})
}

// wait waits until the reader is free.
func (b *beside) wait() {
	if b.free != nil {
		<-b.free
	}
}

func (b *beside) close() error {
	b.wait()
	return b.reader.close()
}

// startBeside begins to read a table that takes long, and reports whether it did:
// where the ledger doubts what it was told of the family, all of that is to be read.
func (b *legacyBackend) startBeside(ctx context.Context, t legacyTable) (bool, error) {
	f := b.family(t.family)
	if f.look(t.name).cost <= dearLook || f.doubted || !f.familyRules.read {
		return false, nil
	}
	return true, b.beside.start(ctx, t)
}

// arrive takes a reading that was made beside others.
func (b *legacyBackend) arrive(read besideRead) (legacyTable, ruleset.Delta, error) {
	t := b.beside.table
	b.beside.came, b.beside.stats = nil, read.stats
	f := b.family(t.family)
	d, err := f.arrive(read, t.name)
	if err != nil {
		b.lock.skip(t)
		return t, d, err
	}
	f.take([]ruleset.Delta{d})
	f.sight[t.name] = read.end
	return t, d, nil
}

func (f *legacyFamily) arrive(read besideRead, name string) (ruleset.Delta, error) {
	if read.table == nil {
		return ruleset.Delta{Table: name}, read.err
	}
	defer close(read.done)
	return f.use(tableRead{table: legacyTable{f.set.Family, name}, begin: read.begin, end: read.end}, read.table)
}

// arrived takes a reading that was made beside others and tells the ledger. Where
// it failed, the next sampling reads all of it, and says why if it cannot.
func (s *sampler) arrived(ctx context.Context, read besideRead) {
	t, d, err := s.legacy.arrive(read)
	if err == nil {
		s.xtables.watched.rewritten(t.family, []ruleset.Delta{d})
		s.tell(ctx, s.xtables, time.Now())
	}
}

// settle waits for a reading that is being made: the next one may find its table
// rewritten.
func (s *sampler) settle(ctx context.Context) {
	if s.legacy.beside.came == nil {
		return
	}
	select {
	case read := <-s.legacy.beside.came:
		s.arrived(ctx, read)
	case <-ctx.Done():
	}
}
