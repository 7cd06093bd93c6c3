// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"runtime"
	"time"

	"github.com/svcscope/svcscope/pkg/correlate"
	"github.com/svcscope/svcscope/pkg/kernel"
	"github.com/svcscope/svcscope/pkg/ledger"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/nftables"
	"github.com/svcscope/svcscope/pkg/ruleset"
)

// notices is the state of listening to the commits of nf_tables.
type notices struct {
	open     func() (noticeSource, error)
	listener *listener // nil while not listening
	// base is false until a reading has come after joining, or after notices
	// were lost: what happened before it is not known from notices.
	base bool
	// from is the generation up to which commits are in the base, or told.
	from    uint32
	handles map[tableKey]uint64
	lost    uint64 // by listeners that are closed
	// missed is true where notices of what the newest reading shows were lost.
	missed bool
	// mute is true where this kernel's notices lack final values.
	mute bool
}

type tableKey struct {
	family netfilter.Family
	name   string
}

// errGap says that the commits that notices told of do not follow each other.
var errGap = errors.New("notices of nf_tables lack a commit")

// errMute says that a deleted rule came without its counter.
var errMute = errors.New("notices of nf_tables have no final counters in this kernel")

// join begins to listen. The next reading is the base.
func (n *notices) join() error {
	source, err := n.open()
	if err != nil {
		return err
	}
	n.listener, n.base = listenTo(source), false
	return nil
}

// leave ends it.
func (n *notices) leave() error {
	if n.listener == nil {
		return nil
	}
	n.lost += n.listener.lost()
	err := n.listener.close()
	n.listener, n.base = nil, false
	return err
}

// told counts what was lost.
func (n *notices) told() uint64 {
	if n.listener == nil {
		return n.lost
	}
	return n.lost + n.listener.lost()
}

// exact reports whether nothing but packets in flight at a rewrite is lost.
func (n *notices) exact() bool { return n.listener != nil && n.base && !n.mute && !n.missed }

// tell gives the ledger what commits have done up to the generation of the
// newest reading, which is to be applied next. It reports whether that reading
// is one of a listener: whatever is missing in it was told of.
func (b *nftablesBackend) tell(ctx context.Context, names *correlate.Names, use useCommit) (bool, error) {
	n := &b.notices
	n.missed = false
	switch {
	case n.listener == nil || !b.seen:
		return false, nil
	case !n.base: // all that was told so far is in the reading
		b.missed()
		n.rebase(b)
		return false, nil
	case int32(b.generation-n.from) <= 0:
		return true, nil
	}
	commits, err := n.listener.upTo(ctx, b.generation)
	whole := b.tellAll(commits, names, use)
	b.missed()
	if err == nil && (!whole || n.from != b.generation) {
		err = errGap
	}
	switch {
	case n.mute:
		return false, errors.Join(errMute, n.leave())
	case err == nil:
		return true, nil
	case errors.Is(err, kernel.ErrOverrun), errors.Is(err, errLate), errors.Is(err, errGap):
		n.rebase(b)
		n.missed = true
		return false, err
	}
	return false, errors.Join(err, n.leave())
}

// tellAll hands on commits that follow each other without a gap, and reports
// whether these were all. Those of before the base are left out.
func (b *nftablesBackend) tellAll(commits []commit, names *correlate.Names, use useCommit) (whole bool) {
	n := &b.notices
	for i := range commits {
		c := &commits[i]
		if int32(c.generation-n.from) <= 0 {
			continue
		}
		if c.partial || c.generation != after(n.from) {
			return false
		}
		b.write(c.writer, 1)
		n.mute = b.tellOne(c, names, use) || n.mute
		n.from = c.generation
	}
	return true
}

// after is the generation that follows one: the kernel leaves out 0.
func after(generation uint32) uint32 {
	if generation == 1<<32-1 {
		return 1
	}
	return generation + 1
}

// leave ends the listening. What has come until now is told: it is later than the
// newest reading, and would be lost with the listener.
func (b *nftablesBackend) leave(names *correlate.Names, use useCommit) error {
	l, base := b.notices.listener, b.notices.base
	err := b.notices.leave()
	if l != nil && base && b.seen {
		b.tellAll(l.rest(), names, use)
	}
	return err
}

