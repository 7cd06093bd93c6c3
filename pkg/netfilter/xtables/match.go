// SPDX-License-Identifier: Apache-2.0

package xtables

import "net/netip"

// Match is the decoded data of one -m module: Comment, TCP, UDP, SCTP,
// AddrType, Statistic, Mark, Conntrack, Recent, NFAcct, Multiport, State,
// Limit, Physdev, or Opaque for all others.
type Match interface{ match() }

// Opaque is a match or target that is not decoded: an unknown name or
// revision, or options whose meaning is left out.
type Opaque struct {
	Name     string
	Revision uint8
	Data     []byte // the structure behind the 32-byte head, a copy
}

// PortRange is a range of ports, both ends included. "Any port" is 0 to 65535.
type PortRange struct{ First, Last uint16 }

// Any tells whether every port is in the range.
func (p PortRange) Any() bool { return p.First == 0 && p.Last == 65535 }

// Comment is struct xt_comment_info, xt_comment.h; it always matches.
type Comment struct{ Text string }

// TCP is struct xt_tcp, xt_tcpudp.h.
type TCP struct {
	Source, Dest       PortRange
	NotSource, NotDest bool
	Option             uint8 // TCP option number that must be there; 0: none
	NotOption          bool
	FlagsMask, Flags   uint8 // matches (tcp flags & FlagsMask) == Flags
	NotFlags           bool
}

// UDP is struct xt_udp, xt_tcpudp.h.
type UDP struct {
	Source, Dest       PortRange
	NotSource, NotDest bool
}

// SCTP is struct xt_sctp_info, xt_sctp.h, without chunk types; with them the
// match is Opaque.
type SCTP struct {
	Source, Dest       PortRange // valid if not Any
	NotSource, NotDest bool
}

// AddrType is struct xt_addrtype_info_v1, or xt_addrtype_info of revision 0,
// xt_addrtype.h. Zero in Source or Dest means that it is not looked at.
type AddrType struct {
	Source, Dest       uint16 // bit n is RTN_* value n, rtnetlink.h
	NotSource, NotDest bool
	// Flags are XT_ADDRTYPE_LIMIT_IFACE_IN 0x4 and _OUT 0x8; the inversions
	// 0x1 and 0x2 are left out.
	Flags uint32
}

// StatisticMode is enum xt_statistic_mode, xt_statistic.h.
type StatisticMode uint16

// The modes of -m statistic.
const (
	StatisticRandom StatisticMode = 0 // XT_STATISTIC_MODE_RANDOM
	StatisticNth    StatisticMode = 1 // XT_STATISTIC_MODE_NTH
)

// Statistic is struct xt_statistic_info, xt_statistic.h.
type Statistic struct {
	Mode StatisticMode
	Not  bool
	// Probability is that of StatisticRandom in units of 2^-31.
	Probability uint32
	// Every and Packet are those of StatisticNth: every n-th packet, counted
	// from 0; the kernel's Every is one less than iptables' --every.
	Every, Packet uint32
}

// Mark is struct xt_mark_mtinfo1, or xt_mark_info of revision 0, xt_mark.h:
// it matches (mark & Mask) == Value.
type Mark struct {
	Value, Mask uint32
	Not         bool
}

// The bits of Conntrack.Flags and Conntrack.Invert, xt_conntrack.h.
const (
	ConntrackState      uint16 = 1 << 0  // XT_CONNTRACK_STATE
	ConntrackProto      uint16 = 1 << 1  // XT_CONNTRACK_PROTO
	ConntrackOrigSrc    uint16 = 1 << 2  // XT_CONNTRACK_ORIGSRC
	ConntrackOrigDst    uint16 = 1 << 3  // XT_CONNTRACK_ORIGDST
	ConntrackReplSrc    uint16 = 1 << 4  // XT_CONNTRACK_REPLSRC
	ConntrackReplDst    uint16 = 1 << 5  // XT_CONNTRACK_REPLDST
	ConntrackStatus     uint16 = 1 << 6  // XT_CONNTRACK_STATUS
	ConntrackExpires    uint16 = 1 << 7  // XT_CONNTRACK_EXPIRES
	ConntrackOrigSPort  uint16 = 1 << 8  // XT_CONNTRACK_ORIGSRC_PORT
	ConntrackOrigDPort  uint16 = 1 << 9  // XT_CONNTRACK_ORIGDST_PORT
	ConntrackReplSPort  uint16 = 1 << 10 // XT_CONNTRACK_REPLSRC_PORT
	ConntrackReplDPort  uint16 = 1 << 11 // XT_CONNTRACK_REPLDST_PORT
	ConntrackDirection  uint16 = 1 << 12 // XT_CONNTRACK_DIRECTION
	ConntrackStateAlias uint16 = 1 << 13 // XT_CONNTRACK_STATE_ALIAS: written as -m state
)

