// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"encoding/binary"
	"strings"

	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/nftables"
)

// TapTable is the name of the table, of family inet.
const TapTable = "svcscope"

// tapSet is one of the table's sets: the counters of one family, of attempts or of
// connections that were sent to an endpoint, by address or by node port.
type tapSet struct {
	family netfilter.Family // of the packets
	dnat   bool             // connections with destination NAT; else attempts
	node   bool             // by node port
}

// tapSets are all of them.
func tapSets() []tapSet {
	var all []tapSet
	for _, f := range []netfilter.Family{netfilter.IPv4, netfilter.IPv6} {
		for _, dnat := range []bool{false, true} {
			all = append(all, tapSet{f, dnat, false}, tapSet{f, dnat, true})
		}
	}
	return all
}

func (s tapSet) name() string {
	name := "attempts"
	if s.dnat {
		name = "dnat"
	}
	if s.node {
		name += "-nodeport"
	}
	if s.family == netfilter.IPv6 {
		return name + "-ipv6"
	}
	return name + "-ipv4"
}

// addrLen is that of the address in a key.
func (s tapSet) addrLen() uint32 {
	switch {
	case s.node:
		return 0
	case s.family == netfilter.IPv6:
		return 16
	}
	return 4
}

// Types of nft, src/datatype.c, six bits each in a concatenation.
const (
	typeIPv4    = 7
	typeIPv6    = 8
	typeProto   = 12
	typeService = 13
)

// object is the set as it is made.
func (s tapSet) object(id, size uint32) nftables.NewSet {
	typ := uint32(typeProto<<6 | typeService)
	switch {
	case s.node:
	case s.family == netfilter.IPv6:
		typ |= typeIPv6 << 12
	default:
		typ |= typeIPv4 << 12
	}
	return nftables.NewSet{
		Set: nftables.Set{Family: netfilter.FamilyINet, Table: TapTable, Name: s.name(), KeyType: typ, KeyLen: s.addrLen() + 8},
		ID:  id, Size: size, Expr: nftables.Counter{},
	}
}

// Statuses of an entry of connection tracking, include/uapi/linux/netfilter/nf_conntrack_common.h.
const (
	statusConfirmed = 1 << 3 // IPS_CONFIRMED
	statusDstNAT    = 1 << 5 // IPS_DST_NAT
)

const (
	// tapBeforeNAT is just before kube-proxy's chains, NF_IP_PRI_NAT_DST - 1, and
	// tapAfterNAT just after.
	tapBeforeNAT = -101
	tapAfterNAT  = -99
)

// tapChains are the chains with their rules. Chains of type nat see the first packet of
// each flow, as rules of NAT do.
func tapChains() (chains []nftables.Chain, rules []nftables.Rule) {
	for _, hook := range []netfilter.Hook{netfilter.HookPrerouting, netfilter.HookOutput} {
		for _, dnat := range []bool{false, true} {
			base := &nftables.Base{Hook: hook, Priority: tapBeforeNAT, Type: "nat", Policy: nftables.Accept}
			name := "attempts-" + strings.ToLower(hook.String())
			if dnat {
				base.Priority, base.Type, name = tapAfterNAT, "filter", "dnat-"+strings.ToLower(hook.String())
			}
			chains = append(chains, nftables.Chain{Family: netfilter.FamilyINet, Table: TapTable, Name: name, Base: base})
			for _, s := range tapSets() {
				if s.dnat == dnat {
					rules = append(rules, nftables.Rule{Family: netfilter.FamilyINet, Table: TapTable, Chain: name, Exprs: s.rule()})
				}
			}
		}
	}
	return chains, rules
}

// rule counts a packet in the set, by its key, and ends the chain where it is there.
// Sets by address come before those by node port.
func (s tapSet) rule() []nftables.Expr {
	const data = nftables.Reg1
	exprs := []nftables.Expr{
		nftables.Meta{Key: nftables.MetaNFProto, DReg: data},
		nftables.Cmp{SReg: data, Op: nftables.Equal, Data: []byte{byte(s.family)}},
		nftables.CT{Key: nftables.CTStatus, DReg: data},
	}
	// A packet of no flow that is there already; after NAT, of one that was redirected.
	mask, want := uint32(statusConfirmed), uint32(0)
	if s.dnat {
		mask, want = statusConfirmed|statusDstNAT, statusDstNAT
	}
	exprs = append(exprs,
		nftables.Bitwise{SReg: data, DReg: data, Len: 4, Mask: native32(mask), Xor: native32(0)},
		nftables.Cmp{SReg: data, Op: nftables.Equal, Data: native32(want)},
	)
	exprs = append(exprs, s.key()...)
	return append(exprs,
		nftables.Lookup{Set: s.name(), SReg: nftables.Reg1},
		nftables.Immediate{Verdict: &nftables.Verdict{Code: nftables.Return}},
	)
}

// key loads the packet's key into registers from the first on: the address, the
// protocol and the port, of the packet or of its flow's first direction.
func (s tapSet) key() []nftables.Expr {
	var exprs []nftables.Expr
	word := nftables.Reg32
	if s.node && !s.dnat { // of this node; after NAT the address is not the packet's any more
		exprs = append(exprs,
			nftables.FIB{DReg: nftables.Reg1, Result: nftables.FIBAddrType, Flags: nftables.FIBDest},
			nftables.Cmp{SReg: nftables.Reg1, Op: nftables.Equal, Data: native32(typeLocal)},
		)
	}
	if !s.node {
		exprs = append(exprs, s.address())
		word += nftables.Register(s.addrLen() / 4)
	}
	if s.dnat {
		return append(exprs,
			nftables.CT{Key: nftables.CTProtocol, DReg: word},
			nftables.CT{Key: nftables.CTProtoDst, DReg: word + 1, HasDirection: true},
		)
	}
	return append(exprs,
		nftables.Meta{Key: nftables.MetaL4Proto, DReg: word},
		nftables.Payload{Base: nftables.Transport, Offset: 2, Len: 2, DReg: word + 1},
	)
}

// typeLocal is RTN_LOCAL, include/uapi/linux/rtnetlink.h.
const typeLocal = 2

// address loads the destination.
func (s tapSet) address() nftables.Expr {
	if s.dnat {
		key := nftables.CTDstIP
		if s.family == netfilter.IPv6 {
			key = nftables.CTDstIP6
		}
		return nftables.CT{Key: key, DReg: nftables.Reg1, HasDirection: true}
	}
	offset := uint32(16) // of daddr in struct iphdr
	if s.family == netfilter.IPv6 {
		offset = 24 // in struct ipv6hdr
	}
	return nftables.Payload{Base: nftables.Network, Offset: offset, Len: s.addrLen(), DReg: nftables.Reg1}
}

func native32(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }
