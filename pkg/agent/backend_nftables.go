// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/svcscope/svcscope/pkg/correlate"
	"github.com/svcscope/svcscope/pkg/kernel"
	"github.com/svcscope/svcscope/pkg/kubeproxy"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/nftables"
	"github.com/svcscope/svcscope/pkg/ruleset"
)

// nftablesBackend reads nf_tables. Where the generation stands it looks at the
// counters of kube-proxy's dispatch rules and goes down only where one moved;
// where it moved it lists the chains and reads those that carry information
// (nftables_plan.go).
type nftablesBackend struct {
	reader[nftablesReader]
	mirrors    map[netfilter.Family]*ruleset.Mirror
	known      map[netfilter.Family]*familyRules
	generation uint32
	seen       bool
	present    bool // it was read, and not only absent
	// moved has the ports, by hash, that the last reading saw moving: a packet
	// may have passed the dispatch rule and not yet the Service's.
	moved map[string]bool
	// wrote has the commits by writer; counted is the generation up to which
	// they are in it.
	wrote   map[string]*correlate.RulesetChanges
	counted uint32
	notices notices
	// own is what the families that are read had when their chains were listed, and
	// others what other families and sets had in the generation measured; beyond limit
	// it does not matter.
	own, others, limit int
	measured           uint32
	whole              wholeLooks
	// heads has the memory of the last list of chains, until it is collected.
	heads sync.Pool
	// crowded has the tables whose verdict maps have more than leads elements, and are
	// not read as a whole.
	crowded map[tableKey]bool
	leads   int
	strange map[string]uint64 // in the nftables mode's tables, as logged
	keep    bool              // the rules of endpoints' chains, too
	log     *slog.Logger
}

func newNFTablesBackend(open func() (nftablesReader, error), listen func() (noticeSource, error)) *nftablesBackend {
	b := &nftablesBackend{
		reader: reader[nftablesReader]{open: open}, notices: notices{open: listen},
		mirrors: make(map[netfilter.Family]*ruleset.Mirror), known: make(map[netfilter.Family]*familyRules),
		moved: make(map[string]bool), wrote: make(map[string]*correlate.RulesetChanges),
		crowded: make(map[tableKey]bool), leads: maxLeads, log: slog.New(slog.DiscardHandler),
	}
	for _, f := range tableFamilies() {
		b.mirrors[f] = ruleset.NewMirror(f)
		b.known[f] = newFamily(ruleset.NFT, f, b.mirrors[f].Ruleset())
	}
	return b
}

func (b *nftablesBackend) families() []*familyRules {
	return []*familyRules{b.known[netfilter.IPv4], b.known[netfilter.IPv6]}
}

func (b *nftablesBackend) refusers() []*familyRules {
	return []*familyRules{b.known[netfilter.FamilyINet]}
}

func (b *nftablesBackend) read(ctx context.Context) (map[string]uint64, error) {
	r, err := b.get()
	if err == nil {
		err = b.take(ctx, r, b.plan)
		b.present = b.present || err == nil
	}
	if err == nil {
		b.measure(ctx, r)
	}
	// Rules that were there do not go with a subsystem: it is not unloaded
	// while this namespace has tables.
	if errors.Is(err, kernel.ErrAbsent) && !b.present {
		p := b.begin(nil)
		p.head(nil)
		b.commit(p)
		return map[string]uint64{}, nil
	}
	if damaged, ok := errors.AsType[*kernel.DamagedError](err); ok {
		return messages(damaged.Skipped), err
	}
	return b.undecoded(nil), err
}

// take reads what a plan wants, and keeps it where all of it is of one state.
func (b *nftablesBackend) take(ctx context.Context, r nftablesReader, plan func(context.Context, *pass) error) error {
	var p *pass
	err := r.Try(ctx, func(ctx context.Context, a rulesAttempt) error {
		p = b.begin(a)
		return plan(ctx, p)
	})
	if err == nil {
		b.commit(p)
	}
	return err
}

// commit keeps what a pass has brought.
func (b *nftablesBackend) commit(p *pass) {
	b.moved = p.moved
	if p.headed {
		b.count(p.generation())
	}
	for f, stage := range p.stages {
		deltas := stage.Commit()
		b.known[f].full.see(b.known[f].rules.View, deltas)
		b.known[f].update(deltas)
		for i := range deltas {
			b.forget(b.mirrors[f], &deltas[i])
		}
		if p.watched != nil {
			p.watched.rewritten(f, deltas)
		}
		if !p.whole {
			continue
		}
		b.known[f].at = p.begun
		for _, t := range b.known[f].set.Tables { // all that moved was read
			b.known[f].saw(t.Name)
		}
	}
	if p.headed {
		b.own = b.sizeOwn()
	}
	if p.tables != nil {
		tables := p.tables
		b.heads.Put(&tables)
	}
}

// forget drops the rules of endpoints' chains: the View keeps the address,
// which the chain's name is a hash of.
func (b *nftablesBackend) forget(m *ruleset.Mirror, d *ruleset.Delta) {
	if d.Table != "nat" || b.keep {
		return
	}
	for _, c := range d.Changed {
		if kind, _ := kubeproxy.ParseChain(c.Name); kind == kubeproxy.KindEndpoint {
			m.Forget(c)
		}
	}
}

