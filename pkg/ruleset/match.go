// SPDX-License-Identifier: Apache-2.0

package ruleset

import (
	"net/netip"

	"github.com/svcscope/svcscope/pkg/netfilter"
)

// MayFail reports whether m is a condition: other matches hold for every packet.
func MayFail(m Match) bool {
	switch m.(type) {
	case Comment, Module, NFAcct, Also:
		return false
	}
	return true
}

// Protocol matches the transport protocol's number.
type Protocol struct {
	Number uint8
	Not    bool
}

// Source matches the source address.
type Source struct {
	Prefix netip.Prefix
	Not    bool
}

// Destination matches the destination address.
type Destination struct {
	Prefix netip.Prefix
	Not    bool
}

// InInterface matches the device a packet came in by; a trailing "+" in Name
// is iptables' wildcard.
type InInterface struct {
	Name string
	Not  bool
}

// OutInterface is InInterface for the device it leaves by.
type OutInterface struct {
	Name string
	Not  bool
}

// Fragment matches second and later fragments (-f, IPv4 only).
type Fragment struct{ Not bool }

// Module names a protocol module that sets no condition of its own: the bare
// "-m tcp" of kube-proxy's DNAT rules. It always matches.
type Module struct{ Name string }

// Comment is a second or later comment of a rule, as Calico writes them; the
// first is in Rule.Comment. It always matches.
type Comment struct{ Text string }

// SourcePort matches a range of transport source ports, both ends included.
type SourcePort struct {
	First, Last uint16
	Not         bool
}

// DestinationPort matches a range of transport destination ports.
type DestinationPort struct {
	First, Last uint16
	Not         bool
}

// TCPFlags matches (flags & Mask) == Value, by the bits of the TCP header's
// flag byte: FIN 1, SYN 2, RST 4, PSH 8, ACK 16, URG 32.
type TCPFlags struct {
	Mask, Value uint8
	Not         bool
}

// TCPOption matches packets that have a TCP option of this number.
type TCPOption struct {
	Number uint8
	Not    bool
}

// AddrType matches the routing type of an address (-m addrtype).
type AddrType struct {
	Source, Dest       uint16 // bit n is RTN_* value n, include/uapi/linux/rtnetlink.h
	NotSource, NotDest bool
	// Flags is as in struct xt_addrtype_info_v1, inversions left out:
	// XT_ADDRTYPE_LIMIT_IFACE_IN 4, XT_ADDRTYPE_LIMIT_IFACE_OUT 8.
	Flags uint32
}

// ConntrackState matches -m conntrack --ctstate, by the bits of
// XT_CONNTRACK_STATE_*: INVALID 1, ESTABLISHED 2, RELATED 4, NEW 8, SNAT
// 0x40, DNAT 0x80, UNTRACKED 0x100 (include/uapi/linux/netfilter/xt_conntrack.h).
type ConntrackState struct {
	Mask  uint16
	Not   bool
	Alias bool // written as -m state --state, which means the same
}

// Random matches a packet with probability Threshold / 2^31 (-m statistic).
type Random struct {
	Threshold uint32
	Not       bool
}

// Probability returns the share of packets that match, 0 to 1.
func (r Random) Probability() float64 {
	p := float64(r.Threshold) / (1 << 31)
	if r.Not {
		return 1 - p
	}
	return p
}

// Nth matches one packet in Every, the first one after Packet others (-m
// statistic --mode nth).
type Nth struct {
	Every, Packet uint32
	Not           bool
}

// Mark matches (mark & Mask) == Value.
type Mark struct {
	Value, Mask uint32
	Not         bool
}

// Recent matches or fills a list of source addresses (-m recent).
type Recent struct {
	List     string
	Set      bool // --set; otherwise a check
	Update   bool // --update: a check that renews what it finds
	Remove   bool // --remove: a check that removes what it finds
	Reap     bool
	TTL      bool // --rttl
	Dest     bool // the list is of destination addresses
	Not      bool
	Seconds  uint32
	HitCount uint32
	// Mask is applied to the address; invalid where it is all ones.
	Mask netip.Addr
}

// NFAcct adds to a named counter object and always matches.
type NFAcct struct{ Object string }

// Multiport matches any of a list of ports.
type Multiport struct {
	Source, Dest bool // either or both
	Ports        []PortRange
	Not          bool
}

// PortRange is a range of ports, both ends included.
type PortRange struct{ First, Last uint16 }

// Limit matches while a rate is not exceeded; it always depends on time. Text
// is in iptables' words: "--limit 10/min --limit-burst 10", the burst left out
// where it is iptables' default of 5.
type Limit struct{ Text string }

// NetworkProtocol matches packets of one family, in tables of the family inet that
// both pass.
type NetworkProtocol struct {
	Family netfilter.Family
	Not    bool
}

// Also is something that a rule of a native nft table does before its action,
// such as to log what it then drops. It always matches.
type Also struct{ Action Action }

// Unknown is a condition that is not decoded: whether it holds cannot be said.
type Unknown struct {
	Name     string // the match's or expression's name
	Revision uint8
	Data     []byte
	// Text is the condition in iptables' words where a text is all that is
	// known of it.
	Text string
}
