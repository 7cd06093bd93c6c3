// SPDX-License-Identifier: Apache-2.0

package ruleset

import "net/netip"

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

// AddrType matches the routing type of an address (-m addrtype).
type AddrType struct {
	Source, Dest       uint16 // bit n is RTN_* value n, include/uapi/linux/rtnetlink.h
	NotSource, NotDest bool
	Flags              uint32 // as in struct xt_addrtype_info_v1, inversions left out
}

// ConntrackState matches -m conntrack --ctstate, by the bits of XT_CONNTRACK_STATE_*.
type ConntrackState struct {
	Mask uint16
	Not  bool
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

// Mark matches (mark & Mask) == Value.
type Mark struct {
	Value, Mask uint32
	Not         bool
}

// Recent matches or fills a list of source addresses (-m recent).
type Recent struct {
	List    string
	Set     bool // --set; otherwise a check
	Seconds uint32
	Reap    bool
	Not     bool
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

// Limit matches while a rate is not exceeded; it always depends on time.
type Limit struct{ Text string }

// Unknown is a condition that is not decoded: whether it holds cannot be said.
type Unknown struct {
	Name     string // the match's or expression's name
	Revision uint8
	Data     []byte
}
