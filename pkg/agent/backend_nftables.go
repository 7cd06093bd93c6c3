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
	"github.com/svcscope/svcscope/pkg/netfilter/nftables"
	"github.com/svcscope/svcscope/pkg/ruleset"
)

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