// The bits of Conntrack.States and State.Mask, xt_conntrack.h.
const (
	StateInvalid     uint16 = 1 << 0 // XT_CONNTRACK_STATE_INVALID
	StateEstablished uint16 = 1 << 1 // XT_CONNTRACK_STATE_BIT(IP_CT_ESTABLISHED)
	StateRelated     uint16 = 1 << 2 // XT_CONNTRACK_STATE_BIT(IP_CT_RELATED)
	StateNew         uint16 = 1 << 3 // XT_CONNTRACK_STATE_BIT(IP_CT_NEW)
	StateSNAT        uint16 = 1 << 6 // XT_CONNTRACK_STATE_SNAT
	StateDNAT        uint16 = 1 << 7 // XT_CONNTRACK_STATE_DNAT
	StateUntracked   uint16 = 1 << 8 // XT_CONNTRACK_STATE_UNTRACKED; 1 << 6 in -m state
)

// Conntrack is struct xt_conntrack_mtinfo1, 2 or 3, xt_conntrack.h. Flags
// says which of the fields are looked at, Invert which of those are negated.
type Conntrack struct {
	Flags, Invert        uint16
	States               uint16 // State* bits
	Statuses             uint16 // IPS_* bits, nf_conntrack_common.h
	Proto                uint16
	ExpiresMin           uint32 // seconds
	ExpiresMax           uint32
	OrigSrc, OrigDst     Address
	ReplSrc, ReplDst     Address
	OrigSPort, OrigDPort PortRange
	ReplSPort, ReplDPort PortRange
}

// The bits of Recent.Flags, xt_recent.h.
const (
	RecentCheck  uint8 = 1 << 0 // XT_RECENT_CHECK, --rcheck
	RecentSet    uint8 = 1 << 1 // XT_RECENT_SET, --set
	RecentUpdate uint8 = 1 << 2 // XT_RECENT_UPDATE, --update
	RecentRemove uint8 = 1 << 3 // XT_RECENT_REMOVE, --remove
	RecentTTL    uint8 = 1 << 4 // XT_RECENT_TTL, --rttl
	RecentReap   uint8 = 1 << 5 // XT_RECENT_REAP, --reap
)

// Recent is struct xt_recent_mtinfo or xt_recent_mtinfo_v1, xt_recent.h.
type Recent struct {
	Seconds  uint32
	HitCount uint32
	Flags    uint8 // Recent* bits
	Not      bool
	List     string
	Dest     bool       // the destination's address is looked up, not the source's
	Mask     netip.Addr // revision 1; the zero Addr in revision 0
}

// NFAcct is struct xt_nfacct_match_info, xt_nfacct.h: it adds to the named
// counter and always matches.
type NFAcct struct{ Object string }

// MultiportKind is enum xt_multiport_flags, xt_multiport.h.
type MultiportKind uint8

// Which port is compared.
const (
	MultiportSource MultiportKind = 0 // XT_MULTIPORT_SOURCE
	MultiportDest   MultiportKind = 1 // XT_MULTIPORT_DESTINATION
	MultiportEither MultiportKind = 2 // XT_MULTIPORT_EITHER
)

// Multiport is struct xt_multiport or xt_multiport_v1, xt_multiport.h.
type Multiport struct {
	Kind  MultiportKind
	Ports []PortRange // at most 15
	Not   bool
}

// State is struct xt_state_info, xt_state.h; State* bits, but bit 6 is
// "untracked".
type State struct{ Mask uint32 }

// Limit is the user's part of struct xt_rateinfo, xt_limit.h.
type Limit struct {
	Average uint32 // mean time between packets, in 1/10000 s
	Burst   uint32
}

// Physdev is struct xt_physdev_info, xt_physdev.h.
type Physdev struct {
	In, Out Interface
	Invert  uint8 // as Bitmask
	Bitmask uint8 // XT_PHYSDEV_OP_*: 1 in, 2 out, 4 bridged, 8 is-in, 16 is-out
}

func (Opaque) match()    {}
func (Comment) match()   {}
func (TCP) match()       {}
func (UDP) match()       {}
func (SCTP) match()      {}
func (AddrType) match()  {}
func (Statistic) match() {}
func (Mark) match()      {}
func (Conntrack) match() {}
func (Recent) match()    {}
func (NFAcct) match()    {}
func (Multiport) match() {}
func (State) match()     {}
func (Limit) match()     {}
func (Physdev) match()   {}
