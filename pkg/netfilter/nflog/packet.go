// SPDX-License-Identifier: Apache-2.0

package nflog

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/conntrack"
	"github.com/svcscope/svcscope/pkg/netfilter/nlattr"
)

// MessagePacket is the type of a message that has a packet: NFULNL_MSG_PACKET of
// NFNL_SUBSYS_ULOG, include/uapi/linux/netfilter/nfnetlink_log.h.
const MessagePacket = 4 << 8

// Packet is one packet that a rule has logged. Payload and Prefix share the
// message's memory.
type Packet struct {
	Family netfilter.Family // of the hook: inet tables tell IPv4 or IPv6
	Group  uint16
	Hook   netfilter.Hook
	// Protocol is the packet's Ethernet protocol (ETH_P_*).
	Protocol uint16
	Mark     uint32
	// In and Out are the numbers of interfaces; 0 where there is none. Of a
	// bridge's packet they are the bridge, and PhysIn and PhysOut its ports.
	In, Out, PhysIn, PhysOut uint32
	// Prefix is what the rule says of itself, without the NUL.
	Prefix []byte
	// Payload is the packet from its network header on, as far as it was copied.
	Payload []byte
	// Time is when the packet came, in microseconds since 1970; 0 where the kernel
	// does not tell, as of packets that the node sends itself.
	Time int64
	// Seq numbers the packets of the group (NFULNL_CFG_F_SEQ): a gap is what was
	// lost. Valid where HasSeq is set.
	Seq    uint32
	HasSeq bool
	// Flow is the packet's entry of connection tracking, also one that is not in
	// the table yet: its original tuple is the one before destination NAT. Valid
	// where HasFlow is set (NFULNL_CFG_F_CONNTRACK; CONFIG_NETFILTER_NETLINK_GLUE_CT).
	Flow    conntrack.Flow
	HasFlow bool
}

// include/uapi/linux/netfilter/nfnetlink_log.h, enum nfulnl_attr_type
const (
	nfulaPacketHdr  = 1
	nfulaMark       = 2
	nfulaTimestamp  = 3
	nfulaIndev      = 4
	nfulaOutdev     = 5
	nfulaPhysIndev  = 6
	nfulaPhysOutdev = 7
	nfulaPayload    = 9
	nfulaPrefix     = 10
	nfulaSeq        = 12
	nfulaCT         = 18
)

// Decode replaces p with what the payload of a NFULNL_MSG_PACKET says.
// Attributes that it does not know are left out; a message without a packet's
// header is an error. A damaged entry of connection tracking is as none: the
// packet is what matters.
func (p *Packet) Decode(b []byte) error {
	h, attrs, err := netfilter.DecodeGenMsg(b)
	if err != nil {
		return fmt.Errorf("logged packet: %w", err)
	}
	*p = Packet{Family: h.Family, Group: h.ResID}
	a := nlattr.Attrs(attrs)
	for a.Next() {
		switch a.Type() {
		case nfulaPacketHdr:
			a.Fail(p.header(a.Bytes()))
		case nfulaMark:
			p.Mark = a.Uint32("NFULA_MARK")
		case nfulaTimestamp:
			a.Fail(p.timestamp(a.Bytes()))
		case nfulaIndev:
			p.In = a.Uint32("NFULA_IFINDEX_INDEV")
		case nfulaOutdev:
			p.Out = a.Uint32("NFULA_IFINDEX_OUTDEV")
		case nfulaPhysIndev:
			p.PhysIn = a.Uint32("NFULA_IFINDEX_PHYSINDEV")
		case nfulaPhysOutdev:
			p.PhysOut = a.Uint32("NFULA_IFINDEX_PHYSOUTDEV")
		case nfulaPayload:
			p.Payload = a.Bytes()
		case nfulaPrefix:
			p.Prefix = a.Text()
		case nfulaSeq:
			p.Seq, p.HasSeq = a.Uint32("NFULA_SEQ"), true
		case nfulaCT:
			p.HasFlow = p.Flow.DecodeAttributes(h.Family, a.Bytes()) == nil
		}
	}
	a.Require(nfulaPacketHdr, "NFULA_PACKET_HDR")
	if err := a.Err(); err != nil {
		return fmt.Errorf("logged packet: %w", err)
	}
	return nil
}

// header reads struct nfulnl_msg_packet_hdr.
func (p *Packet) header(b []byte) error {
	if len(b) < 3 {
		return &nlattr.Error{Attr: "NFULA_PACKET_HDR", Len: len(b), Want: 4}
	}
	p.Protocol, p.Hook = binary.BigEndian.Uint16(b), netfilter.Hook(b[2])
	return nil
}

// timestamp reads struct nfulnl_msg_packet_timestamp.
func (p *Packet) timestamp(b []byte) error {
	if len(b) != 16 {
		return &nlattr.Error{Attr: "NFULA_TIMESTAMP", Len: len(b), Want: 16}
	}
	at := time.Unix(int64(binary.BigEndian.Uint64(b)), int64(binary.BigEndian.Uint64(b[8:]))*1000)
	p.Time = at.UnixMicro()
	return nil
}

// Clone is p with memory of its own.
func (p *Packet) Clone() Packet {
	out := *p
	out.Prefix, out.Payload = bytes.Clone(p.Prefix), bytes.Clone(p.Payload)
	return out
}
