// SPDX-License-Identifier: Apache-2.0

package xtables

import (
	"fmt"

	"github.com/svcscope/svcscope/pkg/netfilter"
)

// Table is one table as the kernel holds it: a view of the bytes that
// IPT_SO_GET_ENTRIES gives. It is good for as long as these are not changed.
type Table struct {
	Family netfilter.Family
	Name   string

	info   Info
	blob   []byte
	layout layout
}

// NewTable returns the view of a table's entries (struct ipt_entry or
// ip6t_entry, one after the other). It keeps blob, and looks at its length
// only.
func NewTable(family netfilter.Family, info Info, blob []byte) (*Table, error) {
	l, ok := layoutOf(family)
	if !ok {
		return nil, fmt.Errorf("x_tables of family %v are not decoded", family)
	}
	if uint64(len(blob)) != uint64(info.Size) {
		return nil, fmt.Errorf("ipt_getinfo says %d bytes of entries, have %d", info.Size, len(blob))
	}
	return &Table{Family: family, Name: info.Name, info: info, blob: blob, layout: l}, nil
}

// Walk calls visit with each chain, in the blob's order: the built-in ones by
// hook, then the others, which iptables sorts by name. The Chain is good until
// visit returns. Walk allocates nothing per entry or chain.
//
// Of a chain that is not asked for its rules only the frame is looked at: where
// its entries begin and end. Errors name the structure and its offset, and
// leave the table's name to the caller; visit's own end the walk. Chains that
// call each other in a circle, which the kernel refuses, are not looked for.
func (t *Table) Walk(visit func(*Chain) error) error {
	w := walk{t: t, visit: visit, chain: Chain{table: t}}
	return w.run()
}

// walk is the state of one pass over the entries.
type walk struct {
	t       *Table
	visit   func(*Chain) error
	chain   Chain // that we are in
	open    bool  // we are in one
	entries int
	hooks   int  // built-in chains met
	ended   bool // the table's end was met
}

func (w *walk) run() error {
	t, l := w.t, &w.t.layout
	for off := 0; off < len(t.blob); {
		e, err := l.frame(t.blob, off)
		if err != nil {
			return err
		}
		if w.ended {
			return fmt.Errorf("%s at offset %d: behind the table's end", l.entry, off)
		}
		if err := w.entry(e); err != nil {
			return err
		}
		w.entries++
		off = e.next
	}
	valid := 0
	for h := range netfilter.NumHooks {
		valid += int(t.info.ValidHooks >> h & 1)
	}
	switch {
	case !w.ended:
		return fmt.Errorf("%s at offset %d: entries end without the table's end", l.entry, len(t.blob))
	case w.hooks != valid:
		return fmt.Errorf("ipt_getinfo: %d of %d hook_entry offsets are those of entries", w.hooks, valid)
	case w.entries != int(t.info.NumEntries):
		return fmt.Errorf("ipt_getinfo says %d entries, have %d", t.info.NumEntries, w.entries)
	}
	return nil
}

// entry adds an entry to the chain it belongs to.
func (w *walk) entry(e entry) error {
	if h, ok := w.hookAt(e.off); ok {
		if w.open {
			return w.wrong(e, "begins %v inside another chain", h)
		}
		w.begin(nil, e.off)
		c := &w.chain
		c.Name, c.Builtin, c.Hook = append(c.store[:0], h.String()...), true, h
		w.hooks++
	}
	if e.kind == kindError {
		return w.head(e)
	}
	if !w.open {
		return w.wrong(e, "is in no chain")
	}
	c := &w.chain
	c.digest.entry(w.t, e)
	c.end = e.off
	if c.Builtin && e.off == int(w.t.info.Underflow[c.Hook]) {
		return w.finish()
	}
	c.Len++
	return nil
}

// hookAt returns the hook whose built-in chain begins at off.
func (w *walk) hookAt(off int) (netfilter.Hook, bool) {
	if w.hooks == netfilter.NumHooks {
		return 0, false
	}
	for h := range netfilter.NumHooks {
		if w.t.info.ValidHooks>>h&1 != 0 && int(w.t.info.HookEntry[h]) == off {
			return netfilter.Hook(h), true
		}
	}
	return 0, false
}

// head deals with an ERROR target: the head of a user chain, which ends the
// one before it, or the table's end.
func (w *walk) head(e entry) error {
	if w.open {
		c := &w.chain
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
	name, ok := cstr(w.t.blob[e.target+extHeader : e.target+extHeader+30])
	if !ok {
		return fmt.Errorf("xt_error_target at offset %d: errorname has no end", e.target)
	}
	if e.next == len(w.t.blob) {
		w.ended = true
		if string(name) != "ERROR" {
			return w.wrong(e, "ends the table with the name %q", name)
		}
		return nil
	}
	if e.next-e.off != w.t.layout.headLen() {
		return w.wrong(e, "is the head of chain %s and has %d bytes", name, e.next-e.off)
	}
	w.begin(name, e.next)
	return nil
}

func (w *walk) begin(name []byte, start int) {
	c := &w.chain
	c.Name, c.Builtin, c.Len, c.start, c.checked = name, false, 0, start, false
	c.digest = digest{}
	w.open = true
}

// finish closes the open chain, whose end is its last entry.
func (w *walk) finish() error {
	w.open = false
	w.chain.Digest = w.chain.digest.sum()
	return w.visit(&w.chain)
}

func (w *walk) wrong(e entry, format string, args ...any) error {
	return w.t.layout.wrong(e.off, format, args...)
}

func (l *layout) wrong(off int, format string, args ...any) error {
	return fmt.Errorf("%s at offset %d %s", l.entry, off, fmt.Sprintf(format, args...))
}
