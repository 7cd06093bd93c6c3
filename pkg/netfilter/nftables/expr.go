// SPDX-License-Identifier: Apache-2.0

package nftables

import "github.com/svcscope/svcscope/pkg/netfilter"

// Expr is one expression of a rule. The concrete types are those of this
// package, by value: Meta, Cmp, Payload, ..., and Opaque for the rest.
type Expr interface {
	// ExprName is the kernel's name of the expression: "meta", "cmp".
	ExprName() string
}

// Register numbers a register of the nf_tables machine, enum nft_registers:
// 0 is the verdict, 1 to 4 are 16 bytes each, 8 to 23 the same memory in
// pieces of 4 bytes.
type Register uint32

// The registers with names of their own.
const (
	RegVerdict Register = 0 // NFT_REG_VERDICT
	Reg1       Register = 1 // NFT_REG_1
	Reg32      Register = 8 // NFT_REG32_00
)

// Word returns the index of the register's first 4-byte word, 0 to 15, so
// that NFT_REG_1 and NFT_REG32_00 are equal; false for the verdict register
// and numbers that no register has.
func (r Register) Word() (int, bool) {
	switch {
	case r >= 1 && r <= 4:
		return int(r-1) * 4, true
	case r >= 8 && r <= 23:
		return int(r - 8), true
	}
	return 0, false
}

// Verdict is what a rule, a base chain or a map's element decides.
type Verdict struct {
	Code  Code
	Chain string // Jump, Goto
}

// Code is a verdict's code: NF_* of linux/netfilter.h from 0 up, enum
// nft_verdicts below.
type Code int32

// The codes of a verdict.
const (
	Drop     Code = 0  // NF_DROP
	Accept   Code = 1  // NF_ACCEPT
	Queue    Code = 3  // NF_QUEUE
	Continue Code = -1 // NFT_CONTINUE
	Break    Code = -2 // NFT_BREAK
	Jump     Code = -3 // NFT_JUMP
	Goto     Code = -4 // NFT_GOTO
	Return   Code = -5 // NFT_RETURN
)

// Meta loads packet metadata into DReg or, with Set, sets it from SReg.
type Meta struct {
	Key  MetaKey
	DReg Register
	SReg Register
	Set  bool
}

// MetaKey is enum nft_meta_keys.
type MetaKey uint32

// The metadata that rules of iptables-nft and kube-proxy use.
const (
	MetaLen              MetaKey = 0  // NFT_META_LEN
	MetaProtocol         MetaKey = 1  // NFT_META_PROTOCOL
	MetaMark             MetaKey = 3  // NFT_META_MARK
	MetaIIF              MetaKey = 4  // NFT_META_IIF
	MetaOIF              MetaKey = 5  // NFT_META_OIF
	MetaIIFName          MetaKey = 6  // NFT_META_IIFNAME
	MetaOIFName          MetaKey = 7  // NFT_META_OIFNAME
	MetaNFTrace          MetaKey = 12 // NFT_META_NFTRACE
	MetaNFProto          MetaKey = 15 // NFT_META_NFPROTO
	MetaL4Proto          MetaKey = 16 // NFT_META_L4PROTO
	MetaPktType          MetaKey = 19 // NFT_META_PKTTYPE
	MetaPRandom          MetaKey = 24 // NFT_META_PRANDOM
	MetaIIFGroup         MetaKey = 21 // NFT_META_IIFGROUP
	MetaOIFGroup         MetaKey = 22 // NFT_META_OIFGROUP
	MetaBrIIFNameMetaKey         = 17 // NFT_META_BRI_IIFNAME
	MetaBrOIFNameMetaKey         = 18 // NFT_META_BRI_OIFNAME
)

// Cmp compares a register's first len(Data) bytes with Data.
type Cmp struct {
	SReg Register
	Op   CmpOp
	Data []byte
}

// CmpOp is enum nft_cmp_ops.
type CmpOp uint32

// The comparisons; those of order compare bytes, high first.
const (
	Equal        CmpOp = 0 // NFT_CMP_EQ
	NotEqual     CmpOp = 1 // NFT_CMP_NEQ
	Less         CmpOp = 2 // NFT_CMP_LT
	LessEqual    CmpOp = 3 // NFT_CMP_LTE
	Greater      CmpOp = 4 // NFT_CMP_GT
	GreaterEqual CmpOp = 5 // NFT_CMP_GTE
)

