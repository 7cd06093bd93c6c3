// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"cmp"
	"slices"
	"time"
)

// strong is the number of packets from which on those that counters begin with
// can't have passed new rules before the kernel told of them.
const strong = 16

// Commit adds what ended counters have counted to their end, and takes note of
// those that begin: from 0, or, where the commit replaces an equal rule and
// restores its counter, from the value that it has then. A source without a
// baseline is not counted.
func (l *Ledger) Commit(c Commit, now time.Time) {
	rd := l.begin(c.Source, now)
	defer rd.end()
	rd.commit = true
	finals := rd.ended(&c)
	nameless := rd.src.unnamed(External)
	for _, a := range rd.src.touched {
		cluster, external := a.split.finish(a, c.InFlight, nameless)
		rd.credit(a, cluster, external)
		if a.live[Connection]+a.live[External] == 0 && !nameless {
			rd.conclude(a)
		}
	}
	rd.begun(&c, finals)
}

// final is the end of a counter.
type final struct {
	handle uint64
	value  uint64
}

// ended credits and drops counters. It returns their finals, equal ones in the
// order of their rules, where some counter begins with packets.
func (rd *round) ended(cm *Commit) map[likeness][]final {
	var finals map[likeness][]final
	if slices.ContainsFunc(cm.Begun, func(k Counter) bool { return k.Packets > 0 }) {
		finals = make(map[likeness][]final)
	}
	for i := range cm.Ended {
		k := &cm.Ended[i]
		ch := rd.src.visit(ChainName{Table: k.ID.Table, Chain: k.Chain}, rd.round)
		c := ch.find(&k.ID)
		if c == nil || c.ended {
			c = rd.add(k, ch, i)
		}
		rd.bind(c, k)
		rd.finish(c, k, cm.InFlight)
		c.ended, ch.dirty = true, true
		if finals != nil {
			like := c.likeness()
			finals[like] = append(finals[like], final{handle: k.ID.RuleHandle, value: k.Packets})
		}
		rd.drop(c)
	}
	for _, ch := range rd.src.visits {
		if ch.dirty {
			ch.keep(func(c *counter) bool { return !c.ended })
		}
	}
	for _, fs := range finals {
		slices.SortStableFunc(fs, func(a, b final) int { return cmp.Compare(a.handle, b.handle) })
	}
	return finals
}

// finish takes a counter's final value.
func (rd *round) finish(c *counter, k *Counter, inFlight uint64) {
	a := c.account
	if !rd.src.baselined {
		return
	}
	if a.port == nil && !c.credited {
		rd.owe(c, k, inFlight)
		return
	}
	st := c.next(k.Packets, standing{}, rd.round)
	st = rd.own(c, st)
	if c.kind != Refusal {
		a.split.end(c.kind, st.delta)
	}
	rd.count(c, st.delta)
}

// restored is how the counters that begin in a table compare with the equal
// ones that end.
type restored struct{ before, after uint64 }

// whole reports whether the table was restored with its counters: these have
// at least half of the values that ended. What passes new rules before the
// kernel tells of them is next to nothing.
func (r restored) whole() bool { return r.after > 0 && r.after >= r.before-min(r.before, r.after) }

// pair is the end of the equal rule that a begun one replaces.
type pair struct {
	ok    bool
	final uint64
}

// match pairs the counters that begin with equal ones that end, both in the
// order of their rules. It returns those that have one, and the sums of each
// table.
func (rd *round) match(counters []Counter, finals map[likeness][]final) (paired []pair, tables map[string]restored) {
	if len(finals) == 0 {
		return nil, nil
	}
	order := make([]int, len(counters))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		return cmp.Compare(counters[a].ID.RuleHandle, counters[b].ID.RuleHandle)
	})
	paired, tables = make([]pair, len(counters)), make(map[string]restored)
	for _, i := range order {
		k := &counters[i]
		like := k.likeness(rd.src.visit(ChainName{Table: k.ID.Table, Chain: k.Chain}, rd.round))
		fs := finals[like]
		if len(fs) == 0 {
			continue
		}
		finals[like] = fs[1:]
		paired[i] = pair{ok: true, final: fs[0].value}
		t := tables[k.ID.Table]
		tables[k.ID.Table] = restored{t.before + fs[0].value, t.after + k.Packets}
	}
	return paired, tables
}

// begun adds the counters of new rules.
func (rd *round) begun(cm *Commit, finals map[likeness][]final) {
	paired, tables := rd.match(cm.Begun, finals)
	for i := range cm.Begun {
		k := &cm.Begun[i]
		ch := rd.src.visit(ChainName{Table: k.ID.Table, Chain: k.Chain}, rd.round)
		if ch.find(&k.ID) != nil {
			continue
		}
		c := rd.add(k, ch, i)
		rd.bind(c, k)
		c.credited = c.account.port != nil
		table, whole := tables[k.ID.Table], cm.Whole[k.ID.Table]
		var old pair
		if paired != nil {
			old = paired[i]
		}
		// Nothing tells which rule it was before whose port is not known now.
		nameless := k.Kind == Refusal && k.Port == Port{}
		saved := whole || old.ok && table.whole() || nameless
		if k.Packets == 0 || rd.src.baselined && !saved {
			continue
		}
		c.last, c.alive = k.Packets, rd.round
		if k.Kind != External {
			continue
		}
		// Some may be new packets after all.
		var early uint64
		if old.ok && k.Packets > old.final {
			early = k.Packets - old.final
		}
		if !whole && table.after <= strong {
			early = k.Packets
		}
		c.ahead += early
	}
	rd.tidy()
}
