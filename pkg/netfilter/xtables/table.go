// SPDX-License-Identifier: Apache-2.0

package xtables

import (
	"fmt"
	"slices"

	"github.com/svcscope/svcscope/pkg/netfilter"
)

// Table is one table as the kernel holds it. It refers to the blob that it was
// decoded from: it is good for as long as that one is not changed.
type Table struct {
	Family netfilter.Family
	Name   string
	Chains []Chain // in the blob's order: the built-in ones by hook, then the others by name
	// Entries counts what the kernel counts as num_entries: the rules, and for
	// each chain its end and, of a user chain, its head; and the table's end.
	Entries int

	blob   []byte
	layout layout
	jumps  []jump // in the blob's order
}

// jump is an entry whose target is a chain.
type jump struct {
	off uint32 // of the entry
	to  uint32 // first the verdict, an offset; then the index in Table.Chains
}

// Chain is one chain of a table.
type Chain struct {
	Name    string
	Builtin bool
	Hook    netfilter.Hook // of a built-in chain
	// Policy is VerdictAccept or VerdictDrop; VerdictReturn in a user chain.
	Policy Verdict
	// Counter counts the packets that reached the chain's end. Every change
	// of a table by iptables sets that of built-in chains to zero.
	Counter netfilter.Counter
	Len     int // number of rules

	table      *Table
	start, end int // offsets of the first rule and of the entry behind the last
	jumps      int // index in Table.jumps of the chain's first
}

// Chain returns the chain of that name, or nil. It looks at all of them.
func (t *Table) Chain(name string) *Chain {
	for i := range t.Chains {
		if t.Chains[i].Name == name {
			return &t.Chains[i]
		}
	}
	return nil
}

// Decode checks the entries of a table (struct ipt_entry or ip6t_entry, one
// after the other, as IPT_SO_GET_ENTRIES gives them) and forms its chains. It
// keeps blob. The error names the structure and its offset, and the table's
// name is left to the caller; chains that call each other in a circle, which
// the kernel refuses, are not looked for.
func Decode(family netfilter.Family, info Info, blob []byte) (*Table, error) {
	l, ok := layoutOf(family)
	if !ok {
		return nil, fmt.Errorf("x_tables of family %v are not decoded", family)
	}
	if uint64(len(blob)) != uint64(info.Size) {
		return nil, fmt.Errorf("ipt_getinfo says %d bytes of entries, have %d", info.Size, len(blob))
	}
	t := &Table{Family: family, Name: info.Name, blob: blob, layout: l}
	// A guess that the blob bounds: kube-proxy's chains have two rules or so.
	most := min(len(blob)/(2*l.size), int(info.NumEntries))
	t.Chains, t.jumps = make([]Chain, 0, most/4+1), make([]jump, 0, most/4+1)
	w := walk{t: t, info: &info, open: -1}
	if err := w.run(); err != nil {
		return nil, err
	}
	if err := t.resolveJumps(); err != nil {
		return nil, err
	}
	return t, nil
}

// walk is the state of one pass over the entries.
type walk struct {
	t     *Table
	info  *Info
	open  int   // index of the chain that we are in, or -1
	last  entry // the last entry in it
	hooks int   // built-in chains met
	ended bool  // the table's end was met
}

func (w *walk) run() error {
	t, l := w.t, &w.t.layout
	for off := 0; off < len(t.blob); {
		e, err := l.scanEntry(t.blob, off)
		if err != nil {
			return err
		}
		if w.ended {
			return fmt.Errorf("%s at offset %d: behind the table's end", l.entry, off)
		}
		if err := w.visit(e); err != nil {
			return err
		}
		t.Entries++
		off = e.next
	}
	valid := 0
	for h := range netfilter.NumHooks {
		valid += int(w.info.ValidHooks >> h & 1)
	}
	switch {
	case !w.ended:
		return fmt.Errorf("%s at offset %d: entries end without the table's end", l.entry, len(t.blob))
	case w.hooks != valid:
		return fmt.Errorf("ipt_getinfo: %d of %d hook_entry offsets are those of entries", w.hooks, valid)
	case t.Entries != int(w.info.NumEntries):
		return fmt.Errorf("ipt_getinfo says %d entries, have %d", w.info.NumEntries, t.Entries)
	}
	return nil
}