// Payload loads Len bytes of the packet from Offset after Base into DReg or,
// with Set, writes them from SReg.
type Payload struct {
	Base   PayloadBase
	Offset uint32
	Len    uint32
	DReg   Register
	SReg   Register
	Set    bool
}

// PayloadBase is enum nft_payload_bases.
type PayloadBase uint32

// The headers that an offset starts from.
const (
	LinkLayer PayloadBase = 0 // NFT_PAYLOAD_LL_HEADER
	Network   PayloadBase = 1 // NFT_PAYLOAD_NETWORK_HEADER
	Transport PayloadBase = 2 // NFT_PAYLOAD_TRANSPORT_HEADER
	Inner     PayloadBase = 3 // NFT_PAYLOAD_INNER_HEADER
)

// Bitwise computes DReg from Len bytes of SReg. With op BitwiseMaskXor it is
// (SReg & Mask) ^ Xor, with the shifts Data is the number of bits (4 bytes,
// the host's order).
type Bitwise struct {
	SReg Register
	DReg Register
	Len  uint32
	Op   BitwiseOp
	Mask []byte
	Xor  []byte
	Data []byte
}

// BitwiseOp is enum nft_bitwise_ops.
type BitwiseOp uint32

// The operations. Those of Linux 6.13 on two registers make a Bitwise an
// Opaque, since they have an attribute of their own.
const (
	BitwiseMaskXor    BitwiseOp = 0 // NFT_BITWISE_MASK_XOR, NFT_BITWISE_BOOL in old headers
	BitwiseShiftLeft  BitwiseOp = 1 // NFT_BITWISE_LSHIFT
	BitwiseShiftRight BitwiseOp = 2 // NFT_BITWISE_RSHIFT
)

// Immediate puts a value into DReg or, where Verdict is set, decides.
type Immediate struct {
	DReg    Register
	Value   []byte // nil with a verdict
	Verdict *Verdict
}

// Counter is what the rule has counted.
type Counter netfilter.Counter

// CompatMatch is an x_tables match inside an nf_tables rule.
type CompatMatch struct {
	Name     string
	Revision uint8
	Data     []byte // struct xt_*_info as legacy iptables has it
}

// CompatTarget is an x_tables target inside an nf_tables rule.
type CompatTarget struct {
	Name     string
	Revision uint8
	Data     []byte // struct xt_*_info as legacy iptables has it
}

// Log logs the packet: to an NFLOG group, or to the kernel's log.
type Log struct {
	ToGroup    bool // Group, SnapLen and QThreshold count
	Group      uint16
	SnapLen    uint32
	QThreshold uint16
	Level      uint32 // syslog level, without ToGroup
	Flags      uint32 // NF_LOG_*
	Prefix     string
}

// Limit matches up to Rate packets (or bytes, with Bytes) in Unit seconds
// after a burst, or, with Not, above.
type Limit struct {
	Rate  uint64
	Unit  uint64 // seconds
	Burst uint32
	Bytes bool
	Not   bool
}

// Range matches a register between From and To, both included, as numbers
// high byte first; with Not, outside.
type Range struct {
	SReg Register
	Not  bool
	From []byte
	To   []byte
}

// Lookup looks SReg up in a set: it matches what is in (with Not, what is
// not in). In a map the found data go to DReg.
type Lookup struct {
	Set  string
	SReg Register
	DReg Register // RegVerdict in a verdict map
	Map  bool     // DReg counts
	Not  bool
}

// DynSet adds, updates or deletes an element of a set.
type DynSet struct {
	Set     string
	Op      uint32 // enum nft_dynset_ops: 0 add, 1 update, 2 delete
	Key     Register
	Data    Register // 0: no data
	Timeout uint64   // milliseconds
	Not     bool
	Exprs   []Expr
}

// NAT translates an address; registers are 0 where unused.
type NAT struct {
	Dest               bool // destination; else source
	Family             netfilter.Family
	AddrMin, AddrMax   Register
	ProtoMin, ProtoMax Register
	Flags              NATFlags
}

// NATFlags are NF_NAT_RANGE_* of linux/netfilter/nf_nat.h.
type NATFlags uint32

// The flags of an address translation.
const (
	NATMapIPs         NATFlags = 1 << 0 // NF_NAT_RANGE_MAP_IPS
	NATProtoSpecified NATFlags = 1 << 1 // NF_NAT_RANGE_PROTO_SPECIFIED
	NATProtoRandom    NATFlags = 1 << 2 // NF_NAT_RANGE_PROTO_RANDOM
	NATPersistent     NATFlags = 1 << 3 // NF_NAT_RANGE_PERSISTENT
	NATRandomFully    NATFlags = 1 << 4 // NF_NAT_RANGE_PROTO_RANDOM_FULLY
	NATNetmap         NATFlags = 1 << 6 // NF_NAT_RANGE_NETMAP
)

