// SPDX-License-Identifier: Apache-2.0

package conntrack

import (
	"fmt"

	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/nlattr"
)

// Status is a set of enum ip_conntrack_status,
// include/uapi/linux/netfilter/nf_conntrack_common.h.
type Status uint32

// The bits that tell something of a flow in the table.
const (
	Expected  Status = 0x1    // IPS_EXPECTED: announced by a helper
	SeenReply Status = 0x2    // IPS_SEEN_REPLY: packets came in both directions
	Assured   Status = 0x4    // IPS_ASSURED: never evicted early
	Confirmed Status = 0x8    // IPS_CONFIRMED: its first packet has left
	SrcNAT    Status = 0x10   // IPS_SRC_NAT
	DstNAT    Status = 0x20   // IPS_DST_NAT
	Dying     Status = 0x200  // IPS_DYING
	Offload   Status = 0x4000 // IPS_OFFLOAD: in a flow table, without timeout and state
)

// Has reports whether all bits of s are set.
func (t Status) Has(s Status) bool { return t&s == s }

// Flow is one entry of the table, struct nf_conn. It has no slices: one value
// serves for a whole dump.
type Flow struct {
	Family   netfilter.Family
	Protocol uint8 // IPPROTO_*
	// State is enum tcp_conntrack or enum sctp_conntrack, by Protocol. It is
	// valid where HasState is set: an offloaded flow has none, nor have other
	// protocols.
	State    State
	HasState bool
	Zone     uint16
	Status   Status
	// Timeout is how long the entry is kept without packets, in seconds; valid
	// where HasTimeout is set.
	Timeout    uint32
	HasTimeout bool
	// Orig is as the first packet came, Reply as its answer comes: with
	// destination NAT its source is where the packets really go.
	Orig, Reply Tuple
}

// include/uapi/linux/netfilter/nfnetlink_conntrack.h, enum ctattr_type
const (
	ctaTupleOrig  = 1
	ctaTupleReply = 2
	ctaStatus     = 3
	ctaProtoInfo  = 4
	ctaTimeout    = 7
	ctaZone       = 18
)

// Decode replaces f with what the payload of a ctnetlink message of one flow
// says: an answer to IPCTNL_MSG_CT_GET, or a notice. Attributes that it does
// not know are left out; a tuple without addresses or protocol is an error. It
// allocates nothing but errors.
func (f *Flow) Decode(b []byte) error {
	h, attrs, err := netfilter.DecodeGenMsg(b)
	if err != nil {
		return fmt.Errorf("conntrack entry: %w", err)
	}
	return f.DecodeAttributes(h.Family, attrs)
}

// DecodeAttributes is Decode without the header, as NFULA_CT has an entry.
func (f *Flow) DecodeAttributes(family netfilter.Family, b []byte) error {
	*f = Flow{Family: family}
	a := nlattr.Attrs(b)
	// The state comes after all else that is asked for: what follows is left alone.
	for !(f.HasState && a.Seen(ctaTupleReply)) && a.Next() {
		switch a.Type() {
		case ctaTupleOrig:
			a.Fail(f.Orig.decode(a.Bytes(), &f.Protocol))
		case ctaTupleReply:
			var protocol uint8
			a.Fail(f.Reply.decode(a.Bytes(), &protocol))
		case ctaStatus:
			f.Status = Status(a.Uint32("CTA_STATUS"))
		case ctaProtoInfo:
			a.Fail(f.protoInfo(a.Bytes()))
		case ctaTimeout:
			f.Timeout, f.HasTimeout = a.Uint32("CTA_TIMEOUT"), true
		case ctaZone:
			f.Zone = a.Uint16("CTA_ZONE")
		}
	}
	a.Require(ctaTupleOrig, "CTA_TUPLE_ORIG")
	a.Require(ctaTupleReply, "CTA_TUPLE_REPLY")
	if err := a.Err(); err != nil {
		return fmt.Errorf("conntrack entry: %w", err)
	}
	return nil
}

// protoInfo reads CTA_PROTOINFO: one nested attribute by protocol, in which the
// state is number 1 for both that have one here.
func (f *Flow) protoInfo(b []byte) error {
	const (
		tcp   = 1 // CTA_PROTOINFO_TCP
		sctp  = 3 // CTA_PROTOINFO_SCTP
		state = 1 // CTA_PROTOINFO_TCP_STATE, CTA_PROTOINFO_SCTP_STATE
	)
	a := nlattr.Attrs(b)
	for a.Next() {
		if a.Type() != tcp && a.Type() != sctp {
			continue
		}
		p := a.Nested()
		for !f.HasState && p.Next() {
			if p.Type() == state {
				f.State, f.HasState = State(p.Uint8("CTA_PROTOINFO_*_STATE")), true
			}
		}
		a.Fail(p.Err())
	}
	return a.Err()
}
