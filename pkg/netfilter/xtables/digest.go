// SPDX-License-Identifier: Apache-2.0

package xtables

import (
	"hash/maphash"
	"math/bits"
)

// digestSeed makes digests those of this process: who writes rules cannot know
// two chains of one digest.
var digestSeed = maphash.MakeSeed()

// digest adds an entry to a chain's digest. What is left out are its counters,
// and what the kernel notes beside them (nfcache, comefrom). The offset that a
// jump leads to moves with every other chain of the table: the name of the
// chain, which lies right before it, is taken instead.
func (t *Table) digest(h uint64, e entry) uint64 {
	l, blob := &t.layout, t.blob
	h = mix(h, maphash.Bytes(digestSeed, blob[e.off:e.off+l.ipLen]))
	h = mix(h, uint64(u32(blob, e.off+l.offsets)))
	if e.kind != kindStandard {
		return mix(h, maphash.Bytes(digestSeed, blob[e.off+l.size:e.next]))
	}
	h = mix(h, maphash.Bytes(digestSeed, blob[e.off+l.size:e.target+extHeader]))
	const (
		nameBytes = 32 // errorname and padding, at the end of a chain's head
		goesOn    = 1 << 32
		elsewhere = 2 << 32
	)
	switch v := int(e.verdict(blob)); {
	case v < 0:
		return mix(h, uint64(uint32(v)))
	case v == e.next:
		return mix(h, goesOn)
	case v >= nameBytes && v <= len(blob):
		return mix(h, maphash.Bytes(digestSeed, blob[v-nameBytes:v-2]))
	default: // Check refuses it
		return mix(h, elsewhere|uint64(uint32(v)))
	}
}

// mix folds x into h; the order counts.
func mix(h, x uint64) uint64 {
	hi, lo := bits.Mul64(h^0x9e3779b97f4a7c15, x^0xbf58476d1ce4e5b9)
	return hi ^ lo
}
