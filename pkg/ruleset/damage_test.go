// SPDX-License-Identifier: Apache-2.0

package ruleset_test

import (
	"math/rand/v2"
	"testing"

	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/nftables"
	"github.com/svcscope/svcscope/pkg/ruleset"
)

// Expressions in any order and with data of any length are converted, and what
// makes no sense is counted: the kernel's rules may come from any tool.
func TestAnyExpressionsAreConverted(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	data := func() []byte {
		b := make([]byte, r.IntN(20))
		for i := range b {
			b[i] = byte(r.IntN(3) * 127)
		}
		return b
	}
	reg := func() nftables.Register { return nftables.Register(r.IntN(26)) }
	small := func() uint32 { return uint32(r.IntN(40)) }
	expr := func() nftables.Expr {
		switch r.IntN(16) {
		case 0:
			return nftables.Payload{Base: nftables.PayloadBase(r.IntN(4)), Offset: small(), Len: small(), DReg: reg(), Set: r.IntN(9) == 0}
		case 1:
			return nftables.Meta{Key: nftables.MetaKey(small()), DReg: reg(), SReg: reg(), Set: r.IntN(3) == 0}
		case 2, 3, 4:
			return nftables.Cmp{SReg: reg(), Op: nftables.CmpOp(r.IntN(7)), Data: data()}
		case 5:
			return nftables.Bitwise{SReg: reg(), DReg: reg(), Len: small(), Op: nftables.BitwiseOp(r.IntN(3)), Mask: data(), Xor: data()}
		case 6:
			return nftables.Range{SReg: reg(), From: data(), To: data()}
		case 7:
			return nftables.CT{Key: nftables.CTKey(r.IntN(3)), DReg: reg(), Set: r.IntN(9) == 0}
		case 8:
			return nftables.FIB{DReg: reg(), Result: nftables.FIBAddrType, Flags: nftables.FIBFlags(r.IntN(4))}
		case 9:
			return nftables.Immediate{DReg: reg(), Value: data()}
		case 10:
			return nftables.Immediate{Verdict: &nftables.Verdict{Code: nftables.Code(r.IntN(12) - 6), Chain: "x"}}
		case 11:
			return nftables.NAT{Dest: true, AddrMin: reg(), AddrMax: reg(), ProtoMin: reg(), ProtoMax: reg(), Flags: nftables.NATFlags(small())}
		case 12:
			return nftables.CompatMatch{Name: []string{"comment", "tcp", "recent", "set"}[r.IntN(4)], Data: data()}
		case 13:
			return nftables.CompatTarget{Name: []string{"DNAT", "MARK", "LOG", ""}[r.IntN(4)], Data: data()}
		case 14:
			return nftables.Reject{Type: nftables.RejectType(r.IntN(4)), Code: uint8(small())}
		}
		return nftables.Limit{Rate: uint64(r.IntN(3)), Unit: uint64(small()), Burst: small()}
	}
	for _, family := range []netfilter.Family{netfilter.IPv4, netfilter.IPv6} {
		c := ruleset.NewConverter(family)
		for range 20000 {
			rule := nftables.Rule{}
			for range r.IntN(8) {
				rule.Exprs = append(rule.Exprs, expr())
			}
			out := c.NFTRule(&rule)
			_ = out.Spec(family)
		}
		if len(c.Undecoded()) == 0 {
			t.Errorf("%v: nothing was found that makes no sense", family)
		}
	}
}

func TestConditionsDoNotLeakIntoTheNextRule(t *testing.T) {
	c := ruleset.NewConverter(netfilter.IPv4)
	load := nftables.Meta{Key: nftables.MetaL4Proto, DReg: nftables.Reg1}
	c.NFTRule(&nftables.Rule{Exprs: []nftables.Expr{load}})
	r := c.NFTRule(&nftables.Rule{Exprs: []nftables.Expr{nftables.Cmp{SReg: nftables.Reg1, Data: []byte{6}}}})
	if _, ok := r.Protocol(); ok || len(r.Matches) != 1 {
		t.Errorf("a register of the rule before: got %v", r.Matches)
	}
	if c.Undecoded()["expression/cmp"] != 1 {
		t.Errorf("got %v", c.Undecoded())
	}
}

func TestMatchesOfRulesDoNotShareMemory(t *testing.T) {
	c := ruleset.NewConverter(netfilter.IPv4)
	rule := nftables.Rule{Exprs: []nftables.Expr{
		nftables.Meta{Key: nftables.MetaL4Proto, DReg: nftables.Reg1},
		nftables.Cmp{SReg: nftables.Reg1, Data: []byte{6}},
	}}
	a, b := c.NFTRule(&rule), c.NFTRule(&rule)
	_ = append(a.Matches, ruleset.Module{Name: "overwritten"})
	if got := b.Spec(netfilter.IPv4); got != "-p tcp" {
		t.Errorf("got %q", got)
	}
}
