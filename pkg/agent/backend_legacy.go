// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"time"

	"github.com/svcscope/svcscope/pkg/correlate"
	"github.com/svcscope/svcscope/pkg/kernel"
	"github.com/svcscope/svcscope/pkg/ledger"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/xtables"
	"github.com/svcscope/svcscope/pkg/ruleset"
)

// legacyBackend reads x_tables.
type legacyBackend struct {
	reader[legacyReader]
	known  []*familyRules
	change map[netfilter.Family]*correlate.RulesetChanges
}

func newLegacyBackend(open func() (legacyReader, error)) *legacyBackend {
	b := &legacyBackend{
		reader: reader[legacyReader]{open: open}, change: make(map[netfilter.Family]*correlate.RulesetChanges),
	}
	for _, f := range families() {
		b.known = append(b.known, newFamily(ruleset.Legacy, f, &ruleset.Ruleset{Backend: ruleset.Legacy, Family: f}))
	}
	return b
}

func (b *legacyBackend) families() []*familyRules { return b.known }

func (b *legacyBackend) read(ctx context.Context) (map[string]uint64, error) {
	r, err := b.get()
	if err != nil {
		return nil, err
	}
	var errs []error
	undecoded := make(map[string]uint64)
	for _, f := range b.known {
		c := ruleset.NewConverter(f.set.Family)
		rs, err := readLegacy(ctx, r, f.set.Family, c)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for kind, n := range c.Undecoded() {
			undecoded[kind] += n
		}
		b.compare(f, rs)
		f.replace(rs)
	}
	return undecoded, errors.Join(errs...)
}

func (*legacyBackend) tell(context.Context, *correlate.Names, func(ledger.Commit)) (bool, error) { return false, nil }

func (b *legacyBackend) stats() kernel.ReadStats { return kernel.ReadStats{} }

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
func (b *legacyBackend) compare(known *familyRules, rs *ruleset.Ruleset) {
	f := rs.Family
	if !known.read {
		b.change[f] = &correlate.RulesetChanges{Backend: ruleset.Legacy, Family: f, Writer: writerUnknown, Created: time.Now()}
	} else if !correlate.SameRules(known.set, rs) {
		b.change[f].Total++
		b.change[f].Last = time.Now()
	}
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
