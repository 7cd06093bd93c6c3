// SPDX-License-Identifier: Apache-2.0

package correlate

import (
	"encoding/binary"
	"hash/maphash"
	"net/netip"

	"github.com/svcscope/svcscope/pkg/netfilter/conntrack"
)

// pairSlots is how many pairs are counted at once: a power of two.
const pairSlots = 16384

// flowPairs counts the entries of pairs: of what was sent to one address and is
// answered from one other. A table has many entries of few pairs, so what is to be
// found out of one is found out once, when its count is handed on: at the end, or
// when another pair takes its place. An entry costs one look into memory, which the
// kernel's work on the table has pushed out of the caches. A pair is known by its
// hash of 64 bits.
type flowPairs struct {
	seed   maphash.Seed
	counts []pairCount // of slots, in sets of two
	pairs  []flowPair  // of the same slots
}

// pairCount is the number of a pair's entries.
type pairCount struct {
	hash                        uint64 // 0: none is counted
	replied, unreplied, closing uint32
	row                         int32 // of the Service port that has the address; -1: none
}

func (n *pairCount) all() uint64 { return uint64(n.replied) + uint64(n.unreplied) + uint64(n.closing) }

// flowPair is what the entries of a pair have in common.
type flowPair struct {
	to, from   netip.AddrPort // of the first packet's destination, and the answer's source
	source     netip.Addr     // that takes a source port; the zero one where none does
	protocol   uint8
	redirected bool
}

// pairOf returns the pair of an entry that takes a source port or does not.
func pairOf(f *conntrack.Flow, takes bool) flowPair {
	p := flowPair{to: f.Orig.Dst, from: f.Reply.Src, protocol: f.Protocol, redirected: redirected(f)}
	if takes {
		p.source = f.Reply.Dst.Addr()
	}
	return p
}

// begin forgets all pairs.
func (s *flowPairs) begin() {
	if s.counts == nil {
		s.seed, s.counts, s.pairs = maphash.MakeSeed(), make([]pairCount, pairSlots), make([]flowPair, pairSlots)
	}
	clear(s.counts)
}

// count returns the count of a pair, and whether that is a new one, which lacks its
// row. One that has to go for it is handed on first.
func (s *flowPairs) count(p *flowPair, use func(*flowPair, *pairCount)) (n *pairCount, fresh bool) {
	hash := s.hash(p)
	at := hash % pairSlots
	n = &s.counts[at]
	other := &s.counts[at^1]
	switch {
	case n.hash == hash:
		return n, false
	case other.hash == hash:
		return other, false
	case n.hash != 0:
		if other.hash != 0 {
			use(&s.pairs[at^1], other)
		}
		*other, s.pairs[at^1] = *n, s.pairs[at]
	}
	*n, s.pairs[at] = pairCount{hash: hash}, *p
	return n, true
}

// end hands on all counts.
func (s *flowPairs) end(use func(*flowPair, *pairCount)) {
	for i := range s.counts {
		if s.counts[i].hash != 0 {
			use(&s.pairs[i], &s.counts[i])
		}
	}
}

// hash is never 0.
func (s *flowPairs) hash(p *flowPair) uint64 {
	var b [54]byte
	put := func(at int, a netip.Addr) {
		addr := a.As16()
		copy(b[at:], addr[:])
	}
	put(0, p.to.Addr())
	put(16, p.from.Addr())
	if p.source.IsValid() {
		put(32, p.source)
		b[53] = 1
	}
	binary.NativeEndian.PutUint16(b[48:], p.to.Port())
	binary.NativeEndian.PutUint16(b[50:], p.from.Port())
	b[52] = p.protocol
	if p.redirected {
		b[53] |= 2
	}
	return maphash.Bytes(s.seed, b[:]) | 1<<63
}
