// SPDX-License-Identifier: Apache-2.0

package xtables

import (
	"bytes"
	"encoding/binary"

	"github.com/svcscope/svcscope/pkg/netfilter"
)

// DecodeMatch decodes the data of a match, that is what follows struct
// xt_entry_match, or NFTA_MATCH_INFO of a compat expression; padding behind
// the structure is ignored. family says how to read addresses. A name or
// revision that is not known gives an Opaque, not an error; bytes that are too
// few for the structure give a *netfilter.ShortError. The value does not refer
// to data.
func DecodeMatch(family netfilter.Family, name string, revision uint8, data []byte) (Match, error) {
	d := matchDecoder(name, revision)
	if d.decode == nil {
		return opaque(name, revision, data), nil
	}
	b, err := take(data, 0, d.size, d.name)
	if err != nil {
		return nil, err
	}
	m := d.decode(family, b)
	if m == nil { // options that are not decoded
		return opaque(name, revision, data), nil
	}
	return m, nil
}

func opaque(name string, revision uint8, data []byte) Opaque {
	return Opaque{Name: name, Revision: revision, Data: bytes.Clone(data)}
}

// decoder is how to decode one revision: decode gets exactly size bytes, and
// returns nil for what it leaves to Opaque.
type decoder[T any] struct {
	name   string // of the C structure
	size   int
	decode func(f netfilter.Family, b []byte) T
}

// matchDecoder returns the decoder of a match; its decode is nil for unknown
// ones. Sizes are those of 64-bit kernels, checked by TestSizes.
func matchDecoder(name string, revision uint8) decoder[Match] {
	switch key := (extKey{name, revision}); key {
	case extKey{"comment", 0}:
		return decoder[Match]{"xt_comment_info", 256, decodeComment}
	case extKey{"tcp", 0}:
		return decoder[Match]{"xt_tcp", 12, decodeTCP}
	case extKey{"udp", 0}:
		return decoder[Match]{"xt_udp", 10, decodeUDP}
	case extKey{"sctp", 0}:
		return decoder[Match]{"xt_sctp_info", 292, decodeSCTP}
	case extKey{"addrtype", 0}:
		return decoder[Match]{"xt_addrtype_info", 12, decodeAddrType0}
	case extKey{"addrtype", 1}:
		return decoder[Match]{"xt_addrtype_info_v1", 8, decodeAddrType1}
	case extKey{"statistic", 0}:
		return decoder[Match]{"xt_statistic_info", 24, decodeStatistic}
	case extKey{"mark", 0}:
		return decoder[Match]{"xt_mark_info", 24, decodeMark0}
	case extKey{"mark", 1}:
		return decoder[Match]{"xt_mark_mtinfo1", 12, decodeMark1}
	case extKey{"conntrack", 1}:
		return decoder[Match]{"xt_conntrack_mtinfo1", 152, decodeConntrack1}
	case extKey{"conntrack", 2}:
		return decoder[Match]{"xt_conntrack_mtinfo2", 156, decodeConntrack2}
	case extKey{"conntrack", 3}:
		return decoder[Match]{"xt_conntrack_mtinfo3", 164, decodeConntrack3}
	case extKey{"recent", 0}:
		return decoder[Match]{"xt_recent_mtinfo", 212, decodeRecent0}
	case extKey{"recent", 1}:
		return decoder[Match]{"xt_recent_mtinfo_v1", 228, decodeRecent1}
	case extKey{"nfacct", 0}:
		return decoder[Match]{"xt_nfacct_match_info", 40, decodeNFAcct}
	case extKey{"nfacct", 1}:
		return decoder[Match]{"xt_nfacct_match_info_v1", 40, decodeNFAcct}
	case extKey{"multiport", 0}:
		return decoder[Match]{"xt_multiport", 32, decodeMultiport0}
	case extKey{"multiport", 1}:
		return decoder[Match]{"xt_multiport_v1", 48, decodeMultiport1}
	case extKey{"state", 0}:
		return decoder[Match]{"xt_state_info", 4, decodeState}
	case extKey{"limit", 0}:
		return decoder[Match]{"xt_rateinfo", 40, decodeLimit}
	case extKey{"physdev", 0}:
		return decoder[Match]{"xt_physdev_info", 66, decodePhysdev}
	}
	return decoder[Match]{}
}

