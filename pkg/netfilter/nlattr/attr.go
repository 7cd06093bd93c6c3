// SPDX-License-Identifier: Apache-2.0

package nlattr

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/svcscope/svcscope/pkg/netfilter"
)

// AttrHeaderLen is the size of struct nlattr.
const AttrHeaderLen = 4

// Bits in nla_type beside the type, include/uapi/linux/netlink.h.
const (
	nested   = 0x8000 // NLA_F_NESTED
	typeMask = 0x3fff // NLA_TYPE_MASK
)

// Error says that an attribute has another length than its type, or is
// missing although a message means nothing without it.
type Error struct {
	Attr string // C name of the attribute or structure
	Len  int    // bytes it has; -1 when it is missing
	Want int    // bytes it should have
}

// Error names the attribute and both lengths, or says that it is missing.
func (e *Error) Error() string {
	if e.Len < 0 {
		return e.Attr + ": missing"
	}
	return fmt.Sprintf("%s: %d bytes, want %d", e.Attr, e.Len, e.Want)
}

// Missing returns the Error for an attribute that a message lacks.
func Missing(attr string) error { return &Error{Attr: attr, Len: -1} }

// Iter walks the attributes of one message or of one nested attribute.
type Iter struct {
	b   []byte
	off int
	typ uint16
	val []byte
	err error
	// seen has bit n for an attribute of type n met so far.
	seen uint64
}

// Attrs returns an iterator over the attributes in b. Slices that it hands
// out share b's memory.
func Attrs(b []byte) Iter { return Iter{b: b} }

// Next moves to the next attribute. It returns false at the end and after an
// error, which Err then returns.
func (it *Iter) Next() bool {
	rest := len(it.b) - it.off
	if it.err != nil || rest == 0 {
		return false
	}
	if rest < AttrHeaderLen {
		it.err = &netfilter.ShortError{Struct: "nlattr", Offset: it.off, Need: AttrHeaderLen, Have: rest}
		return false
	}
	h := it.b[it.off:]
	size := int(binary.NativeEndian.Uint16(h))
	if size < AttrHeaderLen {
		it.err = &Error{Attr: "nlattr", Len: size, Want: AttrHeaderLen}
		return false
	}
	if size > rest {
		it.err = &netfilter.ShortError{Struct: "nlattr", Offset: it.off, Need: size, Have: rest}
		return false
	}
	it.typ = binary.NativeEndian.Uint16(h[2:]) & typeMask
	it.val = h[AttrHeaderLen:size:size]
	it.seen |= 1 << it.typ // 0 for types of 64 and more
	// The padding after the last attribute may be left out.
	it.off += min(align(size), rest)
	return true
}

// Type returns the attribute's type without the flag bits.
func (it *Iter) Type() uint16 { return it.typ }

// Bytes returns the attribute's value, which shares the buffer's memory.
func (it *Iter) Bytes() []byte { return it.val }

// Err returns the first error of the walk or of a value, or nil.
func (it *Iter) Err() error { return it.err }

// Fail makes err the walk's error, unless it has one; nil changes nothing.
func (it *Iter) Fail(err error) {
	if it.err == nil {
		it.err = err
	}
}

// Seen says whether the walk has met an attribute of the type, 0 to 63.
func (it *Iter) Seen(typ uint16) bool { return it.seen&(1<<typ) != 0 }

// Require fails the walk if it has not met an attribute of the type (0 to
// 63), whose C name is attr.
func (it *Iter) Require(typ uint16, attr string) {
	if !it.Seen(typ) {
		it.Fail(&Error{Attr: attr, Len: -1})
	}
}

func (it *Iter) fixed(attr string, n int) bool {
	if len(it.val) != n {
		it.Fail(&Error{Attr: attr, Len: len(it.val), Want: n})
		return false
	}
	return true
}

// Uint8 returns a value of one byte, or 0 and fails the walk; attr is the
// attribute's C name for the error.
func (it *Iter) Uint8(attr string) uint8 {
	if !it.fixed(attr, 1) {
		return 0
	}
	return it.val[0]
}

// Uint16 returns a big-endian value of 2 bytes, or 0 and fails the walk.
func (it *Iter) Uint16(attr string) uint16 {
	if !it.fixed(attr, 2) {
		return 0
	}
	return binary.BigEndian.Uint16(it.val)
}

// Uint32 returns a big-endian value of 4 bytes, or 0 and fails the walk.
func (it *Iter) Uint32(attr string) uint32 {
	if !it.fixed(attr, 4) {
		return 0
	}
	return binary.BigEndian.Uint32(it.val)
}

// Uint64 returns a big-endian value of 8 bytes, or 0 and fails the walk.
func (it *Iter) Uint64(attr string) uint64 {
	if !it.fixed(attr, 8) {
		return 0
	}
	return binary.BigEndian.Uint64(it.val)
}

// Text returns a string attribute up to its NUL, as a slice of the buffer.
// A string without NUL ends with the attribute.
func (it *Iter) Text() []byte {
	if i := bytes.IndexByte(it.val, 0); i >= 0 {
		return it.val[:i]
	}
	return it.val
}

// String is Text as a string of its own memory.
func (it *Iter) String() string { return string(it.Text()) }

// Nested returns an iterator over the attributes inside this one.
func (it *Iter) Nested() Iter { return Attrs(it.val) }
