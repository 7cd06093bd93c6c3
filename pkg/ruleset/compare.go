// SPDX-License-Identifier: Apache-2.0

package ruleset

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"net/netip"

	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/nftables"
)

// cmp turns a comparison with what was loaded before into a condition.
func (e *evaluator) cmp(x nftables.Cmp) {
	v := e.reg(x.SReg)
	equal, notEqual := x.Op == nftables.Equal, x.Op == nftables.NotEqual
	switch {
	case v.kind == fromPayload && v.base == nftables.Transport && v.mask == nil && v.len == 2 && v.off <= 2 && len(x.Data) == 2:
		e.comparePort(v.off, x)
	case !equal && !notEqual:
		e.unknownCompare(v, x.Data)
	case v.kind == fromPayload && v.base == nftables.Network:
		e.compareNetwork(v, x, notEqual)
	case v.kind == fromPayload && v.base == nftables.Transport:
		e.compareTransport(v, x, notEqual)
	case v.kind == fromMeta:
		e.compareMeta(v, x.Data, notEqual)
	case v.kind == fromCT && v.ct == nftables.CTState && len(x.Data) == 4:
		e.compareState(v, binary.NativeEndian.Uint32(x.Data), notEqual)
	case v.kind == fromCT && v.ct == nftables.CTStatus && len(x.Data) == 4:
		e.compareStatus(v, binary.NativeEndian.Uint32(x.Data), notEqual)
	case v.kind == fromFIB:
		e.compareFIB(v, x.Data, notEqual)
	default:
		e.unknownCompare(v, x.Data)
	}
}

// unknownCompare keeps a comparison, named by what was loaded.
func (e *evaluator) unknownCompare(v content, data []byte) {
	name := v.name
	switch v.kind {
	case nothing, constant:
		name = "cmp"
	case fromPayload:
		name = "payload"
	case fromMeta:
		name = "meta"
	case fromCT:
		name = "ct"
	case fromFIB:
		name = "fib"
	case fromNumgen:
		name = "numgen"
	case fromMap:
		name = "lookup"
	}
	e.unknown(name, bytes.Clone(data))
}

func (e *evaluator) comparePort(off uint32, x nftables.Cmp) {
	p := binary.BigEndian.Uint16(x.Data)
	switch x.Op {
	case nftables.Equal, nftables.NotEqual:
		e.port(off, PortRange{p, p}, x.Op == nftables.NotEqual)
	case nftables.LessEqual:
		e.port(off, PortRange{0, p}, false)
	case nftables.GreaterEqual:
		e.port(off, PortRange{p, 65535}, false)
	case nftables.Greater:
		e.port(off, PortRange{0, p}, true)
	case nftables.Less:
		e.port(off, PortRange{p, 65535}, true)
	default:
		e.unknown("cmp", bytes.Clone(x.Data))
	}
}

// port adds a condition on the source port (offset 0) or the destination's
// (2). nft writes a range as two comparisons, which are put together again.
func (e *evaluator) port(off uint32, r PortRange, not bool) {
	if n := len(e.c.scratch); n > 0 && !not && r.First == 0 {
		switch last := e.c.scratch[n-1].(type) {
		case SourcePort:
			if off == 0 && !last.Not && last.Last == 65535 && last.First <= r.Last {
				r.First, e.c.scratch = last.First, e.c.scratch[:n-1]
			}
		case DestinationPort:
			if off == 2 && !last.Not && last.Last == 65535 && last.First <= r.Last {
				r.First, e.c.scratch = last.First, e.c.scratch[:n-1]
			}
		}
	}
	switch off {
	case 0:
		e.c.add(one(e.c.sports, SourcePort{First: r.First, Last: r.Last, Not: not}))
	case 2:
		e.c.add(one(e.c.dports, DestinationPort{First: r.First, Last: r.Last, Not: not}))
	default:
		e.unknown("payload", nil)
	}
}

