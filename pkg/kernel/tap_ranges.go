// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"cmp"
	"context"
	"maps"
	"math/big"
	"math/bits"
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

// tapSources is of how many prefixes the sources in each family are made at most, all of
// which one way may have. The kernel takes the longer for one that goes the more there are: for
// 2,048 half a second, in which nobody else changes a rule.
const tapSources = 1 << 11

// open is the name of the set that has the sources of each way.
func (s tapSet) open() string {
	if s.family == netfilter.IPv6 {
		return "open-ipv6"
	}
	return "open-ipv4"
}

// openObject is that set as it is made: ranges of a way with a source, of which the kernel
// wants to know how long the fields are.
func (s tapSet) openObject(id, size uint32) nftables.NewSet {
	typ, n := uint32(typeIPv4), s.addrLen()
	if s.family == netfilter.IPv6 {
		typ = typeIPv6
	}
	return nftables.NewSet{
		Set: nftables.Set{
			Family: netfilter.FamilyINet, Table: TapTable, Name: s.open(), Flags: nftables.SetInterval | nftables.SetConcat,
			KeyType: typ<<18 | typeProto<<12 | typeService<<6 | typ, KeyLen: 2*n + 8, Size: size,
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
	want, left := t.fitting(ways)
	if len(want)+len(t.open) == 0 {
		return left, nil
	}
	if !t.ranges.made {
		if err := t.build(ctx, &tapBatch{}, &t.ranges); err != nil {
			return left, meaning("change table "+TapTable, err)
		}
	}
	if err := t.change(ctx, &t.ranges, delTapElem, difference(t.ranges.keys, want), ended); err != nil {
		return left, err
	}
	if err := t.setOpen(ctx, want); err != nil {
		return left, err
	}
	return left, t.change(ctx, &t.ranges, newTapElem, difference(want, t.ranges.keys), ended)
}

// fitting are the ways that there is room for, with sources of which none overlaps another
// one. A way has room for all of its sources or is left.
func (t *Tap) fitting(ways []TapRanges) (want map[TapKey][]TapRange, left int) {
	want = make(map[TapKey][]TapRange, len(ways))
	room := map[bool]int{false: t.sources, true: t.sources} // by whether it is IPv6
	for _, w := range slices.SortedStableFunc(slices.Values(ways), func(a, b TapRanges) int { return a.Compare(b.TapKey) }) {
		if _, twice := want[w.TapKey]; twice {
			continue
		}
		sources, v6, need := merged(w.Sources), w.Addr.Is6(), 0
		for _, r := range sources {
			need += r.prefixes()
		}
		if len(want) == t.ranges.size || need > room[v6] {
			left++
			continue
		}
		room[v6] -= need
		want[w.TapKey] = sources
	}
	return want, left
}

// openChange is what becomes of a way's sources in one transaction.
type openChange struct {
	TapKey
	gone, come, then []TapRange
}

func (c *openChange) elements() int { return len(c.gone) + len(c.come) }

// setOpen makes the sources of all ways those that are wanted, some in a transaction.
func (t *Tap) setOpen(ctx context.Context, want map[TapKey][]TapRange) error {
	for all := t.openChanges(want); len(all) > 0; {
		n, elements := 1, all[0].elements()
		for n < len(all) && elements+all[n].elements() <= tapAtOnce {
			elements += all[n].elements()
			n++
		}
		if err := t.commitOpen(ctx, all[:n]); err != nil {
			return err
		}
		all = all[n:]
	}
	return nil
}

// openChanges are in an order in which there is always room. The sources of a way change at
// once; those of one that is counted no more go one after another.
func (t *Tap) openChanges(want map[TapKey][]TapRange) (all []openChange) {
	for _, k := range difference(t.open, want) {
		for rest := t.open[k]; len(rest) > 0; {
			n := min(tapAtOnce, len(rest))
			all = append(all, openChange{TapKey: k, gone: rest[:n], then: rest[n:]})
			rest = rest[n:]
		}
	}
	others := len(all)
	for _, k := range slices.SortedFunc(maps.Keys(want), TapKey.Compare) {
		c := openChange{k, without(t.open[k], want[k]), without(want[k], t.open[k]), want[k]}
		if c.elements() > 0 {
			all = append(all, c)
		}
	}
	slices.SortStableFunc(all[others:], func(a, b openChange) int {
		return cmp.Compare(len(a.come)-len(a.gone), len(b.come)-len(b.gone))
	})
	return all
}

func (t *Tap) commitOpen(ctx context.Context, all []openChange) error {
	var b tapBatch
	for i := range all {
		b.open(&all[i])
	}
	if err := t.w.commit(ctx, &b, nil); err != nil {
		return meaning("change table "+TapTable, err)
	}
	for i := range all {
		if c := &all[i]; len(c.then) > 0 {
			t.open[c.TapKey] = c.then
		} else {
			delete(t.open, c.TapKey)
		}
	}
	return nil
}

// open adds a change to the transaction.
func (b *tapBatch) open(c *openChange) {
	for _, s := range tapSets(tapRanges) {
		if !s.holds(c.TapKey) {
			continue
		}
		for part := range slices.Chunk(c.gone, tapAtOnce) {
			es := s.openElements(c.TapKey, part)
			b.drop(&es)
		}
		for part := range slices.Chunk(c.come, tapAtOnce) {
			es := s.openElements(c.TapKey, part)
			b.add(newTapElem, &es)
		}
	}
}

// without are the ranges of a that are not among those of b.
func without(a, b []TapRange) (out []TapRange) {
	in := make(map[TapRange]struct{}, len(b))
	for _, r := range b {
		in[r] = struct{}{}
	}
	for _, r := range a {
		if _, ok := in[r]; !ok {
			out = append(out, r)
		}
	}
	return out
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

// prefixes is of how many prefixes a range is made, which is what the kernel makes of it.
func (r TapRange) prefixes() int {
	first, last := new(big.Int).SetBytes(r.First.AsSlice()), new(big.Int).SetBytes(r.Last.AsSlice())
	differ := new(big.Int).Xor(first, last).BitLen()
	if differ == 0 {
		return 1
	}
	// From the first address to half of the smallest prefix that holds the range, and from there
	// to the last one, each of two to the power of as many sizes as its length has bits set.
	half := new(big.Int).Lsh(big.NewInt(1), uint(differ-1))
	rest := new(big.Int).Sub(half, big.NewInt(1))
	low := new(big.Int).Sub(half, first.And(first, rest))
	high := last.Add(last.And(last, rest), big.NewInt(1))
	if low.Cmp(half) == 0 && high.Cmp(half) == 0 {
		return 1
	}
	return bitsSet(low) + bitsSet(high)
}

func bitsSet(x *big.Int) (n int) {
	for _, w := range x.Bits() {
		n += bits.OnesCount(uint(w))
	}
	return n
}