type extKey struct {
	name     string
	revision uint8
}

func decodeComment(_ netfilter.Family, b []byte) Match { return Comment{Text: str(b)} }

func ports(b []byte, off int) PortRange {
	return PortRange{First: u16(b, off), Last: u16(b, off+2)}
}

func decodeTCP(_ netfilter.Family, b []byte) Match {
	inv := b[11] // XT_TCP_INV_SRCPT 1, DSTPT 2, FLAGS 4, OPTION 8
	return TCP{
		Source: ports(b, 0), Dest: ports(b, 4),
		NotSource: inv&1 != 0, NotDest: inv&2 != 0,
		Option: b[8], NotOption: inv&8 != 0,
		FlagsMask: b[9], Flags: b[10], NotFlags: inv&4 != 0,
	}
}

func decodeUDP(_ netfilter.Family, b []byte) Match {
	inv := b[8] // XT_UDP_INV_SRCPT 1, DSTPT 2
	return UDP{
		Source: ports(b, 0), Dest: ports(b, 4),
		NotSource: inv&1 != 0, NotDest: inv&2 != 0,
	}
}

func decodeSCTP(_ netfilter.Family, b []byte) Match {
	const srcPorts, destPorts, chunkTypes = 1, 2, 4 // XT_SCTP_*
	flags, inv := u32(b, 284), u32(b, 288)
	if flags&chunkTypes != 0 {
		return nil
	}
	m := SCTP{Source: PortRange{Last: 65535}, Dest: PortRange{Last: 65535}}
	// The destination stands first in this structure.
	if flags&srcPorts != 0 {
		m.Source, m.NotSource = ports(b, 4), inv&srcPorts != 0
	}
	if flags&destPorts != 0 {
		m.Dest, m.NotDest = ports(b, 0), inv&destPorts != 0
	}
	return m
}

func decodeAddrType0(_ netfilter.Family, b []byte) Match {
	return AddrType{
		Source: u16(b, 0), Dest: u16(b, 2),
		NotSource: u32(b, 4) != 0, NotDest: u32(b, 8) != 0,
	}
}

func decodeAddrType1(_ netfilter.Family, b []byte) Match {
	flags := u32(b, 4)
	return AddrType{
		Source: u16(b, 0), Dest: u16(b, 2),
		NotSource: flags&1 != 0, NotDest: flags&2 != 0, Flags: flags &^ 3,
	}
}

func decodeStatistic(_ netfilter.Family, b []byte) Match {
	m := Statistic{Mode: StatisticMode(u16(b, 0)), Not: u16(b, 2)&1 != 0}
	switch m.Mode {
	case StatisticRandom:
		m.Probability = u32(b, 4)
	case StatisticNth:
		m.Every, m.Packet = u32(b, 4), u32(b, 8)
	default:
		return nil
	}
	return m
}

// decodeMark0 reads two unsigned longs, of which marks fill the low half.
func decodeMark0(_ netfilter.Family, b []byte) Match {
	return Mark{Value: uint32(u64(b, 0)), Mask: uint32(u64(b, 8)), Not: b[16] != 0}
}

func decodeMark1(_ netfilter.Family, b []byte) Match {
	return Mark{Value: u32(b, 0), Mask: u32(b, 4), Not: b[8] != 0}
}

func decodeRecent0(_ netfilter.Family, b []byte) Match {
	return Recent{
		Seconds: u32(b, 0), HitCount: u32(b, 4), Flags: b[8], Not: b[9] != 0,
		List: str(b[10:210]), Dest: b[210] != 0,
	}
}

