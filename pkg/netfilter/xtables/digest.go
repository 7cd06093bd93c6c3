// SPDX-License-Identifier: Apache-2.0

package xtables

import (
	"encoding/binary"
	"hash/maphash"
	"math/bits"
)

// digestKeys make digests those of this process: who writes rules cannot know
// two chains of one digest. They do not change.
var digestKeys = [3]uint64{digestKey("a"), digestKey("b"), digestKey("c")}

func digestKey(s string) uint64 { return maphash.String(maphash.MakeSeed(), s) }

// digest is the state of a chain's sum: two lanes, that the processor can work
// on at once.
type digest struct{ h, g uint64 }

// entry adds an entry. What is left out are its counters, and what is noted
// beside them (nfcache, comefrom). The offset that a jump leads to moves with
// every other chain of the table: the name of the chain, which lies right
// before it, is taken instead.
func (d *digest) entry(t *Table, e entry) {
	l, blob := &t.layout, t.blob
	d.add(blob[e.off : e.off+l.ipLen])
	d.word(uint64(u32(blob, e.off+l.offsets)))
	if e.kind != kindStandard {
		d.add(blob[e.off+l.size : e.next])
		return
	}
	d.add(blob[e.off+l.size : e.target+extHeader])
	const (
		nameBytes = 32 // errorname and padding, at the end of a chain's head
		goesOn    = 1 << 32
		elsewhere = 2 << 32
	)
	switch v := int(e.verdict(blob)); {
	case v < 0:
		d.word(uint64(uint32(v)))
	case v == e.next:
		d.word(goesOn)
	case v >= nameBytes && v <= len(blob):
		var name [nameBytes]byte // what is behind the end is anything
		s, _ := cstr(blob[v-nameBytes : v-2])
		copy(name[:], s)
		d.add(name[:])
	default: // Check refuses it
		d.word(elsewhere | uint64(uint32(v)))
	}
}

// add takes 32 bytes or more: how many, the entry's offsets tell. It is the
// inner loop of wyhash; the pieces are too short for AES to be of use. The last
// 32 bytes may be taken in part for a second time.
func (d *digest) add(b []byte) {
	const block = 32
	h, g := d.h, d.g
	for at := 0; at < len(b); at += block {
		p := b[min(at, len(b)-block):]
		p = p[:block:block]
		h = mix(word(p, 0)^digestKeys[0], word(p, 8)^h)
		g = mix(word(p, 16)^digestKeys[1], word(p, 24)^g)
	}
	d.h, d.g = h, g
}

func (d *digest) word(v uint64) { d.h = mix(v^digestKeys[0], d.h^digestKeys[2]) }

func (d *digest) sum() uint64 { return mix(d.h^digestKeys[2], d.g^digestKeys[0]) }

func word(b []byte, at int) uint64 { return binary.LittleEndian.Uint64(b[at:]) }

// mix folds two words into one.
func mix(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	return hi ^ lo
}