// count keeps the generation and counts commits of unknown writers, unless
// notices will tell.
func (b *nftablesBackend) count(generation uint32) {
	if !b.seen || b.generation == 0 { // 0 is of a subsystem that is not there
		b.counted = generation
		b.write(writerUnknown, 0)
	}
	b.seen, b.generation = true, generation
	if b.notices.listener == nil {
		b.write(writerUnknown, generation-b.counted)
	}
}

// write counts commits, the next n after those counted.
func (b *nftablesBackend) write(writer string, n uint32) {
	c := b.wrote[writer]
	if c == nil {
		c = &correlate.RulesetChanges{Backend: ruleset.NFT, Writer: writer, Created: time.Now()}
		b.wrote[writer] = c
	}
	if n > 0 {
		c.Total += uint64(n)
		c.Last = time.Now()
	}
	b.counted += n
}

// undecoded counts what stands in the rules and is not understood, but for tables of
// inet, of whose rules conditions are not told.
func (b *nftablesBackend) undecoded(skipped map[string]uint64) map[string]uint64 {
	sum := messages(skipped)
	for _, f := range families() {
		for kind, n := range b.mirrors[f].Undecoded() {
			sum[kind] += n
		}
	}
	maps.Copy(sum, b.undecodedNative())
	return sum
}

// messages makes kinds of undecoded objects of messages that were not.
func messages(skipped map[string]uint64) map[string]uint64 {
	undecoded := make(map[string]uint64)
	for kind, n := range skipped {
		undecoded["message/"+kind] = n
	}
	return undecoded
}

func (b *nftablesBackend) changes() []correlate.RulesetChanges {
	var out []correlate.RulesetChanges
	for _, writer := range slices.Sorted(maps.Keys(b.wrote)) {
		out = append(out, *b.wrote[writer])
	}
	return out
}

func (*nftablesBackend) unseen(*familyRules, string) (time.Duration, bool) { return 0, false }

func (b *nftablesBackend) stats() kernel.ReadStats {
	if !b.ready {
		return kernel.ReadStats{}
	}
	return b.value.Stats()
}

func (b *nftablesBackend) close() error { return errors.Join(b.notices.leave(), b.reader.close()) }

// begin starts one attempt.
func (b *nftablesBackend) begin(a rulesAttempt) *pass {
	p := &pass{attempt: a, backend: b, begun: time.Now(), stages: make(map[netfilter.Family]*ruleset.Stage), moved: make(map[string]bool)}
	for f, m := range b.mirrors {
		p.stages[f] = m.Stage()
	}
	return p
}

// pass is one attempt at a reading: it counts when all of it succeeded.
type pass struct {
	attempt rulesAttempt
	backend *nftablesBackend
	stages  map[netfilter.Family]*ruleset.Stage
	headed  bool
	whole   bool // all that may have moved or changed is read
	begun   time.Time
	tables  []nftables.TableContent
	moved   map[string]bool
	watched *watched // what has been rewritten is dropped from it
}

func (p *pass) generation() uint32 {
	if p.attempt == nil {
		return 0
	}
	return p.attempt.Generation()
}

// head takes the tables and chains that exist.
func (p *pass) head(tables []nftables.TableContent) {
	p.headed, p.tables = true, tables
	for _, stage := range p.stages {
		stage.Heads(p.generation(), tables)
	}
}

// chain reads one chain. Of dispatch rules that have moved it notes the port.
func (p *pass) chain(ctx context.Context, c *nftables.Chain) (*ruleset.StagedChain, error) {
	staged := p.stages[c.Family].Chain(c.Table, c.Name)
	if err := p.attempt.Rules(ctx, c, staged.Rule); err != nil {
		return nil, err
	}
	dispatch := kubeproxy.DispatchChains()
	if c.Table == "nat" && slices.Contains(dispatch[:], c.Name) {
		for r := range staged.Moved {
			if _, hash := kubeproxy.ParseChain(r.Action.Chain); hash != "" {
				p.moved[hash] = true
			}
		}
	}
	return staged, nil
}

// chains reads those of a family that exist in a table, in the order given.
func (p *pass) chains(ctx context.Context, f netfilter.Family, table string, names ...string) error {
	t := p.backend.mirrors[f].Ruleset().Table(table)
	for _, name := range names {
		if t.Chain(name) == nil {
			continue
		}
		if _, err := p.chain(ctx, &nftables.Chain{Family: f, Table: table, Name: name}); err != nil {
			return err
		}
	}
	return nil
}

// readAll reads chains, KUBE-SVC and KUBE-SVL before KUBE-EXT.
func (p *pass) readAll(ctx context.Context, chains []*nftables.Chain) error {
	slices.SortStableFunc(chains, func(c, d *nftables.Chain) int {
		return kubeproxy.ReadRank(c.Name) - kubeproxy.ReadRank(d.Name)
	})
	for _, c := range chains {
		if _, err := p.chain(ctx, c); err != nil {
			return err
		}
	}
	return nil
}
