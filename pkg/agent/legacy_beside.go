// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"time"

	"github.com/svcscope/svcscope/pkg/kernel"
)

// beside reads a family with a table that takes long in a goroutine of its own, one
// reading at a time, with readers of its own: the kernel copies such a table for a
// tenth of a second, as long it takes to compare it with what was read before, and as
// long any other table of the family waits while the kernel copies it to its
// writer. What is of the other family goes on being read.
type beside struct {
	reader[legacyReader]
	side  reader[legacyReader] // for what is read while the first holds a table
	dear  bool                 // it reads a table that takes long
	stats kernel.ReadStats
}

// besideRead is a reading that was made and taken over by the family's rules.
type besideRead struct {
	reading
	family *legacyFamily
	asked  legacyTable
	stats  kernel.ReadStats
}

// start begins to read a table of a family that is not away, or all of them.
func (f *legacyFamily) start(ctx context.Context, t legacyTable, all bool, came chan<- besideRead) error {
	r, err := f.beside.get()
	side, err2 := f.side.get()
	if err := errors.Join(err, err2); err != nil {
		return err
	}
	f.away, f.dear = true, all || f.dearTable(t.name)
	var first []string
	if f.dear && !all {
		first = f.cheapTables()
	}
	go func() {
		read := besideRead{family: f, asked: t}
		if all {
			read.reading = f.readAll(ctx, r, func(string) bool { return false })
		} else {
			// Its writer waited for the mutex of the family, most likely, and is about
			// to write what is cheap.
			var failed error
			err := f.table(ctx, r, t.name, &read.reading, func() {
				for _, name := range first {
					if err := f.table(ctx, side, name, &read.reading, nil); err != nil && read.begun {
						failed = errors.Join(failed, err)
					}
				}
			})
			read.err = errors.Join(err, failed)
		}
		read.stats = r.Stats()
		addStats(&read.stats, side.Stats())
		came <- read
	}()
	return nil
}

func addStats(sum *kernel.ReadStats, n kernel.ReadStats) {
	sum.Bytes += n.Bytes
	sum.Messages += n.Messages
	sum.Interrupted += n.Interrupted
}

func (b *beside) close() error { return errors.Join(b.reader.close(), b.side.close()) }

// dearTable reports whether a table takes long to read.
func (f *legacyFamily) dearTable(name string) bool { return f.look(name).cost > dearLook }

// slow reports whether some table of the family does.
func (f *legacyFamily) slow() bool {
	for _, l := range f.looks {
		if l.cost > dearLook {
			return true
		}
	}
	return false
}

// cheapTables are those where kube-proxy counts that take next to nothing.
func (f *legacyFamily) cheapTables() (names []string) {
	for _, name := range []string{"filter", "nat"} {
		if l := f.looks[name]; l != nil && 0 < l.cost && l.cost <= cheap {
			names = append(names, name)
		}
	}
	return names
}

// startBeside begins to read a table beside others, and reports whether it did: where
// the ledger doubts what it was told of the family, all of that.
func (b *legacyBackend) startBeside(ctx context.Context, t legacyTable) (bool, error) {
	f := b.family(t.family)
	if f == nil || !f.familyRules.read || !f.slow() {
		return false, nil
	}
	return true, f.start(ctx, t, f.doubted, b.came)
}

// reads reports whether readings are being made beside others.
func (b *legacyBackend) reads() bool {
	for _, f := range b.known {
		if f.away {
			return true
		}
	}
	return false
}

// arrive takes a reading that was made beside others.
func (b *legacyBackend) arrive(read *besideRead) error {
	f := read.family
	f.away, f.dear = false, false
	f.beside.stats = read.stats
	if err := f.use(&read.reading); err != nil {
		b.lock.skip(read.asked)
		return err
	}
	return nil
}

// arrived takes a reading that was made beside others and tells the ledger. Where
// it failed, the next sampling reads all of it, and says why if it cannot.
func (s *sampler) arrived(ctx context.Context, read besideRead) {
	if err := s.legacy.arrive(&read); err == nil {
		s.xtables.watched.rewritten(read.asked.family, read.deltas())
		s.tell(ctx, s.xtables, time.Now())
	}
}

// settle waits for the readings that are being made: the next one may find their
// tables rewritten.
func (s *sampler) settle(ctx context.Context) {
	for s.legacy.reads() {
		s.arrived(ctx, <-s.legacy.came)
	}
}
