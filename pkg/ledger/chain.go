// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"cmp"
	"encoding/binary"
	"slices"
	"time"
)

// indexAbove is the number of counters from which a chain that is not read in
// the order of the last time is searched by an index.
const indexAbove = 16

// chain is the counters of one chain, in the order of its last reading.
type chain struct {
	name     ChainName
	counters []*counter
	visited  uint64             // the round that read it last
	before   uint64             // the round that read it before that
	read     time.Duration      // when that was, since the source's start
	wasRead  time.Duration      // and the reading before
	next     int                // where the next counter is expected
	dirty    bool               // counters came, went or moved in this round
	index    map[ident]*counter // of this round; nil until needed
}

// readBefore returns when the chain was read last before a round.
func (ch *chain) readBefore(round uint64) time.Duration {
	if ch.visited == round {
		return ch.wasRead
	}
	return ch.read
}

// ident is an ID without its table's name: the handles of the table and the
// rule, or else a digest.
type ident struct {
	hi, lo  uint64
	ordinal uint32
	handle  bool
}

func identOf(id *ID) ident {
	if id.RuleHandle != 0 {
		return ident{hi: id.TableHandle, lo: id.RuleHandle, ordinal: id.Ordinal, handle: true}
	}
	hi, lo := binary.NativeEndian.Uint64(id.Digest[:8]), binary.NativeEndian.Uint64(id.Digest[8:])
	return ident{hi: hi, lo: lo, ordinal: id.Ordinal}
}

// find returns the counter of id, or nil. Counters that are read in the same
// order every time cost one comparison each.
func (ch *chain) find(id *ID) *counter {
	key := identOf(id)
	if ch.next < len(ch.counters) && ch.counters[ch.next].id == key {
		ch.next++
		return ch.counters[ch.next-1]
	}
	ch.dirty = true
	if len(ch.counters) > indexAbove {
		return ch.search(key)
	}
	i := slices.IndexFunc(ch.counters, func(c *counter) bool { return c.id == key })
	if i < 0 {
		return nil
	}
	ch.next = i + 1
	return ch.counters[i]
}

func (ch *chain) search(key ident) *counter {
	if ch.index == nil {
		ch.index = make(map[ident]*counter, len(ch.counters))
		for i, c := range ch.counters {
			c.at = int32(i)
			ch.index[c.id] = c
		}
	}
	c := ch.index[key]
	if c != nil {
		ch.next = int(c.at) + 1
	}
	return c
}

// add appends a new counter.
func (ch *chain) add(c *counter) {
	c.chain = ch
	ch.counters = append(ch.counters, c)
	ch.next = len(ch.counters)
	ch.dirty = true
	if ch.index != nil {
		c.at = int32(len(ch.counters) - 1)
		ch.index[c.id] = c
	}
}

// complete reports whether the round's reading held the same counters in the
// same order as the last one.
func (ch *chain) complete(round uint64) bool {
	return ch.visited == round && !ch.dirty && ch.next == len(ch.counters)
}

// keep drops the counters that keep denies and puts the rest in the order of
// the round's reading.
func (ch *chain) keep(keep func(*counter) bool) {
	ch.counters = slices.DeleteFunc(ch.counters, func(c *counter) bool { return !keep(c) })
	slices.SortStableFunc(ch.counters, func(a, b *counter) int { return cmp.Compare(a.place, b.place) })
	ch.dirty, ch.index = false, nil
}
