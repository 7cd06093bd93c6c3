// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"cmp"
	"slices"
	"time"
)

// strong is the number of packets from which counters that begin with packets
// show that their table was restored.
const strong = 16

// Commit adds what ended counters have counted to their end, and takes note of
// those that begin: from 0, or, where the commit replaces an equal rule and
// restores its counter, from the value that it has then. A source without a
// baseline is not counted.
func (l *Ledger) Commit(c Commit, now time.Time) {
	rd := l.begin(c.Source, now)
	defer rd.end()
	finals := rd.ended(c.Ended, len(c.Begun) > 0)
	for _, a := range rd.src.touched {
		cluster, external := a.split.finish(a, c.InFlight)
		rd.credit(a, cluster, external)
	}
	rd.begun(c.Begun, finals)
}

// final is the end of a counter.
type final struct {
	handle uint64
	value  uint64
}

// ended credits and drops counters. It returns their finals, equal ones in the
// order of their rules, if asked to.
func (rd *round) ended(counters []Counter, wanted bool) map[likeness][]final {
	finals := make(map[likeness][]final)
	for i := range counters {
		k := &counters[i]
		ch := rd.src.visit(ChainName{Table: k.ID.Table, Chain: k.Chain}, rd.round)
		c := ch.find(&k.ID)
		if c == nil || c.ended {
			c = rd.add(k, ch, i)
		}
		rd.bind(c, k)
		rd.finish(c, k.Packets)
		c.ended, ch.dirty = true, true
		rd.drop(c)
		if wanted {
			like := c.likeness()
			finals[like] = append(finals[like], final{handle: k.ID.RuleHandle, value: k.Packets})
		}
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
func (rd *round) finish(c *counter, value uint64) {
	a := c.account
	if !rd.src.baselined || a.port == nil && !c.credited {
		return
	}
	st := c.next(value, 0, rd.round)
	st = rd.before(c, st)
	if c.kind != Refusal {
		a.split.end(c.kind, st.delta)
	}
	rd.pay(c, st.delta)
}

// begun adds the counters of new rules.
func (rd *round) begun(counters []Counter, finals map[likeness][]final) {
	order := make([]int, len(counters))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		return cmp.Compare(counters[a].ID.RuleHandle, counters[b].ID.RuleHandle)
	})
	olds := make([]uint64, len(counters)) // final values of the equal rules
	var before, after map[string]uint64
	for _, i := range order {
		k := &counters[i]
		if k.Packets == 0 {
			continue
		}
		ch := rd.src.visit(ChainName{Table: k.ID.Table, Chain: k.Chain}, rd.round)
		like := k.likeness(ch)
		fs := finals[like]
		if len(fs) == 0 {
			continue
		}
		finals[like] = fs[1:]
		olds[i] = fs[0].value
		if before == nil {
			before, after = make(map[string]uint64), make(map[string]uint64)
		}
		before[k.ID.Table] += fs[0].value
		after[k.ID.Table] += k.Packets
	}
	for i := range counters {
		k := &counters[i]
		ch := rd.src.visit(ChainName{Table: k.ID.Table, Chain: k.Chain}, rd.round)
		if ch.find(&k.ID) != nil {
			continue
		}
		c := rd.add(k, ch, i)
		rd.bind(c, k)
		t := k.ID.Table
		whole := after[t] > strong && after[t] >= before[t]-after[t]
		if !rd.src.baselined || olds[i] > 0 && (whole || k.Packets >= olds[i]-min(olds[i], k.Packets)) {
			c.last = k.Packets
		}
		if c.last > 0 {
			c.alive = rd.round
		}
	}
	rd.tidy()
}
