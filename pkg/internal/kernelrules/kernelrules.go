// SPDX-License-Identifier: Apache-2.0

// Package kernelrules reads the rules of a test's network namespace, through
// the product's readers and converters.
package kernelrules

import (
	"context"
	"testing"

	"github.com/svcscope/svcscope/pkg/kernel"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/nftables"
	"github.com/svcscope/svcscope/pkg/netfilter/xtables"
	"github.com/svcscope/svcscope/pkg/ruleset"
)

// Legacy returns all x_tables tables of a family, and how often each match and
// target was met that has no decoder (ruleset.Converter). Any error fails the
// test.
func Legacy(tb testing.TB, family netfilter.Family) (rs *ruleset.Ruleset, undecoded map[string]uint64) {
	tb.Helper()
	r, err := kernel.OpenLegacy(kernel.LegacyConfig{})
	if err != nil {
		tb.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	names, err := r.Tables(tb.Context(), family)
	if err != nil {
		tb.Fatal(err)
	}
	all := ruleset.NewXTables(family)
	for _, name := range names {
		err := r.Read(tb.Context(), family, name, func(x *xtables.Table) error {
			_, err := all.Update(x)
			return err
		})
		if err != nil {
			tb.Fatal(err)
		}
	}
	return all.Ruleset(), all.Undecoded()
}

// NFT returns all nf_tables tables that a family's packets pass, with the
// chains that choose selects (nil for all), and what has no decoder. Any error
// fails the test.
func NFT(tb testing.TB, family netfilter.Family, choose kernel.Selector) (rs *ruleset.Ruleset, undecoded map[string]uint64) {
	tb.Helper()
	n, err := kernel.OpenNFTables()
	if err != nil {
		tb.Fatal(err)
	}
	defer func() { _ = n.Close() }()
	reading, err := n.Read(tb.Context(), choose)
	if err != nil {
		tb.Fatal(err)
	}
	return ruleset.FromNFTables(family, &reading.Ruleset)
}

// Mirrored returns all nf_tables tables of a family, which may be inet, with their sets
// and where their verdict maps lead. Any error fails the test.
func Mirrored(tb testing.TB, family netfilter.Family) *ruleset.Ruleset {
	tb.Helper()
	n, err := kernel.OpenNFTables()
	if err != nil {
		tb.Fatal(err)
	}
	defer func() { _ = n.Close() }()
	m := ruleset.NewMirror(family)
	var s *ruleset.Stage
	err = n.Try(tb.Context(), func(ctx context.Context, a *kernel.Attempt) error {
		s = m.Stage()
		heads, err := a.Heads(ctx, []netfilter.Family{family}, nil)
		if err != nil {
			return err
		}
		s.Heads(a.Generation(), heads)
		for i := range heads {
			if err := mirror(ctx, a, s, &heads[i]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		tb.Fatal(err)
	}
	s.Commit()
	return m.Ruleset()
}

func mirror(ctx context.Context, a *kernel.Attempt, s *ruleset.Stage, t *nftables.TableContent) error {
	var heads []nftables.Set
	if err := a.Sets(ctx, t.Family, t.Name, func(h *nftables.Set) { heads = append(heads, *h) }); err != nil {
		return err
	}
	all := make([]*ruleset.Set, 0, len(heads))
	for i := range heads {
		set := ruleset.NewSet(&heads[i])
		if err := a.Elements(ctx, &heads[i], set.Add); err != nil {
			return err
		}
		set.Done()
		all = append(all, set)
	}
	s.Sets(t.Name, all)
	for i := range t.Chains {
		c := &t.Chains[i].Chain
		if err := a.Rules(ctx, c, s.Chain(t.Name, c.Name).Rule); err != nil {
			return err
		}
	}
	return nil
}
