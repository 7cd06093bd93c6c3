// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"context"
	"net/netip"
	"slices"

	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/nftables"
)

// TapRange is a range of addresses, both ends included.
type TapRange struct{ First, Last netip.Addr }

// TapRanges is a way that is open to some sources alone.
type TapRanges struct {
	TapKey
	Sources []TapRange
}

// open is the name of the set that has the sources of each way.
func (s tapSet) open() string {
	if s.family == netfilter.IPv6 {
		return "open-ipv6"
	}
	return "open-ipv4"
}

// openObject is that set as it is made: ranges of a way with a source, of which the kernel
// wants to know how long the fields are.
func (s tapSet) openObject(id uint32) nftables.NewSet {
	typ, n := uint32(typeIPv4), s.addrLen()
	if s.family == netfilter.IPv6 {
		typ = typeIPv6
	}
	return nftables.NewSet{
		Set: nftables.Set{
			Family: netfilter.FamilyINet, Table: TapTable, Name: s.open(), Flags: nftables.SetInterval | nftables.SetConcat,
			KeyType: typ<<18 | typeProto<<12 | typeService<<6 | typ, KeyLen: 2*n + 8,
		},
		ID: id, Fields: []uint32{n, 1, 2, n},
	}
}

// source loads the packet's source after its key.
func (s tapSet) source() nftables.Expr {
	offset := uint32(12) // of saddr in struct iphdr
	if s.family == netfilter.IPv6 {
		offset = 8 // in struct ipv6hdr
	}
	after := nftables.Reg32 + nftables.Register(s.addrLen()/4) + 2
	return nftables.Payload{Base: nftables.Network, Offset: offset, Len: s.addrLen(), DReg: after}
}

// setRanges makes ways those that are open to some sources alone. A way whose sources change
// goes on counting, and others' are never looked at without theirs.
func (t *Tap) setRanges(ctx context.Context, ways []TapRanges, ended map[TapKey]TapCount) (left int, err error) {
	want := make(map[TapKey][]TapRange, len(ways))
	keys := make([]TapKey, 0, len(ways))
	for _, w := range ways {
		if _, twice := want[w.TapKey]; !twice && len(want) < t.ranges.size {
			want[w.TapKey] = merged(w.Sources)
			keys = append(keys, w.TapKey)
		} else if !twice {
			left++
		}
	}
	if len(keys)+len(t.open) == 0 {
		return left, nil
	}
	if !t.ranges.made {
		if err := t.build(ctx, &tapBatch{}, &t.ranges); err != nil {
			return left, meaning("change table "+TapTable, err)
		}
	}
	for _, k := range keys {
		if err := t.setOpen(ctx, k, want[k]); err != nil {
			return left, err
		}
	}
	if _, err := t.set(ctx, &t.ranges, keys, ended); err != nil {
		return left, err
	}
	for k := range t.open {
		if _, ok := want[k]; ok {
			continue
		}
		if err := t.setOpen(ctx, k, nil); err != nil {
			return left, err
		}
	}
	return left, nil
}

// setOpen makes the sources of one way others, at once.
func (t *Tap) setOpen(ctx context.Context, k TapKey, sources []TapRange) error {
	old := t.open[k]
	if slices.Equal(old, sources) {
		return nil
	}
	var b tapBatch
	for _, s := range tapSets(tapRanges) {
		if !s.holds(k) {
			continue
		}
		if es := s.openElements(k, old); len(old) > 0 {
			b.add(delTapElem, &es)
		}
		if es := s.openElements(k, sources); len(sources) > 0 {
			b.add(newTapElem, &es)
		}
	}
	if err := t.w.commit(ctx, &b, func(*nftables.Elements) {}); err != nil {
		return meaning("change table "+TapTable, err)
	}
	if t.open[k] = sources; len(sources) == 0 {
		delete(t.open, k)
	}
	return nil
}

// openElements are the sources of a way as elements.
func (s tapSet) openElements(k TapKey, sources []TapRange) nftables.Elements {
	es := nftables.Elements{Family: netfilter.FamilyINet, Table: TapTable, Set: s.open()}
	for _, r := range sources {
		key := s.encode(k)
		es.Elements = append(es.Elements, nftables.Element{
			Key: append(slices.Clip(key), r.First.AsSlice()...), KeyEnd: append(slices.Clip(key), r.Last.AsSlice()...),
		})
	}
	return es
}

// merged are ranges of which none overlaps another one, which the kernel would refuse, in
// order.
func merged(ranges []TapRange) []TapRange {
	all := slices.SortedFunc(slices.Values(ranges), func(a, b TapRange) int { return a.First.Compare(b.First) })
	out := all[:0]
	for _, r := range all {
		if n := len(out); n > 0 && r.First.Compare(out[n-1].Last) <= 0 {
			if out[n-1].Last.Compare(r.Last) < 0 {
				out[n-1].Last = r.Last
			}
			continue
		}
		out = append(out, r)
	}
	return out
}
