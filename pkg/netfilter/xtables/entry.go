// SPDX-License-Identifier: Apache-2.0

package xtables

import (
	"fmt"

	"github.com/svcscope/svcscope/pkg/netfilter"
)

// layout holds the offsets by which struct ipt_entry and ip6t_entry differ.
type layout struct {
	entry    string // C name
	addrLen  int    // src, dst, smsk, dmsk follow each other from 0
	ifaces   int    // iniface, outiface and their masks, 16 bytes each
	proto    int    // u16
	tos      int    // u8; 0 if there is none
	flags    int    // u8
	invert   int    // u8
	ipLen    int    // sizeof(struct ipt_ip)
	offsets  int    // target_offset, next_offset, u16 each
	counters int    // pcnt, bcnt, u64 each
	size     int    // sizeof(struct ipt_entry)

	fragFlag, protoFlag, tosFlag, gotoFlag uint8 // IPT_F_*, IP6T_F_*
}

// layoutOf returns the layout of a family's entries; ok is false for families
// other than the two of IP.
func layoutOf(family netfilter.Family) (l layout, ok bool) {
	switch family {
	case netfilter.IPv4:
		return layout{
			entry: "ipt_entry", addrLen: 4, ifaces: 16, proto: 80, flags: 82, invert: 83,
			ipLen: 84, offsets: 88, counters: 96, size: 112, fragFlag: 1, gotoFlag: 2,
		}, true
	case netfilter.IPv6:
		return layout{
			entry: "ip6t_entry", addrLen: 16, ifaces: 64, proto: 128, tos: 130, flags: 131,
			invert: 132, ipLen: 136, offsets: 140, counters: 152, size: 168,
			protoFlag: 1, tosFlag: 2, gotoFlag: 4,
		}, true
	}
	return layout{}, false
}

const (
	extHeader   = 32 // struct xt_entry_match, struct xt_entry_target
	extNameLen  = 29 // XT_EXTENSION_MAXNAMELEN
	standardLen = 40 // struct xt_standard_target
	errorLen    = 64 // struct xt_error_target
	align       = 8  // of entries, XT_ALIGN
)

// entry is where the parts of one ipt_entry lie in the blob.
type entry struct {
	off    int // of the entry
	target int // of its target
	next   int // of the entry behind it
	kind   targetKind
}

type targetKind uint8

const (
	kindExtension targetKind = iota
	kindStandard
	kindError
)

// headLen is the size of a user chain's head.
func (l *layout) headLen() int { return l.size + errorLen }

// frame checks that the entry at off and its target lie inside the blob, and
// tells the target's kind.
func (l *layout) frame(blob []byte, off int) (entry, error) {
	head, err := take(blob, off, l.size, l.entry)
	if err != nil {
		return entry{}, err
	}
	targetOff, nextOff := int(u16(head, l.offsets)), int(u16(head, l.offsets+2))
	switch {
	case nextOff < l.size+extHeader || nextOff%align != 0:
		return entry{}, fmt.Errorf("%s at offset %d: next_offset %d", l.entry, off, nextOff)
	case targetOff < l.size || targetOff > nextOff-extHeader:
		return entry{}, fmt.Errorf("%s at offset %d: target_offset %d, next_offset %d",
			l.entry, off, targetOff, nextOff)
	}
	body, err := take(blob, off, nextOff, l.entry)
	if err != nil {
		return entry{}, err
	}
	e := entry{off: off, target: off + targetOff, next: off + nextOff}
	switch target := body[targetOff:]; {
	case target[2] == 0:
		e.kind, err = kindStandard, e.hasTarget(standardLen, "xt_standard_target")
	case string(target[2:8]) == "ERROR\x00":
		e.kind, err = kindError, e.hasTarget(errorLen, "xt_error_target")
	}
	return e, err
}

// hasTarget checks the room for a target of size bytes.
func (e entry) hasTarget(size int, what string) error {
	if have := e.next - e.target; have < size {
		return &netfilter.ShortError{Struct: what, Offset: e.target, Need: size, Have: have}
	}
	return nil
}

// scanEntry checks everything that the views rely on: that all parts of the
// entry at off lie inside of it, and names end.
func (l *layout) scanEntry(blob []byte, off int) (entry, error) {
	e, err := l.frame(blob, off)
	if err != nil {
		return entry{}, err
	}
	body, targetOff := blob[off:e.next], e.target-off
	for at := l.size; at < targetOff; {
		n, err := scanExtension(body[:targetOff], at, "xt_entry_match", off)
		if err != nil {
			return entry{}, err
		}
		at += n
	}
	size, err := scanExtension(body, targetOff, "xt_entry_target", off)
	if err != nil {
		return entry{}, err
	}
	if e.kind == kindStandard && size < standardLen {
		return entry{}, fmt.Errorf("xt_standard_target at offset %d: size %d", e.target, size)
	}
	return e, nil
}

// scanExtension checks the head of the match or target at body[at:] and
// returns its size, head included. base is the entry's offset in the blob.
func scanExtension(body []byte, at int, what string, base int) (int, error) {
	if len(body)-at < extHeader {
		return 0, &netfilter.ShortError{Struct: what, Offset: base + at, Need: extHeader, Have: len(body) - at}
	}
	size := int(u16(body, at))
	if size < extHeader || size > len(body)-at {
		return 0, fmt.Errorf("%s at offset %d: size %d, have %d bytes", what, base+at, size, len(body)-at)
	}
	if _, ok := cstr(body[at+2 : at+2+extNameLen]); !ok {
		return 0, fmt.Errorf("%s at offset %d: name has no end", what, base+at)
	}
	return size, nil
}

// verdict returns the verdict of an entry with a standard target.
func (e entry) verdict(blob []byte) Verdict {
	return Verdict(int32(u32(blob, e.target+extHeader)))
}

// unconditional tells whether the entry matches every packet.
func (l *layout) unconditional(blob []byte, e entry) bool {
	if e.target-e.off != l.size {
		return false
	}
	for _, b := range blob[e.off : e.off+l.ipLen] {
		if b != 0 {
			return false
		}
	}
	return true
}

func (l *layout) counter(blob []byte, off int) netfilter.Counter {
	return netfilter.Counter{Packets: u64(blob, off+l.counters), Bytes: u64(blob, off+l.counters+8)}
}
