// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"context"
	"slices"

	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/nftables"
)

// VerdictMaps reads to which chains the verdict maps of a table lead, those without a
// name of their own too: by the map's name, the chains in order and each once. Maps
// that lead to none are left out. At more than limit elements it gives up, and whole
// is false: what it returns is then not all.
func (a *Attempt) VerdictMaps(ctx context.Context, family netfilter.Family, table string, limit int) (maps map[string][]string, whole bool, err error) {
	var sets []nftables.Set
	err = a.Sets(ctx, family, table, func(s *nftables.Set) {
		if s.DataType == nftables.VerdictData {
			sets = append(sets, *s)
		}
	})
	left := limit
	for i := range sets {
		if err != nil || left < 0 {
			break
		}
		var to []string
		if to, left, err = a.leadsTo(ctx, &sets[i], left); len(to) > 0 && err == nil {
			if maps == nil {
				maps = make(map[string][]string)
			}
			maps[sets[i].Name] = to
		}
	}
	if err != nil {
		return nil, false, err
	}
	return maps, left >= 0, nil
}

// leadsTo reads to which chains the elements of a map lead, of which there may be as
// many as limit; left is how many fewer there are, less than 0 where it gave up.
func (a *Attempt) leadsTo(ctx context.Context, m *nftables.Set, limit int) (to []string, left int, err error) {
	left = limit
	err = a.Elements(ctx, m, func(es *nftables.Elements) bool {
		for i := range es.Elements {
			if v := es.Elements[i].Verdict; v != nil && v.Chain != "" {
				to = append(to, v.Chain)
			}
		}
		left -= len(es.Elements)
		return left >= 0
	})
	slices.Sort(to)
	return slices.Compact(to), left, err
}
