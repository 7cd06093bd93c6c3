// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"cmp"
	"encoding/binary"
	"strings"

	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/nftables"
)

// TapTable is the name of the table, of family inet.
const TapTable = "svcscope"

// tapKind is what a set counts.
type tapKind uint8

const (
	tapAttempts    tapKind = iota // first packets of flows
	tapDNAT                       // flows that were sent to an endpoint
	tapRefused                    // packets that a rule is about to refuse, of others or to this host
	tapRefusedHere                // likewise, of this host itself
	tapEarly                      // as tapRefused, before kube-proxy's rules that are before NAT
	tapEarlyHere                  // as tapRefusedHere, likewise
	tapRanges                     // packets whose source is in no range that the way is open to
	tapKinds                      // how many there are
)

// String is the beginning of the names of sets and chains.
func (k tapKind) String() string {
	return [...]string{"attempts", "dnat", "refused", "refused-here", "early", "early-here", "ranges"}[k]
}

// refuses reports whether it is packets that are about to be refused.
func (k tapKind) refuses() bool { return k >= tapRefused }

// tapSet is one of the table's sets: what is counted in one family, by address or by
// node port.
type tapSet struct {
	family netfilter.Family // of the packets
	kind   tapKind
	node   bool // by node port
}

// tapSets are all of some kinds.
func tapSets(kinds ...tapKind) []tapSet {
	var all []tapSet
	for _, f := range []netfilter.Family{netfilter.IPv4, netfilter.IPv6} {
		for _, k := range kinds {
			if all = append(all, tapSet{f, k, false}); k != tapRanges { // node ports are open to all
				all = append(all, tapSet{f, k, true})
			}
		}
	}
	return all
}

func (s tapSet) name() string {
	name := s.kind.String()
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
		Set: nftables.Set{Family: netfilter.FamilyINet, Table: TapTable, Name: s.name(), KeyType: typ, KeyLen: s.addrLen() + 8, Size: size},
		ID:  id, Expr: nftables.Counter{},
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
	// tapBeforeFilter is just before the filter chains of iptables and of kube-proxy's
	// nftables mode, NF_IP_PRI_FILTER - 1.
	tapBeforeFilter = -1
	// tapBeforeAll is just before the filter chains that this mode has before NAT.
	tapBeforeAll = -111
)

// bases are where chains of a kind are called. Those of type nat see the first packet of
// each flow, as rules of NAT do.
func (k tapKind) bases() []nftables.Base {
	base := func(typ string, priority int32, hooks ...netfilter.Hook) (all []nftables.Base) {
		for _, h := range hooks {
			all = append(all, nftables.Base{Hook: h, Priority: priority, Type: typ, Policy: nftables.Accept})
		}
		return all
	}
	switch k {
	case tapAttempts:
		return base("nat", tapBeforeNAT, netfilter.HookPrerouting, netfilter.HookOutput)
	case tapDNAT:
		return base("filter", tapAfterNAT, netfilter.HookPrerouting, netfilter.HookOutput)
	case tapRefused:
		return base("filter", tapBeforeFilter, netfilter.HookInput, netfilter.HookForward)
	case tapRefusedHere:
		return base("filter", tapBeforeFilter, netfilter.HookOutput)
	case tapEarly:
		return base("filter", tapBeforeAll, netfilter.HookInput, netfilter.HookForward)
	case tapEarlyHere:
		return base("filter", tapBeforeAll, netfilter.HookOutput)
	case tapRanges:
		return base("filter", tapBeforeAll, netfilter.HookPrerouting, netfilter.HookOutput)
	}
	return nil
}

// tapChains are the chains of some kinds with their rules.
func tapChains(log TapLog, kinds ...tapKind) (chains []nftables.Chain, rules []nftables.Rule) {
	for _, kind := range kinds {
		for _, base := range kind.bases() {
			name := kind.String() + "-" + strings.ToLower(base.Hook.String())
			chains = append(chains, nftables.Chain{Family: netfilter.FamilyINet, Table: TapTable, Name: name, Base: &base})
			for _, s := range tapSets(kind) {
				rules = append(rules, nftables.Rule{Family: netfilter.FamilyINet, Table: TapTable, Chain: name, Exprs: s.rule(log)})
			}
		}
	}
	return chains, rules
}

// rule counts a packet in the set, by its key, and ends the chain where it is there.
// Sets by address come before those by node port.
func (s tapSet) rule(log TapLog) []nftables.Expr {
	const data = nftables.Reg1
	exprs := []nftables.Expr{
		nftables.Meta{Key: nftables.MetaNFProto, DReg: data},
		nftables.Cmp{SReg: data, Op: nftables.Equal, Data: []byte{byte(s.family)}},
	}
	exprs = append(exprs, s.stage()...)
	exprs = append(exprs, s.key()...)
	if s.kind == tapRanges {
		exprs = append(exprs, s.source(), nftables.Lookup{Set: s.open(), SReg: nftables.Reg1, Not: true})
	}
	exprs = append(exprs, nftables.Lookup{Set: s.name(), SReg: nftables.Reg1})
	if !s.kind.refuses() {
		return append(exprs, nftables.Immediate{Verdict: &nftables.Verdict{Code: nftables.Return}})
	}
	if log.PerSecond == 0 {
		return exprs
	}
	return append(exprs,
		nftables.Limit{Rate: uint64(log.PerSecond), Unit: 1, Burst: log.PerSecond},
		nftables.Log{ToGroup: true, Group: log.Group, Prefix: s.prefix(log), SnapLen: logCopied},
	)
}

// prefix is that of packets that are logged.
func (s tapSet) prefix(log TapLog) string {
	if s.kind == tapRanges {
		return cmp.Or(log.RangesPrefix, TapTable)
	}
	return TapTable
}

// stage lets only packets pass that are where the set counts them: of no flow that is
// there already; after NAT, of one that was redirected; before a refusal, of one that is
// new, as kube-proxy's rules want it.
func (s tapSet) stage() []nftables.Expr {
	const data = nftables.Reg1
	key, mask, op, want := nftables.CTStatus, uint32(statusConfirmed), nftables.Equal, uint32(0)
	switch {
	case s.kind == tapDNAT:
		mask, want = statusConfirmed|statusDstNAT, statusDstNAT
	case s.kind.refuses():
		key, mask, op = nftables.CTState, stateNew, nftables.NotEqual
	}
	return []nftables.Expr{
		nftables.CT{Key: key, DReg: data},
		nftables.Bitwise{SReg: data, DReg: data, Len: 4, Mask: native32(mask), Xor: native32(0)},
		nftables.Cmp{SReg: data, Op: op, Data: native32(want)},
	}
}

// stateNew is NF_CT_STATE_BIT(IP_CT_NEW), the same header.
const stateNew = 1 << 3

// key loads the packet's key into registers from the first on: the address, the
// protocol and the port, of the packet or of its flow's first direction.
func (s tapSet) key() []nftables.Expr {
	var exprs []nftables.Expr
	word := nftables.Reg32
	if s.node && s.kind != tapDNAT { // of this node; after NAT the address is not the packet's any more
		exprs = append(exprs,
			nftables.FIB{DReg: nftables.Reg1, Result: nftables.FIBAddrType, Flags: nftables.FIBDest},
			nftables.Cmp{SReg: nftables.Reg1, Op: nftables.Equal, Data: native32(typeLocal)},
		)
	}
	if !s.node {
		exprs = append(exprs, s.address())
		word += nftables.Register(s.addrLen() / 4)
	}
	if s.kind == tapDNAT {
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
	if s.kind == tapDNAT {
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