// visit adds an entry to the chain it belongs to.
func (w *walk) visit(e entry) error {
	if h, ok := w.hookAt(e.off); ok {
		if w.open >= 0 {
			return w.wrong(e, "begins %v inside another chain", h)
		}
		w.begin(Chain{Name: h.String(), Builtin: true, Hook: h, start: e.off})
		w.hooks++
	}
	if e.kind == kindError {
		return w.head(e)
	}
	if w.open < 0 {
		return w.wrong(e, "is in no chain")
	}
	c := &w.t.Chains[w.open]
	w.last = e
	if c.Builtin && e.off == int(w.info.Underflow[c.Hook]) {
		return w.finish()
	}
	c.Len++
	if e.kind != kindStandard {
		return nil
	}
	switch v := e.verdict(w.t.blob); {
	case v == VerdictDrop, v == VerdictAccept, v == VerdictQueue, v == VerdictReturn:
	case v < 0:
		return w.wrong(e, "has verdict %d", v)
	case int(v) != e.next:
		w.t.jumps = append(w.t.jumps, jump{off: uint32(e.off), to: uint32(v)})
	}
	return nil
}

// hookAt returns the hook whose built-in chain begins at off.
func (w *walk) hookAt(off int) (netfilter.Hook, bool) {
	if w.hooks == netfilter.NumHooks {
		return 0, false
	}
	for h := range netfilter.NumHooks {
		if w.info.ValidHooks>>h&1 != 0 && int(w.info.HookEntry[h]) == off {
			return netfilter.Hook(h), true
		}
	}
	return 0, false
}

// head deals with an ERROR target: the head of a user chain, which ends the
// one before it, or the table's end.
func (w *walk) head(e entry) error {
	if w.open >= 0 {
		c := &w.t.Chains[w.open]
		if c.Builtin {
			return w.wrong(e, "is an ERROR target in %s", c.Name)
		}
		if c.Len == 0 {
			return w.wrong(e, "follows the head of chain %s, which has no end", c.Name)
		}
		c.Len-- // its end is no rule
		if err := w.finish(); err != nil {
			return err
		}
	}
	name := str(w.t.blob[e.target+extHeader : e.target+extHeader+30])
	if e.next == len(w.t.blob) {
		w.ended = true
		if name != "ERROR" {
			return w.wrong(e, "ends the table with the name %q", name)
		}
		return nil
	}
	w.begin(Chain{Name: name, start: e.next})
	return nil
}

func (w *walk) begin(c Chain) {
	c.table, c.jumps = w.t, len(w.t.jumps)
	w.t.Chains = append(w.t.Chains, c)
	w.open = len(w.t.Chains) - 1
}

// finish closes the open chain; its last entry is its end.
func (w *walk) finish() error {
	c, e, blob := &w.t.Chains[w.open], w.last, w.t.blob
	v := VerdictReturn
	if e.kind == kindStandard {
		v = e.verdict(blob)
	}
	isPolicy := v == VerdictAccept || v == VerdictDrop
	if e.kind != kindStandard || isPolicy != c.Builtin || !isPolicy && v != VerdictReturn ||
		!w.t.layout.unconditional(blob, e) {
		return w.wrong(e, "is no end of chain %s", c.Name)
	}
	c.end, c.Policy = e.off, v
	c.Counter = w.t.layout.counter(blob, e.off)
	w.open = -1
	return nil
}

func (w *walk) wrong(e entry, format string, args ...any) error {
	return fmt.Errorf("%s at offset %d %s", w.t.layout.entry, e.off, fmt.Sprintf(format, args...))
}

// resolveJumps turns the offsets of jumps into chains: that of a chain's first
// entry behind its head. Chains lie in the order of their offsets.
func (t *Table) resolveJumps() error {
	starts := make([]uint32, len(t.Chains))
	for i := range t.Chains {
		starts[i] = uint32(t.Chains[i].start)
	}
	for i := range t.jumps {
		j := &t.jumps[i]
		at, ok := slices.BinarySearch(starts, j.to)
		if !ok || t.Chains[at].Builtin {
			return fmt.Errorf("%s at offset %d: verdict %d is no chain's first entry",
				t.layout.entry, j.off, j.to)
		}
		j.to = uint32(at)
	}
	return nil
}