func (e *evaluator) inRange(x nftables.Range) {
	v := e.reg(x.SReg)
	if v.kind != fromPayload || v.base != nftables.Transport || v.len != 2 || v.off > 2 || v.mask != nil || len(x.From) != 2 || len(x.To) != 2 {
		e.unknownCompare(v, append(bytes.Clone(x.From), x.To...))
		return
	}
	e.port(v.off, PortRange{binary.BigEndian.Uint16(x.From), binary.BigEndian.Uint16(x.To)}, x.Not)
}

// compareNetwork understands addresses, the protocol and IPv4's fragment
// offset. Of an address only so many bytes may be loaded as the prefix has,
// and both addresses may be loaded at once.
func (e *evaluator) compareNetwork(v content, x nftables.Cmp, not bool) {
	src, size, proto := uint32(12), uint32(4), uint32(9)
	switch e.family {
	case netfilter.IPv4:
	case netfilter.IPv6:
		src, size, proto = 8, 16, 6
	default: // a header of either
		e.unknownCompare(v, x.Data)
		return
	}
	dst := src + size
	switch {
	case uint32(len(x.Data)) != v.len || !isZero(v.xor):
		e.unknownCompare(v, x.Data)
	case v.off == proto && v.len == 1 && v.mask == nil:
		e.c.add(one(e.c.protocols, Protocol{Number: x.Data[0], Not: not}))
	case v.off == 6 && v.len == 2 && size == 4 && bytes.Equal(v.mask, []byte{0x1f, 0xff}) && isZero(x.Data):
		e.c.add(Fragment{Not: !not})
	case v.off == src && v.len == 2*size && v.mask == nil && !not:
		e.address(true, x.Data[:size], nil, false)
		e.address(false, x.Data[size:], nil, false)
	case (v.off == src || v.off == dst) && v.len <= size:
		e.address(v.off == src, x.Data, v.mask, not)
	default:
		e.unknownCompare(v, x.Data)
	}
}

// address adds a condition on the source's or the destination's address, of
// which data are the first bytes and mask says which bits count (nil: all).
func (e *evaluator) address(source bool, data, mask []byte, not bool) {
	var addr [16]byte
	ones := len(data) * 8
	copy(addr[:], data)
	if mask != nil {
		n, ok := prefixLen(mask)
		if !ok || len(mask) != len(data) {
			e.unknown("payload", bytes.Clone(data))
			return
		}
		ones = n
	}
	ip := netip.AddrFrom16(addr)
	if e.family != netfilter.IPv6 {
		ip = netip.AddrFrom4([4]byte(addr[:4]))
	}
	p, err := ip.Prefix(ones)
	switch {
	case err != nil:
		e.unknown("payload", bytes.Clone(data))
	case source:
		e.c.add(one(e.c.sources, Source{Prefix: p, Not: not}))
	default:
		e.c.add(one(e.c.dests, Destination{Prefix: p, Not: not}))
	}
}

// prefixLen counts the leading ones of a mask; ok is false if others follow.
func prefixLen(mask []byte) (n int, ok bool) {
	for i, b := range mask {
		ones := bits.LeadingZeros8(^b)
		n += ones
		if ones < 8 {
			return n, b<<ones == 0 && isZero(mask[i+1:])
		}
	}
	return n, true
}

func isZero(b []byte) bool {
	for _, v := range b {
		if v != 0 {
			return false
		}
	}
	return true
}

// compareTransport understands TCP's flags and both ports loaded at once.
func (e *evaluator) compareTransport(v content, x nftables.Cmp, not bool) {
	switch {
	case uint32(len(x.Data)) != v.len || !isZero(v.xor):
		e.unknownCompare(v, x.Data)
	case v.off == 13 && v.len == 1 && (v.mask == nil || len(v.mask) == 1):
		mask := byte(0xff)
		if v.mask != nil {
			mask = v.mask[0]
		}
		e.c.add(TCPFlags{Mask: mask, Value: x.Data[0], Not: not})
	case v.off == 0 && v.len == 4 && v.mask == nil && !not:
		src, dst := binary.BigEndian.Uint16(x.Data), binary.BigEndian.Uint16(x.Data[2:])
		e.port(0, PortRange{src, src}, false)
		e.port(2, PortRange{dst, dst}, false)
	default:
		e.unknownCompare(v, x.Data)
	}
}