// Masq translates the source to the address of the outgoing device.
type Masq struct {
	Flags              NATFlags
	ProtoMin, ProtoMax Register
}

// Redir translates the destination to the local machine.
type Redir struct {
	Flags              NATFlags
	ProtoMin, ProtoMax Register
}

// Reject drops the packet and tells its sender.
type Reject struct {
	Type RejectType
	Code uint8 // ICMP or ICMPv6 code, or enum nft_reject_inet_code
}

// RejectType is enum nft_reject_types.
type RejectType uint32

// The ways to refuse.
const (
	RejectICMP  RejectType = 0 // NFT_REJECT_ICMP_UNREACH
	RejectTCP   RejectType = 1 // NFT_REJECT_TCP_RST
	RejectICMPX RejectType = 2 // NFT_REJECT_ICMPX_UNREACH
)

// CT loads a field of the packet's conntrack entry into DReg or, with Set,
// sets it from SReg.
type CT struct {
	Key          CTKey
	HasDirection bool
	Direction    uint8 // 0 original, 1 reply
	DReg         Register
	SReg         Register
	Set          bool
}

// CTKey is enum nft_ct_keys.
type CTKey uint32

// The fields that kube-proxy and CNIs use.
const (
	CTState    CTKey = 0  // NFT_CT_STATE
	CTStatus   CTKey = 2  // NFT_CT_STATUS
	CTMark     CTKey = 3  // NFT_CT_MARK
	CTProtocol CTKey = 10 // NFT_CT_PROTOCOL
	CTProtoDst CTKey = 12 // NFT_CT_PROTO_DST
	CTLabels   CTKey = 13 // NFT_CT_LABELS
	CTDstIP    CTKey = 20 // NFT_CT_DST_IP
	CTDstIP6   CTKey = 22 // NFT_CT_DST_IP6
)

// Numgen puts a number from Offset to Offset+Modulus-1 into DReg, in turn or
// at random.
type Numgen struct {
	DReg    Register
	Modulus uint32
	Offset  uint32
	Random  bool
}

// FIB asks the routing table about the packet.
type FIB struct {
	DReg   Register
	Result FIBResult
	Flags  FIBFlags
}

// FIBResult is enum nft_fib_result.
type FIBResult uint32

// What to ask for.
const (
	FIBOIF      FIBResult = 1 // NFT_FIB_RESULT_OIF
	FIBOIFName  FIBResult = 2 // NFT_FIB_RESULT_OIFNAME
	FIBAddrType FIBResult = 3 // NFT_FIB_RESULT_ADDRTYPE: RTN_*
)

// FIBFlags is enum nft_fib_flags.
type FIBFlags uint32

// What to ask with.
const (
	FIBSource  FIBFlags = 1 << 0 // NFTA_FIB_F_SADDR
	FIBDest    FIBFlags = 1 << 1 // NFTA_FIB_F_DADDR
	FIBMark    FIBFlags = 1 << 2 // NFTA_FIB_F_MARK
	FIBIIF     FIBFlags = 1 << 3 // NFTA_FIB_F_IIF
	FIBDevOIF  FIBFlags = 1 << 4 // NFTA_FIB_F_OIF
	FIBPresent FIBFlags = 1 << 5 // NFTA_FIB_F_PRESENT
)

// Notrack keeps the packet from conntrack.
type Notrack struct{}

// Byteorder swaps the bytes of Len bytes in pieces of Size.
type Byteorder struct {
	SReg, DReg Register
	Hton       bool // else ntoh
	Len, Size  uint32
}

// ObjRef uses a named object: by name, or found through a map.
type ObjRef struct {
	Type   uint32 // NFT_OBJECT_*; 1 is a counter
	Object string
	Set    string // the object map; Object is then empty
	SReg   Register
}

// UserQueue hands the packet to user space, the expression queue.
type UserQueue struct {
	First, Total uint16
	Flags        uint16
	SReg         Register // number from a register; else 0
}

// Opaque is an expression that this package does not know, or one with an
// attribute it does not know.
type Opaque struct {
	Name string
	Data []byte // NFTA_EXPR_DATA, nil where the expression has none
}
