// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"context"
	"slices"

	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/nftables"
)

// Selector says which chains of a table are read, and in which order: the
// rules of one chain are read after those of the chain before, so counters
// of a chain that comes later are younger. It must not keep the slice.
type Selector func(table nftables.Table, chains []nftables.Chain) []nftables.Chain

// NFTablesReading is what one Read brought.
type NFTablesReading struct {
	nftables.Ruleset
	// Retries, Skipped and SkipErr are those of the Attempt.
	Retries int
	Skipped map[string]uint64
	SkipErr error
	// Undecoded counts expressions that are kept as nftables.Opaque, by
	// "expression/" and their name.
	Undecoded map[string]uint64
}

// Read reads and keeps the tables, chains and rules of the families ip and
// ip6: all rules with a nil Selector. Its errors are those of Try, which costs
// a tenth of the memory.
func (n *NFTables) Read(ctx context.Context, sel Selector) (*NFTablesReading, error) {
	var out *NFTablesReading
	err := n.Try(ctx, func(ctx context.Context, a *Attempt) error {
		w := &whole{attempt: a, sel: sel, out: &NFTablesReading{Undecoded: map[string]uint64{}}}
		out = w.out
		out.Generation = a.generation
		err := w.read(ctx)
		out.Retries, out.Skipped, out.SkipErr = a.Retries, a.Skipped, a.SkipErr
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// whole is a reading that keeps all.
type whole struct {
	attempt *Attempt
	sel     Selector
	out     *NFTablesReading
	rules   nftables.RuleDecoder
	arena   arena
}

func (w *whole) read(ctx context.Context) (err error) {
	if w.out.Tables, err = w.attempt.Heads(ctx, []netfilter.Family{netfilter.IPv4, netfilter.IPv6}, nil); err != nil {
		return err
	}
	for i := range w.out.Tables {
		if err := w.table(ctx, &w.out.Tables[i]); err != nil {
			return err
		}
	}
	return nil
}

// table reads the rules of the chains that the selector wants.
func (w *whole) table(ctx context.Context, t *nftables.TableContent) error {
	chains := make([]nftables.Chain, len(t.Chains))
	index := make(map[string]int, len(chains))
	for i := range t.Chains {
		chains[i] = t.Chains[i].Chain
		index[chains[i].Name] = i
	}
	if w.sel != nil {
		chains = w.sel(t.Table, slices.Clone(chains))
	}
	for _, c := range chains {
		i, ok := index[c.Name]
		if !ok || t.Chains[i].Read {
			continue
		}
		to := &t.Chains[i]
		to.Read = true
		if err := w.attempt.Rules(ctx, &c, func(b []byte) error { return w.rule(to, b) }); err != nil {
			return err
		}
	}
	return nil
}

func (w *whole) rule(to *nftables.ChainContent, b []byte) error {
	r, err := w.rules.Decode(w.arena.keep(b))
	if err != nil {
		return err
	}
	for _, e := range r.Exprs {
		if o, ok := e.(nftables.Opaque); ok {
			w.out.Undecoded["expression/"+o.Name]++
		}
	}
	to.Rules = append(to.Rules, r)
	return nil
}

// arena copies what is kept of the receive buffer into pieces of memory that
// many rules share.
type arena struct{ free []byte }

func (a *arena) keep(b []byte) []byte {
	if len(a.free) < len(b) {
		a.free = make([]byte, max(receiveSize, len(b)))
	}
	kept := a.free[:copy(a.free, b):len(b)]
	a.free = a.free[len(b):]
	return kept
}
