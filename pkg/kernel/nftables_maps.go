// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/nftables"
	"github.com/svcscope/svcscope/pkg/netfilter/nlattr"
)

// VerdictMaps reads to which chains the verdict maps of a table lead, those without a
// name of their own too: by the map's name, the chains in order and each once. Maps
// that lead to none are left out. At more than limit elements it gives up, and whole
// is false: what it returns is then not all.
func (a *Attempt) VerdictMaps(ctx context.Context, family netfilter.Family, table string, limit int) (maps map[string][]string, whole bool, err error) {
	names, err := a.verdictMaps(ctx, family, table)
	left := limit
	for _, name := range names {
		if err != nil || left < 0 {
			break
		}
		var to []string
		if to, left, err = a.leadsTo(ctx, sized{family, table, name}, left); len(to) > 0 && err == nil {
			if maps == nil {
				maps = make(map[string][]string)
			}
			maps[name] = to
		}
	}
	if errors.Is(err, unix.ENOENT) { // the table went, or the map: so did the generation
		err = ErrInterrupted
	}
	if err != nil {
		return nil, false, fmt.Errorf("verdict maps of table %s: %w", table, err)
	}
	return maps, left >= 0, nil
}

// verdictMaps lists those of a table.
func (a *Attempt) verdictMaps(ctx context.Context, family netfilter.Family, table string) (names []string, err error) {
	attrs := nlattr.AppendString(nil, unix.NFTA_SET_TABLE, table)
	err = a.dump(ctx, request{typ: getSet, family: family, attrs: attrs}, func(b []byte) {
		s, err := nftables.DecodeSet(b)
		if a.decoded(message{"set", table, "", family}, err) && s.DataType == nftables.VerdictData {
			names = append(names, s.Name)
		}
	})
	return names, err
}

// leadsTo reads to which chains the elements of a map lead, of which there may be as
// many as limit; left is how many fewer there are, less than 0 where it gave up.
func (a *Attempt) leadsTo(ctx context.Context, m sized, limit int) (to []string, left int, err error) {
	attrs := nlattr.AppendString(nil, unix.NFTA_SET_ELEM_LIST_TABLE, m.table)
	attrs = nlattr.AppendString(attrs, unix.NFTA_SET_ELEM_LIST_SET, m.name)
	within, enough := context.WithCancel(ctx)
	defer enough()
	left = limit
	err = a.dump(within, request{typ: getSetElem, family: m.family, attrs: attrs}, func(b []byte) {
		es, err := nftables.DecodeElements(b)
		if !a.decoded(message{"element", m.table, "", m.family}, err) {
			return
		}
		for i := range es.Elements {
			if v := es.Elements[i].Verdict; v != nil && v.Chain != "" {
				to = append(to, v.Chain)
			}
		}
		if left -= len(es.Elements); left < 0 {
			enough()
		}
	})
	if left < 0 && errors.Is(err, context.Canceled) && ctx.Err() == nil {
		err = nil
	}
	slices.Sort(to)
	return slices.Compact(to), left, err
}
