// SPDX-License-Identifier: Apache-2.0

package xtables

import "net/netip"

// Target is the decoded data of a rule's target: Standard, Error, DNAT, SNAT,
// Masquerade, Redirect, SetMark, Reject, NFLOG, LOG, or Opaque for all others.
type Target interface{ target() }

// Verdict is the int of struct xt_standard_target, x_tables.h: what to do with
// the packet if negative, else the byte offset of the entry to go to.
type Verdict int32

// The verdicts: -NF_DROP-1 and so on, include/uapi/linux/netfilter.h.
const (
	VerdictDrop   Verdict = -1 // -NF_DROP - 1
	VerdictAccept Verdict = -2 // -NF_ACCEPT - 1
	VerdictQueue  Verdict = -4 // -NF_QUEUE - 1
	VerdictReturn Verdict = -5 // XT_RETURN: -NF_REPEAT - 1
)

// Standard is the data of struct xt_standard_target, x_tables.h.
type Standard struct{ Verdict Verdict }

// Error is the data of struct xt_error_target, x_tables.h: the head of a user
// chain, or the end of the table ("ERROR").
type Error struct{ Name string }

// The bits of NATRange.Flags, nf_nat.h.
const (
	NATMapIPs         uint32 = 1 << 0 // NF_NAT_RANGE_MAP_IPS
	NATProtoSpecified uint32 = 1 << 1 // NF_NAT_RANGE_PROTO_SPECIFIED
	NATProtoRandom    uint32 = 1 << 2 // NF_NAT_RANGE_PROTO_RANDOM
	NATPersistent     uint32 = 1 << 3 // NF_NAT_RANGE_PERSISTENT
	NATRandomFully    uint32 = 1 << 4 // NF_NAT_RANGE_PROTO_RANDOM_FULLY
	NATProtoOffset    uint32 = 1 << 5 // NF_NAT_RANGE_PROTO_OFFSET
)

// NATRange is struct nf_nat_range2, nf_nat_range or
// nf_nat_ipv4_multi_range_compat, nf_nat.h. Addresses count with NATMapIPs,
// ports with NATProtoSpecified.
type NATRange struct {
	Flags            uint32
	MinAddr, MaxAddr netip.Addr
	MinPort, MaxPort uint16
	BasePort         uint16 // nf_nat_range2 with NATProtoOffset
}

// First returns the first address and port of the range: the zero Addr
// without NATMapIPs, port 0 without NATProtoSpecified.
func (r NATRange) First() netip.AddrPort {
	var addr netip.Addr
	var port uint16
	if r.Flags&NATMapIPs != 0 {
		addr = r.MinAddr
	}
	if r.Flags&NATProtoSpecified != 0 {
		port = r.MinPort
	}
	return netip.AddrPortFrom(addr, port)
}

// DNAT rewrites the destination, revisions 0 to 2.
type DNAT struct{ NATRange }

// SNAT rewrites the source, revisions 0 and 1.
type SNAT struct{ NATRange }

// Masquerade rewrites the source to the address of the device a packet leaves
// by. Flags has NATRandomFully for --random-fully.
type Masquerade struct{ NATRange }

// Redirect rewrites the destination to the machine itself.
type Redirect struct{ NATRange }

// SetMark is the target MARK in the form of struct xt_mark_tginfo2, xt_MARK.h:
// mark = (mark &^ Mask) ^ Value. Revisions 0 and 1 are brought to it.
type SetMark struct{ Value, Mask uint32 }

// Reject is struct ipt_reject_info or ip6t_reject_info.
type Reject struct {
	With uint32 // enum ipt_reject_with or ip6t_reject_with
	// Name is With as iptables-save writes it ("icmp-port-unreachable"), or
	// "" for a number that this package does not know.
	Name string
}

// NFLOG is struct xt_nflog_info, xt_NFLOG.h.
type NFLOG struct {
	Length    uint32 // bytes to copy, if Flags has bit 0
	Group     uint16
	Threshold uint16
	Flags     uint16
	Prefix    string
}

// LOG is struct xt_log_info, xt_LOG.h.
type LOG struct {
	Level  uint8 // syslog's
	Flags  uint8 // NF_LOG_*, nf_log.h
	Prefix string
}

func (Opaque) target()     {}
func (Standard) target()   {}
func (Error) target()      {}
func (DNAT) target()       {}
func (SNAT) target()       {}
func (Masquerade) target() {}
func (Redirect) target()   {}
func (SetMark) target()    {}
func (Reject) target()     {}
func (NFLOG) target()      {}
func (LOG) target()        {}
