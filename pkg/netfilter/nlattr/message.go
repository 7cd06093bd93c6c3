// SPDX-License-Identifier: Apache-2.0

package nlattr

import (
	"encoding/binary"

	"github.com/svcscope/svcscope/pkg/netfilter"
)

// HeaderLen is the size of struct nlmsghdr.
const HeaderLen = 16

// Message types that every netlink family shares, include/uapi/linux/netlink.h.
const (
	TypeNoop    = 1 // NLMSG_NOOP
	TypeError   = 2 // NLMSG_ERROR
	TypeDone    = 3 // NLMSG_DONE
	TypeOverrun = 4 // NLMSG_OVERRUN
)

// Flags of a message header, include/uapi/linux/netlink.h.
const (
	FlagRequest      = 0x1   // NLM_F_REQUEST
	FlagMulti        = 0x2   // NLM_F_MULTI
	FlagAck          = 0x4   // NLM_F_ACK
	FlagDumpIntr     = 0x10  // NLM_F_DUMP_INTR: what is dumped changed meanwhile
	FlagDumpFiltered = 0x20  // NLM_F_DUMP_FILTERED
	FlagDump         = 0x300 // NLM_F_DUMP
)

// Message is one netlink message. Payload is a slice of the iterated buffer.
type Message struct {
	Type    uint16
	Flags   uint16
	Seq     uint32
	Port    uint32
	Payload []byte
}

// Errno returns the positive errno that an NLMSG_ERROR or NLMSG_DONE message
// carries, 0 for an acknowledgement, a dump's normal end, or another type.
// A message of those types without its four bytes is an error; an NLMSG_DONE
// may be empty.
func (m *Message) Errno() (int, error) {
	if m.Type != TypeError && m.Type != TypeDone {
		return 0, nil
	}
	if len(m.Payload) < 4 {
		if m.Type == TypeDone && len(m.Payload) == 0 {
			return 0, nil
		}
		return 0, &netfilter.ShortError{Struct: "nlmsgerr", Offset: HeaderLen, Need: 4, Have: len(m.Payload)}
	}
	// The kernel sends negative errnos, and in an NLMSG_DONE sometimes a
	// length >= 0, which is no error.
	if e := int32(binary.NativeEndian.Uint32(m.Payload)); e < 0 {
		return -int(e), nil
	}
	return 0, nil
}

// MessageIter walks the messages of one datagram.
type MessageIter struct {
	b   []byte
	off int
	msg Message
	err error
}

// Messages returns an iterator over the netlink messages in b, as one recv
// returned them.
func Messages(b []byte) MessageIter { return MessageIter{b: b} }

// Next moves to the next message. It returns false at the end and after an
// error, which Err then returns.
func (it *MessageIter) Next() bool {
	rest := len(it.b) - it.off
	if it.err != nil || rest == 0 {
		return false
	}
	if rest < HeaderLen {
		it.err = &netfilter.ShortError{Struct: "nlmsghdr", Offset: it.off, Need: HeaderLen, Have: rest}
		return false
	}
	h := it.b[it.off:]
	size := binary.NativeEndian.Uint32(h)
	if size < HeaderLen {
		it.err = &Error{Attr: "nlmsghdr", Len: int(size), Want: HeaderLen}
		return false
	}
	if uint64(size) > uint64(rest) {
		it.err = &netfilter.ShortError{Struct: "nlmsghdr", Offset: it.off, Need: int(size), Have: rest}
		return false
	}
	it.msg = Message{
		Type:    binary.NativeEndian.Uint16(h[4:]),
		Flags:   binary.NativeEndian.Uint16(h[6:]),
		Seq:     binary.NativeEndian.Uint32(h[8:]),
		Port:    binary.NativeEndian.Uint32(h[12:]),
		Payload: h[HeaderLen:size:size],
	}
	it.off += min(align(int(size)), rest)
	return true
}

// Message returns the message that Next moved to. It is overwritten by the
// following Next.
func (it *MessageIter) Message() *Message { return &it.msg }

// Err returns what ended the walk before the last byte, or nil.
func (it *MessageIter) Err() error { return it.err }

func align(n int) int { return (n + 3) &^ 3 }
