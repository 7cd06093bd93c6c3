// SPDX-License-Identifier: Apache-2.0

package nflog

import (
	"encoding/binary"
	"net/netip"

	"github.com/svcscope/svcscope/pkg/netfilter"
)

// Headers are what a packet's network and transport headers say.
type Headers struct {
	Family   netfilter.Family
	Protocol uint8 // IPPROTO_* of the transport
	// Src and Dst have ports where the protocol has some and the packet them:
	// HasPorts.
	Src, Dst netip.AddrPort
	HasPorts bool
	// Fragment: it is not the first one of its datagram, and has no ports.
	Fragment bool
	TCPFlags uint8 // FIN 1, SYN 2, RST 4, ACK 16; 0 where they are not there
	// ICMPType and ICMPCode are valid where Protocol is ICMP or ICMPv6 and
	// HasICMP is set.
	ICMPType, ICMPCode uint8
	HasICMP            bool
}

// IPPROTO_*, include/uapi/linux/in.h and in6.h
const (
	protoHopOptions  = 0
	protoICMP        = 1
	protoTCP         = 6
	protoUDP         = 17
	protoRouting     = 43
	protoFragment    = 44
	protoAH          = 51
	protoICMPv6      = 58
	protoDestOptions = 60
	protoSCTP        = 132
	protoUDPLite     = 136
)

// ParseHeaders reads a packet from its network header on, as far as it was
// copied. It returns *netfilter.ShortError where the network header is cut, or the
// version is none of IP's; what is missing behind it is left out.
func ParseHeaders(b []byte) (Headers, error) {
	if len(b) == 0 {
		return Headers{}, &netfilter.ShortError{Struct: "iphdr", Need: 20}
	}
	switch b[0] >> 4 {
	case 4:
		return parse4(b)
	case 6:
		return parse6(b)
	}
	return Headers{}, &netfilter.ShortError{Struct: "iphdr", Need: 20, Have: len(b)}
}

// parse4 reads struct iphdr and what follows.
func parse4(b []byte) (Headers, error) {
	size := int(b[0]&0xf) * 4
	if size < 20 {
		size = 20
	}
	if len(b) < size {
		return Headers{}, &netfilter.ShortError{Struct: "iphdr", Need: size, Have: len(b)}
	}
	h := Headers{
		Family: netfilter.IPv4, Protocol: b[9],
		Src:      netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[12:16])), 0),
		Dst:      netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[16:20])), 0),
		Fragment: binary.BigEndian.Uint16(b[6:])&0x1fff != 0,
	}
	h.transport(b[size:])
	return h, nil
}

// parse6 reads struct ipv6hdr, the extension headers and what follows.
func parse6(b []byte) (Headers, error) {
	const size = 40
	if len(b) < size {
		return Headers{}, &netfilter.ShortError{Struct: "ipv6hdr", Need: size, Have: len(b)}
	}
	h := Headers{
		Family: netfilter.IPv6, Protocol: b[6],
		Src: netip.AddrPortFrom(netip.AddrFrom16([16]byte(b[8:24])), 0),
		Dst: netip.AddrPortFrom(netip.AddrFrom16([16]byte(b[24:40])), 0),
	}
	b = b[size:]
	for {
		length := 0
		switch h.Protocol {
		case protoHopOptions, protoRouting, protoDestOptions:
			if len(b) >= 2 {
				length = 8 + int(b[1])*8
			}
		case protoAH:
			if len(b) >= 2 {
				length = 8 + int(b[1])*4
			}
		case protoFragment:
			if len(b) >= 8 {
				length, h.Fragment = 8, binary.BigEndian.Uint16(b[2:])&0xfff8 != 0
			}
		default:
			h.transport(b)
			return h, nil
		}
		if length == 0 || len(b) < length {
			return h, nil // cut: the transport is not known
		}
		h.Protocol, b = b[0], b[length:]
		if h.Fragment {
			return h, nil
		}
	}
}

// transport reads the transport's header, as far as it is there.
func (h *Headers) transport(b []byte) {
	if h.Fragment {
		return
	}
	switch h.Protocol {
	case protoTCP, protoUDP, protoSCTP, protoUDPLite:
		if len(b) < 4 {
			return
		}
		h.HasPorts = true
		h.Src = netip.AddrPortFrom(h.Src.Addr(), binary.BigEndian.Uint16(b))
		h.Dst = netip.AddrPortFrom(h.Dst.Addr(), binary.BigEndian.Uint16(b[2:]))
		if h.Protocol == protoTCP && len(b) >= 14 {
			h.TCPFlags = b[13]
		}
	case protoICMP, protoICMPv6:
		if len(b) >= 2 {
			h.ICMPType, h.ICMPCode, h.HasICMP = b[0], b[1], true
		}
	}
}