func (e *evaluator) compareMeta(v content, data []byte, not bool) {
	switch {
	case v.meta == nftables.MetaMark && len(data) == 4 && isZero(v.xor) && (v.mask == nil || len(v.mask) == 4):
		mask := uint32(1<<32 - 1)
		if v.mask != nil {
			mask = binary.NativeEndian.Uint32(v.mask)
		}
		e.c.add(one(e.c.marks, Mark{Value: binary.NativeEndian.Uint32(data), Mask: mask, Not: not}))
	case v.mask != nil:
		e.unknownCompare(v, data)
	case v.meta == nftables.MetaNFProto && len(data) == 1:
		if !not {
			e.family = netfilter.Family(data[0])
		}
		e.c.add(NetworkProtocol{Family: netfilter.Family(data[0]), Not: not})
	case v.meta == nftables.MetaL4Proto && len(data) == 1:
		e.c.add(one(e.c.protocols, Protocol{Number: data[0], Not: not}))
	case v.meta == nftables.MetaIIFName && len(data) > 0:
		e.c.add(one(e.c.ins, InInterface{Name: e.interfaceName(data), Not: not}))
	case v.meta == nftables.MetaOIFName && len(data) > 0:
		e.c.add(one(e.c.outs, OutInterface{Name: e.interfaceName(data), Not: not}))
	default:
		e.unknownCompare(v, data)
	}
}

// interfaceName is iptables' spelling of a compared name: without its end only
// the beginning is compared.
func (e *evaluator) interfaceName(data []byte) string {
	name, _, ended := bytes.Cut(data, []byte{0})
	if ended {
		return e.c.text(name)
	}
	return e.c.name(string(name) + "+")
}

// compareState understands "ct state" of nft: the state's bit is among those
// of a mask (compared with 0), or is the one compared with.
func (e *evaluator) compareState(v content, value uint32, not bool) {
	switch {
	case len(v.mask) == 4 && isZero(v.xor) && value == 0:
		// (state & mask) != 0 is any of the states, == 0 none of them.
		e.c.add(one(e.c.states, ConntrackState{Mask: stateMask(binary.NativeEndian.Uint32(v.mask)), Not: !not}))
	case v.mask == nil:
		e.c.add(one(e.c.states, ConntrackState{Mask: stateMask(value), Not: not}))
	default:
		e.unknownCompare(v, nil)
	}
}

// compareStatus understands "ct status dnat" and "ct status snat" of nft, which iptables
// has among the states.
func (e *evaluator) compareStatus(v content, value uint32, not bool) {
	const srcNAT, dstNAT = 1 << 4, 1 << 5 // IPS_SRC_NAT, IPS_DST_NAT
	status := uint32(0)
	if len(v.mask) == 4 && isZero(v.xor) && value == 0 {
		status = binary.NativeEndian.Uint32(v.mask)
	}
	if status == 0 || status&^(srcNAT|dstNAT) != 0 {
		e.unknownCompare(v, nil)
		return
	}
	// The bits of XT_CONNTRACK_STATE_SNAT and _DNAT: ConntrackState.
	mask := uint16(status&srcNAT/srcNAT*0x40 | status&dstNAT/dstNAT*0x80)
	e.c.add(one(e.c.states, ConntrackState{Mask: mask, Not: !not}))
}

// compareFIB understands "fib daddr type local" and its like.
func (e *evaluator) compareFIB(v content, data []byte, not bool) {
	flags := v.fib.Flags
	if v.fib.Result != nftables.FIBAddrType || len(data) != 4 || v.mask != nil {
		e.unknownCompare(v, data)
		return
	}
	n := binary.NativeEndian.Uint32(data)
	switch {
	case n > 15:
		e.unknownCompare(v, data)
	case flags == nftables.FIBDest:
		e.c.add(one(e.c.addrTypes, AddrType{Dest: 1 << n, NotDest: not}))
	case flags == nftables.FIBSource:
		e.c.add(one(e.c.addrTypes, AddrType{Source: 1 << n, NotSource: not}))
	default:
		e.unknownCompare(v, data)
	}
}
