// SPDX-License-Identifier: Apache-2.0

package xtables

import (
	"iter"

	"github.com/svcscope/svcscope/pkg/netfilter"
)

// Chain is one chain of a table, as Table.Walk shows it.
type Chain struct {
	Name    []byte // refers to the table's bytes or to the Chain
	Builtin bool
	Hook    netfilter.Hook // of a built-in chain
	Len     int            // number of rules
	// Digest is over all that the rules and the policy say, counters left
	// out: two chains of one family and the same Digest hold the same rules
	// in the same order, wherever they lie in the blob. It is of use within
	// the process that made it. The name is not part of it.
	Digest uint64

	table      *Table
	start, end int // offsets of the first entry and of the last, which is no rule
	digest     digest
	checked    bool
	store      [len("POSTROUTING")]byte // Name of a built-in chain
}

// Policy is VerdictAccept or VerdictDrop; VerdictReturn in a user chain. The
// chain must have passed Check.
func (c *Chain) Policy() Verdict {
	return Verdict(int32(u32(c.table.blob, c.end+c.table.targetOffset(c.end)+extHeader)))
}

// Counter counts the packets that reached the chain's end. Every change of a
// table by iptables sets that of built-in chains to zero.
func (c *Chain) Counter() netfilter.Counter { return c.table.layout.counter(c.table.blob, c.end) }

// Counters calls use with the counter of each rule, i counting from 0. It
// needs no Check.
func (c *Chain) Counters(use func(i int, n netfilter.Counter)) {
	t, off := c.table, c.start
	for i := range c.Len {
		use(i, t.layout.counter(t.blob, off))
		step := t.nextOffset(off)
		// Walk has checked it; a table used after its time must not loop.
		if step == 0 {
			return
		}
		off += step
	}
}

// Check checks all that the rules' views rely on. A chain whose Digest is that
// of one that has passed needs none.
func (c *Chain) Check() error {
	t, l := c.table, &c.table.layout
	var e entry
	for off := c.start; off <= c.end; off = e.next {
		var err error
		if e, err = l.scanEntry(t.blob, off); err != nil {
			return err
		}
		if e.kind != kindStandard {
			continue
		}
		switch v := e.verdict(t.blob); {
		case v == VerdictDrop, v == VerdictAccept, v == VerdictQueue, v == VerdictReturn, int(v) == e.next && off < c.end:
		case v < 0:
			return l.wrong(off, "has verdict %d", v)
		default:
			if _, ok := t.chainAt(int(v)); !ok {
				return l.wrong(off, "has verdict %d, which is no chain's first entry", v)
			}
		}
	}
	v := e.verdict(t.blob)
	isPolicy := v == VerdictAccept || v == VerdictDrop
	if e.off != c.end || e.kind != kindStandard || isPolicy != c.Builtin || !isPolicy && v != VerdictReturn ||
		!l.unconditional(t.blob, e) {
		return l.wrong(e.off, "is no end of chain %s", c.Name)
	}
	c.checked = true
	return nil
}

// Rules yields the chain's rules in order; none before Check has passed.
func (c *Chain) Rules() iter.Seq[Rule] {
	return func(yield func(Rule) bool) {
		step := 0
		for off := c.start; c.checked && off < c.end; off += step {
			// Check has checked it; a table used after its time must not loop.
			if step = c.table.nextOffset(off); step == 0 || !yield(Rule{t: c.table, off: off}) {
				return
			}
		}
	}
}

// chainAt returns the name of the user chain whose first entry is at off: the
// entry before it is the chain's head.
func (t *Table) chainAt(off int) (name []byte, ok bool) {
	l := &t.layout
	head := off - l.headLen()
	if head < 0 || off >= len(t.blob) {
		return nil, false
	}
	b := t.blob[head:off]
	target := b[l.size:]
	if int(u16(b, l.offsets)) != l.size || int(u16(b, l.offsets+2)) != len(b) ||
		int(u16(target, 0)) < errorLen || string(target[2:8]) != "ERROR\x00" {
		return nil, false
	}
	return cstr(target[extHeader : extHeader+30])
}