// missed counts commits of which no notice told.
func (b *nftablesBackend) missed() {
	if missed := int32(b.generation - b.counted); missed > 0 {
		b.write(writerUnknown, uint32(missed))
	}
}

// rebase makes the newest reading the base.
func (n *notices) rebase(b *nftablesBackend) {
	n.base, n.from = true, b.generation
	n.handles = make(map[tableKey]uint64)
	for f, m := range b.mirrors {
		for _, t := range m.Ruleset().Tables {
			n.handles[tableKey{f, t.Name}] = t.Handle
		}
	}
}

// tellOne hands on one commit. It returns true where a final value is missing.
func (b *nftablesBackend) tellOne(c *commit, names *correlate.Names, use useCommit) (mute bool) {
	for _, f := range tableFamilies() {
		ended, begun := newFragment(f), newFragment(f)
		for i := range c.notices {
			n := &c.notices[i]
			if n.Family != f {
				continue
			}
			// A rule of the same handle may stand at the old value again.
			b.known[f].touch(n.Table, n.Chain)
			key := tableKey{f, n.Table}
			switch n.Kind {
			case nftables.NewTable:
				b.notices.handles[key] = n.TableHandle
			case nftables.DelRule:
				// A rule of iptables has a counter, of others some have.
				mute = mute || !n.HasCounter && ofIPTables(f, n.Table)
				ended.add(n, b.notices.handles[key])
			case nftables.NewRule:
				begun.add(n, b.notices.handles[key])
			}
		}
		if len(ended.set.Tables)+len(begun.set.Tables) == 0 {
			continue
		}
		known := b.known[f]
		endedPart, begunPart := correlate.PartOf(ended.set, known.rules.View), correlate.PartOf(begun.set, known.rules.View)
		out := ledger.Commit{
			Source: known.source,
			Ended:  endedPart.Counters(names), Begun: begunPart.Counters(names),
			// A packet a CPU, and one that preempted it.
			InFlight: 2 * uint64(runtime.NumCPU()),
			Whole:    make(map[string]bool),
		}
		for key := range c.whole {
			if key.family == f {
				out.Whole[key.name] = true
			}
		}
		b.wroteChains(c, f)
		use(out, correlate.RefusedCommit(out, endedPart, begunPart, &known.refused.rules, names))
	}
	return mute
}

// wroteChains has the history know who wrote the rules that a commit made.
func (b *nftablesBackend) wroteChains(c *commit, f netfilter.Family) {
	var chains []string
	for i := range c.notices {
		n := &c.notices[i]
		if n.Family == f && n.Table == "nat" && n.Chain != "" && (len(chains) == 0 || chains[len(chains)-1] != n.Chain) {
			chains = append(chains, n.Chain)
		}
	}
	b.known[f].history.wrote(c.writer, f, chains, time.Now().Add(-noticeTime))
}

// fragment is some rules out of a ruleset, as notices bring them.
type fragment struct {
	set     *ruleset.Ruleset
	chains  map[chainKey]*ruleset.Chain
	convert *ruleset.Converter
}

type chainKey struct {
	table  string
	handle uint64
	chain  string
}

func newFragment(f netfilter.Family) *fragment {
	return &fragment{
		set:    &ruleset.Ruleset{Backend: ruleset.NFT, Family: f},
		chains: make(map[chainKey]*ruleset.Chain), convert: ruleset.NewConverter(f),
	}
}

// add takes the rule of a notice. One that cannot be decoded is left out: the
// next reading counts it among what is not.
func (f *fragment) add(n *nftables.Notice, tableHandle uint64) {
	decoded, err := nftables.DecodeRule(n.Payload)
	if err != nil {
		return
	}
	rule := f.convert.NFTRule(&decoded)
	key := chainKey{n.Table, tableHandle, n.Chain}
	c := f.chains[key]
	if c == nil {
		c = &ruleset.Chain{Name: n.Chain}
		f.chains[key] = c
		t := f.table(n.Table, tableHandle)
		t.Chains = append(t.Chains, c)
	}
	c.Rules = append(c.Rules, rule)
}

func (f *fragment) table(name string, handle uint64) *ruleset.Table {
	for _, t := range f.set.Tables {
		if t.Name == name && t.Handle == handle {
			return t
		}
	}
	t := &ruleset.Table{Name: name, Handle: handle}
	f.set.Tables = append(f.set.Tables, t)
	return t
}