func decodeRecent1(f netfilter.Family, b []byte) Match {
	m := decodeRecent0(f, b).(Recent)
	m.Mask = inetAddr(f, b, 212)
	return m
}

func decodeNFAcct(_ netfilter.Family, b []byte) Match { return NFAcct{Object: str(b[:32])} }

func decodeMultiport0(_ netfilter.Family, b []byte) Match {
	n := int(b[1])
	if n > 15 { // XT_MULTI_PORTS
		return nil
	}
	m := Multiport{Kind: MultiportKind(b[0]), Ports: make([]PortRange, 0, n)}
	for i := range n {
		p := u16(b, 2+2*i)
		m.Ports = append(m.Ports, PortRange{p, p})
	}
	return m
}

// decodeMultiport1 reads ports with flags: where pflags[i] is set, ports[i]
// and ports[i+1] are the ends of a range.
func decodeMultiport1(_ netfilter.Family, b []byte) Match {
	n := int(b[1])
	if n > 15 {
		return nil
	}
	m := Multiport{Kind: MultiportKind(b[0]), Ports: make([]PortRange, 0, n), Not: b[47] != 0}
	for i := 0; i < n; i++ {
		r := PortRange{u16(b, 2+2*i), u16(b, 2+2*i)}
		if b[32+i] != 0 {
			if i++; i >= n {
				return nil
			}
			r.Last = u16(b, 2+2*i)
		}
		m.Ports = append(m.Ports, r)
	}
	return m
}

func decodeState(_ netfilter.Family, b []byte) Match { return State{Mask: u32(b, 0)} }

func decodeLimit(_ netfilter.Family, b []byte) Match {
	return Limit{Average: u32(b, 0), Burst: u32(b, 4)}
}

func decodePhysdev(_ netfilter.Family, b []byte) Match {
	return Physdev{
		In: decodeInterface(b[:16], b[16:32]), Out: decodeInterface(b[32:48], b[48:64]),
		Invert: b[64], Bitmask: b[65],
	}
}

func decodeConntrack1(f netfilter.Family, b []byte) Match {
	m := conntrackHead(f, b)
	m.States, m.Statuses = uint16(b[150]), uint16(b[151])
	return m
}

func decodeConntrack2(f netfilter.Family, b []byte) Match {
	m := conntrackHead(f, b)
	m.States, m.Statuses = u16(b, 150), u16(b, 152)
	return m
}

// decodeConntrack3 adds the upper ends of the port ranges. All ports are in
// the machine's byte order in revision 3, in network order before
// (net/netfilter/xt_conntrack.c, conntrack_mt_v3 and ct_proto_port_check).
func decodeConntrack3(f netfilter.Family, b []byte) Match {
	m := decodeConntrack2(f, b).(Conntrack)
	for i, p := range []*PortRange{&m.OrigSPort, &m.OrigDPort, &m.ReplSPort, &m.ReplDPort} {
		*p = PortRange{u16(b, 138+2*i), u16(b, 154+2*i)}
	}
	return m
}

// conntrackHead reads what the three revisions have in common.
func conntrackHead(f netfilter.Family, b []byte) Conntrack {
	m := Conntrack{
		ExpiresMin: u32(b, 128), ExpiresMax: u32(b, 132), Proto: u16(b, 136),
		Flags: u16(b, 146), Invert: u16(b, 148),
	}
	for i, a := range []*Address{&m.OrigSrc, &m.OrigDst, &m.ReplSrc, &m.ReplDst} {
		*a = Address{Addr: inetAddr(f, b, 32*i), Mask: inetAddr(f, b, 32*i+16)}
	}
	for i, p := range []*PortRange{&m.OrigSPort, &m.OrigDPort, &m.ReplSPort, &m.ReplDPort} {
		n := binary.BigEndian.Uint16(b[138+2*i:])
		*p = PortRange{n, n}
	}
	return m
}
