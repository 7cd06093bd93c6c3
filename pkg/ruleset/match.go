// SPDX-License-Identifier: Apache-2.0

package ruleset

import (
	"net/netip"

	"github.com/svcscope/svcscope/pkg/netfilter"
)

// The tags of the conditions' fields are their names in the files of snapshots
// (docs/snapshot.md).

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
	Number uint8 `json:"number"`
	Not    bool  `json:"not,omitempty"`
}

// Source matches the source address.
type Source struct {
	Prefix netip.Prefix `json:"prefix"`
	Not    bool         `json:"not,omitempty"`
}

// Destination matches the destination address.
type Destination struct {
	Prefix netip.Prefix `json:"prefix"`
	Not    bool         `json:"not,omitempty"`
}

// InInterface matches the device a packet came in by; a trailing "+" in Name
// is iptables' wildcard.
type InInterface struct {
	Name string `json:"name"`
	Not  bool   `json:"not,omitempty"`
}

// OutInterface is InInterface for the device it leaves by.
type OutInterface struct {
	Name string `json:"name"`
	Not  bool   `json:"not,omitempty"`
}

// Fragment matches second and later fragments (-f, IPv4 only).
type Fragment struct {
	Not bool `json:"not,omitempty"`
}

// Module names a protocol module that sets no condition of its own: the bare
// "-m tcp" of kube-proxy's DNAT rules. It always matches.
type Module struct {
	Name string `json:"name"`
}

// Comment is a second or later comment of a rule, as Calico writes them; the
// first is in Rule.Comment. It always matches.
type Comment struct {
	Text string `json:"text"`
}

// SourcePort matches a range of transport source ports, both ends included.
type SourcePort struct {
	First uint16 `json:"first"`
	Last  uint16 `json:"last"`
	Not   bool   `json:"not,omitempty"`
}

// DestinationPort matches a range of transport destination ports.
type DestinationPort struct {
	First uint16 `json:"first"`
	Last  uint16 `json:"last"`
	Not   bool   `json:"not,omitempty"`
}

// TCPFlags matches (flags & Mask) == Value, by the bits of the TCP header's
// flag byte: FIN 1, SYN 2, RST 4, PSH 8, ACK 16, URG 32.
type TCPFlags struct {
	Mask  uint8 `json:"mask"`
	Value uint8 `json:"value"`
	Not   bool  `json:"not,omitempty"`
}

// TCPOption matches packets that have a TCP option of this number.
type TCPOption struct {
	Number uint8 `json:"number"`
	Not    bool  `json:"not,omitempty"`
}

// AddrType matches the routing type of an address (-m addrtype).
type AddrType struct {
	// Bit n is RTN_* value n, include/uapi/linux/rtnetlink.h.
	Source    uint16 `json:"source,omitempty"`
	Dest      uint16 `json:"dest,omitempty"`
	NotSource bool   `json:"notSource,omitempty"`
	NotDest   bool   `json:"notDest,omitempty"`
	// Flags is as in struct xt_addrtype_info_v1, inversions left out:
	// XT_ADDRTYPE_LIMIT_IFACE_IN 4, XT_ADDRTYPE_LIMIT_IFACE_OUT 8.
	Flags uint32 `json:"flags,omitempty"`
}

// ConntrackState matches -m conntrack --ctstate, by the bits of
// XT_CONNTRACK_STATE_*: INVALID 1, ESTABLISHED 2, RELATED 4, NEW 8, SNAT
// 0x40, DNAT 0x80, UNTRACKED 0x100 (include/uapi/linux/netfilter/xt_conntrack.h).
type ConntrackState struct {
	Mask  uint16 `json:"mask"`
	Not   bool   `json:"not,omitempty"`
	Alias bool   `json:"alias,omitempty"` // written as -m state --state, which means the same
}

// Random matches a packet with probability Threshold / 2^31 (-m statistic).
type Random struct {
	Threshold uint32 `json:"threshold"`
	Not       bool   `json:"not,omitempty"`
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
	Every  uint32 `json:"every"`
	Packet uint32 `json:"packet"`
	Not    bool   `json:"not,omitempty"`
}

// Mark matches (mark & Mask) == Value.
type Mark struct {
	Value uint32 `json:"value"`
	Mask  uint32 `json:"mask"`
	Not   bool   `json:"not,omitempty"`
}

// Recent matches or fills a list of source addresses (-m recent).
type Recent struct {
	List     string `json:"list"`
	Set      bool   `json:"set,omitempty"`    // --set; otherwise a check
	Update   bool   `json:"update,omitempty"` // --update: a check that renews what it finds
	Remove   bool   `json:"remove,omitempty"` // --remove: a check that removes what it finds
	Reap     bool   `json:"reap,omitempty"`
	TTL      bool   `json:"ttl,omitempty"`  // --rttl
	Dest     bool   `json:"dest,omitempty"` // the list is of destination addresses
	Not      bool   `json:"not,omitempty"`
	Seconds  uint32 `json:"seconds,omitempty"`
	HitCount uint32 `json:"hitCount,omitempty"`
	// Mask is applied to the address; invalid where it is all ones.
	Mask netip.Addr `json:"mask,omitzero"`
}

// NFAcct adds to a named counter object and always matches.
type NFAcct struct {
	Object string `json:"object"`
}

// Multiport matches any of a list of ports.
type Multiport struct {
	// Either or both.
	Source bool        `json:"source,omitempty"`
	Dest   bool        `json:"dest,omitempty"`
	Ports  []PortRange `json:"ports,omitempty"`
	Not    bool        `json:"not,omitempty"`
}

// PortRange is a range of ports, both ends included.
type PortRange struct {
	First uint16 `json:"first"`
	Last  uint16 `json:"last"`
}

// Limit matches while a rate is not exceeded; it always depends on time. Text
// is in iptables' words: "--limit 10/min --limit-burst 10", the burst left out
// where it is iptables' default of 5.
type Limit struct {
	Text string `json:"text"`
}

// NetworkProtocol matches packets of one family, in tables of the family inet that
// both pass.
type NetworkProtocol struct {
	Family netfilter.Family `json:"family"` // by its number
	Not    bool             `json:"not,omitempty"`
}

// InSet matches what is in a set of nf_tables. Key is what of the packet is looked up
// there, in nft's words: "ip daddr . meta l4proto . th dport".
type InSet struct {
	Set string `json:"set"`
	Key string `json:"key,omitempty"`
	Not bool   `json:"not,omitempty"`
}

// SetUpdate adds or deletes an element of a set of nf_tables, and matches where that
// could be done.
type SetUpdate struct {
	Set    string `json:"set"`
	Key    string `json:"key,omitempty"`
	Update bool   `json:"update,omitempty"` // the timeout of one that is there begins anew
	Delete bool   `json:"delete,omitempty"`
}

// Also is something that a rule of a native nft table does before its action,
// such as to log what it then drops. It always matches.
type Also struct{ Action Action }

// Unknown is a condition that is not decoded: whether it holds cannot be said.
type Unknown struct {
	Name     string `json:"name,omitempty"` // the match's or expression's name
	Revision uint8  `json:"revision,omitempty"`
	Data     []byte `json:"data,omitempty"`
	// Text is the condition in iptables' words where a text is all that is
	// known of it.
	Text string `json:"text,omitempty"`
}
