// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"time"

	"github.com/svcscope/svcscope/pkg/correlate"
	"github.com/svcscope/svcscope/pkg/kernel"
	"github.com/svcscope/svcscope/pkg/kubeproxy"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/nftables"
	"github.com/svcscope/svcscope/pkg/netfilter/xtables"
	"github.com/svcscope/svcscope/pkg/ruleset"
)

// writerUnknown is who changed the rules, as long as nobody listens.
const writerUnknown = "unknown"

// backend is one kernel interface that holds rules.
type backend interface {
	// read returns the families that could be read as a whole, and what was
	// not understood in them; that also beside an error. An interface that the kernel does not have
	// holds no rules: that is an answer, not an error.
	read(context.Context) ([]*ruleset.Ruleset, map[string]uint64, error)
	// changes returns the commits seen since the first reading.
	changes() []correlate.RulesetChanges
	close() error
}

// nftablesBackend reads nf_tables.
type nftablesBackend struct {
	reader[nftablesReader]
	// endpoints has the addresses that KUBE-SEP chains send to. The name is
	// a hash of the address: once known, the chain need not be read again.
	endpoints  map[string]netip.AddrPort
	generation uint32
	seen       bool
	present    bool // it was read, and not only absent
	change     correlate.RulesetChanges
}

func (b *nftablesBackend) read(ctx context.Context) ([]*ruleset.Ruleset, map[string]uint64, error) {
	r, err := b.get()
	if err == nil {
		var reading *kernel.NFTablesReading
		if reading, err = r.Read(ctx, b.choose); err == nil {
			b.present = true
			return b.convert(reading)
		}
	}
	// Rules that were there do not go with a subsystem: it is not unloaded
	// while this namespace has tables.
	if errors.Is(err, kernel.ErrAbsent) && !b.present {
		return b.convert(&kernel.NFTablesReading{})
	}
	if damaged, ok := errors.AsType[*kernel.DamagedError](err); ok {
		return nil, messages(damaged.Skipped), err
	}
	return nil, nil, err
}

// messages makes kinds of undecoded objects of messages that were not.
func messages(skipped map[string]uint64) map[string]uint64 {
	undecoded := make(map[string]uint64)
	for kind, n := range skipped {
		undecoded["message/"+kind] = n
	}
	return undecoded
}

// choose takes the chains to read, KUBE-SVC and KUBE-SVL before KUBE-EXT.
func (b *nftablesBackend) choose(t nftables.Table, chains []nftables.Chain) []nftables.Chain {
	chains = slices.DeleteFunc(chains, func(c nftables.Chain) bool {
		_, known := b.endpoints[c.Name]
		return known && t.Name == "nat"
	})
	slices.SortStableFunc(chains, func(c, d nftables.Chain) int {
		return kubeproxy.ReadRank(c.Name) - kubeproxy.ReadRank(d.Name)
	})
	return chains
}

func (b *nftablesBackend) convert(reading *kernel.NFTablesReading) ([]*ruleset.Ruleset, map[string]uint64, error) {
	undecoded := messages(reading.Skipped)
	var sets []*ruleset.Ruleset
	for _, f := range families() {
		rs, unknown := ruleset.FromNFTables(f, &reading.Ruleset)
		for kind, n := range unknown {
			undecoded[kind] += n
		}
		sets = append(sets, rs)
	}
	if !b.seen || b.generation == 0 { // 0 is of a subsystem that is not there
		b.change = correlate.RulesetChanges{Backend: ruleset.NFT, Writer: writerUnknown, Created: time.Now()}
	} else if n := reading.Generation - b.generation; n != 0 {
		b.change.Total += uint64(n)
		b.change.Last = time.Now()
	}
	b.seen, b.generation = true, reading.Generation
	return sets, undecoded, nil
}

// learn keeps the addresses that views show, of chains that are still there.
func (b *nftablesBackend) learn(views []*kubeproxy.View) {
	known := make(map[string]netip.AddrPort, len(b.endpoints))
	for _, v := range views {
		for _, p := range v.Ports {
			for i := range p.Endpoints {
				e := &p.Endpoints[i]
				if a, ok := b.endpoints[e.Chain]; ok {
					known[e.Chain] = a
				} else if e.Addr.IsValid() {
					known[e.Chain] = e.Addr
				}
			}
		}
	}
	b.endpoints = known
}

func (b *nftablesBackend) changes() []correlate.RulesetChanges {
	if !b.seen {
		return nil
	}
	return []correlate.RulesetChanges{b.change}
}

// legacyBackend reads x_tables.
type legacyBackend struct {
	reader[legacyReader]
	last   map[netfilter.Family]*ruleset.Ruleset
	change map[netfilter.Family]*correlate.RulesetChanges
}

func (b *legacyBackend) read(ctx context.Context) ([]*ruleset.Ruleset, map[string]uint64, error) {
	r, err := b.get()
	if err != nil {
		return nil, nil, err
	}
	var sets []*ruleset.Ruleset
	var errs []error
	undecoded := make(map[string]uint64)
	for _, f := range families() {
		c := ruleset.NewConverter(f)
		rs, err := readLegacy(ctx, r, f, c)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for kind, n := range c.Undecoded() {
			undecoded[kind] += n
		}
		b.compare(rs)
		sets = append(sets, rs)
	}
	return sets, undecoded, errors.Join(errs...)
}

func readLegacy(ctx context.Context, r legacyReader, f netfilter.Family, c *ruleset.Converter) (*ruleset.Ruleset, error) {
	rs := &ruleset.Ruleset{Backend: ruleset.Legacy, Family: f}
	names, err := r.Tables(ctx, f)
	if errors.Is(err, kernel.ErrAbsent) {
		return rs, nil
	}
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		err := r.Read(ctx, f, name, func(t *xtables.Table) error {
			rs.Tables = append(rs.Tables, c.XTable(t))
			return nil
		})
		if err != nil && !errors.Is(err, kernel.ErrAbsent) {
			return nil, err
		}
	}
	return rs, nil
}

// compare counts a change where the rules are not those of the reading before.
func (b *legacyBackend) compare(rs *ruleset.Ruleset) {
	f := rs.Family
	if b.last == nil {
		b.last = make(map[netfilter.Family]*ruleset.Ruleset)
		b.change = make(map[netfilter.Family]*correlate.RulesetChanges)
	}
	if b.last[f] == nil {
		b.change[f] = &correlate.RulesetChanges{Backend: ruleset.Legacy, Family: f, Writer: writerUnknown, Created: time.Now()}
	} else if !correlate.SameRules(b.last[f], rs) {
		b.change[f].Total++
		b.change[f].Last = time.Now()
	}
	b.last[f] = rs
}

func (b *legacyBackend) changes() []correlate.RulesetChanges {
	var cs []correlate.RulesetChanges
	for _, f := range families() {
		if c := b.change[f]; c != nil {
			cs = append(cs, *c)
		}
	}
	return cs
}
