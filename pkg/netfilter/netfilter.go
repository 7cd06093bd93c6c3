// SPDX-License-Identifier: Apache-2.0

package netfilter

import (
	"encoding/binary"
	"fmt"
)

// Family is a protocol family as netfilter numbers it.
type Family uint8

// include/uapi/linux/netfilter.h
const (
	FamilyUnspec Family = 0  // NFPROTO_UNSPEC
	FamilyINet   Family = 1  // NFPROTO_INET
	IPv4         Family = 2  // NFPROTO_IPV4
	FamilyARP    Family = 3  // NFPROTO_ARP
	FamilyNetdev Family = 5  // NFPROTO_NETDEV
	FamilyBridge Family = 7  // NFPROTO_BRIDGE
	IPv6         Family = 10 // NFPROTO_IPV6
)

// String returns the spelling that Kubernetes and our metrics use for the
// two IP families, and nft's for the others.
func (f Family) String() string {
	switch f {
	case FamilyINet:
		return "inet"
	case IPv4:
		return "IPv4"
	case FamilyARP:
		return "arp"
	case FamilyNetdev:
		return "netdev"
	case FamilyBridge:
		return "bridge"
	case IPv6:
		return "IPv6"
	}
	return fmt.Sprintf("family-%d", uint8(f))
}

// Hook is where in the stack a base chain is called.
type Hook uint8

// include/uapi/linux/netfilter.h, enum nf_inet_hooks
const (
	HookPrerouting  Hook = 0 // NF_INET_PRE_ROUTING
	HookInput       Hook = 1 // NF_INET_LOCAL_IN
	HookForward     Hook = 2 // NF_INET_FORWARD
	HookOutput      Hook = 3 // NF_INET_LOCAL_OUT
	HookPostrouting Hook = 4 // NF_INET_POST_ROUTING
	NumHooks             = 5 // NF_INET_NUMHOOKS
)

// String returns the name of the built-in iptables chain of the hook.
func (h Hook) String() string {
	switch h {
	case HookPrerouting:
		return "PREROUTING"
	case HookInput:
		return "INPUT"
	case HookForward:
		return "FORWARD"
	case HookOutput:
		return "OUTPUT"
	case HookPostrouting:
		return "POSTROUTING"
	}
	return fmt.Sprintf("hook-%d", uint8(h))
}

// Counter is what a rule has counted since it was made: packets, and the
// bytes of their layer 3 headers and payloads.
type Counter struct {
	Packets uint64
	Bytes   uint64
}

// ShortError says that bytes from the kernel end before the structure does.
type ShortError struct {
	Struct string // C name of the structure or attribute
	Offset int    // where it starts in the buffer given to the decoder
	Need   int    // bytes it needs from there
	Have   int    // bytes left there
}

// Error names the structure, the bytes it needs and those that are there.
func (e *ShortError) Error() string {
	return fmt.Sprintf("%s at offset %d: need %d bytes, have %d", e.Struct, e.Offset, e.Need, e.Have)
}

// GenMsgLen is the size of struct nfgenmsg.
const GenMsgLen = 4

// GenMsg is struct nfgenmsg, include/uapi/linux/netfilter/nfnetlink.h, the
// header of every nfnetlink message.
type GenMsg struct {
	Family  Family
	Version uint8
	// ResID is big-endian on the wire. nf_tables puts the low 16 bits of
	// the ruleset's generation here, ctnetlink statistics the CPU.
	ResID uint16
}

// DecodeGenMsg splits the payload of an nfnetlink message into its header
// and its attributes.
func DecodeGenMsg(b []byte) (GenMsg, []byte, error) {
	if len(b) < GenMsgLen {
		return GenMsg{}, nil, &ShortError{Struct: "nfgenmsg", Need: GenMsgLen, Have: len(b)}
	}
	h := GenMsg{Family: Family(b[0]), Version: b[1], ResID: binary.BigEndian.Uint16(b[2:4])}
	return h, b[GenMsgLen:], nil
}

// AppendGenMsg appends the wire form of h to b.
func AppendGenMsg(b []byte, h GenMsg) []byte {
	b = append(b, byte(h.Family), h.Version)
	return binary.BigEndian.AppendUint16(b, h.ResID)
}
