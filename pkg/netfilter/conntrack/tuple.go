// SPDX-License-Identifier: Apache-2.0

package conntrack

import (
	"encoding/binary"
	"net/netip"

	"github.com/svcscope/svcscope/pkg/netfilter/nlattr"
)

// Tuple is one direction of a flow. Protocols without ports have 0 in both;
// ICMP has its identifier as the source's port.
type Tuple struct {
	Src, Dst netip.AddrPort
}

// enum ctattr_tuple, ctattr_ip, ctattr_l4proto
const (
	ctaTupleIP    = 1
	ctaTupleProto = 2

	ctaIPv4Src = 1
	ctaIPv4Dst = 2
	ctaIPv6Src = 3
	ctaIPv6Dst = 4

	ctaProtoNum     = 1
	ctaProtoSrcPort = 2
	ctaProtoDstPort = 3
	ctaProtoICMPID  = 4
	ctaProtoICMP6ID = 7
)

// decode reads a CTA_TUPLE_*.
func (t *Tuple) decode(b []byte, protocol *uint8) error {
	if layout4.is(b) {
		*protocol = b[28]
		t.Src = netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[8:])), binary.BigEndian.Uint16(b[36:]))
		t.Dst = netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[16:])), binary.BigEndian.Uint16(b[44:]))
		return nil
	}
	if layout6.is(b) {
		*protocol = b[52]
		t.Src = netip.AddrPortFrom(netip.AddrFrom16([16]byte(b[8:])), binary.BigEndian.Uint16(b[60:]))
		t.Dst = netip.AddrPortFrom(netip.AddrFrom16([16]byte(b[28:])), binary.BigEndian.Uint16(b[68:]))
		return nil
	}
	return t.walk(b, protocol)
}

// layout is how Linux lays out the tuple of a protocol with ports
// (ctnetlink_dump_tuples in net/netfilter/nf_conntrack_netlink.c): where there
// are headers of attributes, and which. Nearly every tuple of a table is so, and
// is read in a tenth of the time of a walk.
type layout struct {
	size    int
	headers [7]header
}

type header struct {
	at   int
	word uint32
}

var layout4, layout6 = layoutOf(4), layoutOf(16)

func layoutOf(addr int) layout {
	const nested = 0x8000 // NLA_F_NESTED
	l := layout{size: 40 + 2*addr}
	at := 0
	for i, h := range [...]struct{ typ, size, value int }{
		{ctaTupleIP | nested, 12 + 2*addr, 0},
		{ctaIPv4Src, 4 + addr, addr},
		{ctaIPv4Dst, 4 + addr, addr},
		{ctaTupleProto | nested, 28, 0},
		{ctaProtoNum, 5, 4},
		{ctaProtoSrcPort, 6, 4},
		{ctaProtoDstPort, 6, 4},
	} {
		if addr == 16 && (i == 1 || i == 2) {
			h.typ += ctaIPv6Src - ctaIPv4Src
		}
		b := binary.NativeEndian.AppendUint16(nil, uint16(h.size))
		l.headers[i] = header{at, binary.NativeEndian.Uint32(binary.NativeEndian.AppendUint16(b, uint16(h.typ)))}
		at += nlattr.AttrHeaderLen + h.value
	}
	return l
}

func (l *layout) is(b []byte) bool {
	if len(b) != l.size {
		return false
	}
	for i := range l.headers {
		if binary.NativeEndian.Uint32(b[l.headers[i].at:]) != l.headers[i].word {
			return false
		}
	}
	return true
}

// walk reads a tuple of any layout.
func (t *Tuple) walk(b []byte, protocol *uint8) error {
	var src, dst netip.Addr
	var srcPort, dstPort uint16
	a := nlattr.Attrs(b)
	for a.Next() {
		switch a.Type() {
		case ctaTupleIP:
			a.Fail(decodeAddrs(a.Bytes(), &src, &dst))
		case ctaTupleProto:
			p := a.Nested()
			for p.Next() {
				switch p.Type() {
				case ctaProtoNum:
					*protocol = p.Uint8("CTA_PROTO_NUM")
				case ctaProtoSrcPort:
					srcPort = p.Uint16("CTA_PROTO_SRC_PORT")
				case ctaProtoDstPort:
					dstPort = p.Uint16("CTA_PROTO_DST_PORT")
				case ctaProtoICMPID, ctaProtoICMP6ID:
					srcPort = p.Uint16("CTA_PROTO_ICMP_ID")
				}
			}
			p.Require(ctaProtoNum, "CTA_PROTO_NUM")
			a.Fail(p.Err())
		}
	}
	a.Require(ctaTupleIP, "CTA_TUPLE_IP")
	a.Require(ctaTupleProto, "CTA_TUPLE_PROTO")
	t.Src, t.Dst = netip.AddrPortFrom(src, srcPort), netip.AddrPortFrom(dst, dstPort)
	return a.Err()
}

// decodeAddrs reads a CTA_TUPLE_IP.
func decodeAddrs(b []byte, src, dst *netip.Addr) error {
	a := nlattr.Attrs(b)
	for a.Next() {
		switch a.Type() {
		case ctaIPv4Src:
			*src = addr4(&a, "CTA_IP_V4_SRC")
		case ctaIPv4Dst:
			*dst = addr4(&a, "CTA_IP_V4_DST")
		case ctaIPv6Src:
			*src = addr16(&a, "CTA_IP_V6_SRC")
		case ctaIPv6Dst:
			*dst = addr16(&a, "CTA_IP_V6_DST")
		}
	}
	if !src.IsValid() || !dst.IsValid() || src.Is4() != dst.Is4() {
		a.Fail(nlattr.Missing("CTA_IP_*"))
	}
	return a.Err()
}

func addr4(a *nlattr.Iter, name string) netip.Addr {
	b := a.Bytes()
	if len(b) != 4 {
		a.Fail(&nlattr.Error{Attr: name, Len: len(b), Want: 4})
		return netip.Addr{}
	}
	return netip.AddrFrom4([4]byte(b))
}

func addr16(a *nlattr.Iter, name string) netip.Addr {
	b := a.Bytes()
	if len(b) != 16 {
		a.Fail(&nlattr.Error{Attr: name, Len: len(b), Want: 16})
		return netip.Addr{}
	}
	return netip.AddrFrom16([16]byte(b))
}
