// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"time"

	"github.com/svcscope/svcscope/pkg/kernel"
	"github.com/svcscope/svcscope/pkg/netfilter/xtables"
	"github.com/svcscope/svcscope/pkg/ruleset"
)

// reading is what was read of a family at once: its rules have it, and nobody was
// told yet. It is made with nothing of the family but follow, by whatever goroutine,
// and taken by use.
type reading struct {
	tables []tableReading
	gone   []ruleset.Delta // of tables that are not there any more
	err    error           // the first one; tables has what was read before
	begun  bool            // follow has taken something, a part perhaps
}

type tableReading struct {
	tableRead
	delta ruleset.Delta
	done  time.Time // when follow had it
}

// table reads a table and brings follow up to date. meanwhile, where it is not nil,
// is called when the kernel has given the table.
func (f *legacyFamily) table(ctx context.Context, r legacyReader, name string, out *reading, meanwhile func()) error {
	t := tableReading{tableRead: tableRead{table: legacyTable{f.set.Family, name}, begin: time.Now()}}
	err := r.Read(ctx, f.set.Family, name, func(x *xtables.Table) (err error) {
		t.end = time.Now()
		if meanwhile != nil {
			meanwhile()
		}
		out.begun = true
		t.delta, err = f.follow.Update(x)
		return err
	})
	if err == nil {
		t.done = time.Now()
		out.tables = append(out.tables, t)
	}
	return err
}

// readAll reads the tables of the family, but for those that skip names.
func (f *legacyFamily) readAll(ctx context.Context, r legacyReader, skip func(name string) bool) (out reading) {
	names, err := r.Tables(ctx, f.set.Family)
	if err != nil && !errors.Is(err, kernel.ErrAbsent) {
		return reading{err: err}
	}
	out.gone = f.follow.Exist(names)
	for _, name := range names {
		if skip(name) {
			continue
		}
		err := f.table(ctx, r, name, &out, nil)
		if err != nil && !errors.Is(err, kernel.ErrAbsent) { // it may have gone since
			out.err, out.begun = err, true
			return out
		}
	}
	return out
}

// use takes a reading, and makes it count unless it failed.
func (f *legacyFamily) use(r *reading) error {
	deltas := r.gone
	for i := range r.tables {
		t := &r.tables[i]
		f.used(t)
		deltas = append(deltas, t.delta)
	}
	if r.err != nil {
		f.failed = f.failed || r.begun
		return r.err
	}
	f.take(deltas)
	for i := range r.tables {
		t := &r.tables[i]
		f.sight[t.table.name] = t.begin // as sessionTable.good
		if t.table.name == "nat" {
			f.at = t.begin
		}
		f.rests(t.table.name, t.done)
	}
	return nil
}

// used notes what the reading of a table cost, and what it found.
func (f *legacyFamily) used(t *tableReading) {
	l := f.look(t.table.name)
	spend(&l.cost, t.done.Sub(t.begin))
	l.read = t.end
	t.changed = !t.delta.Same() || t.delta.Fell
	f.counters.Writing(t.table.name, f.lock.read(t.tableRead))
}

// deltas are those of the tables that were read.
func (r *reading) deltas() []ruleset.Delta {
	var all []ruleset.Delta
	for i := range r.tables {
		all = append(all, r.tables[i].delta)
	}
	return all
}
