// SPDX-License-Identifier: Apache-2.0

package ruleset

import (
	"bytes"
	"encoding/binary"

	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/nftables"
	"github.com/svcscope/svcscope/pkg/netfilter/xtables"
)

// evaluator follows the registers through one rule of nf_tables.
type evaluator struct {
	c    *Converter
	rule Rule
	regs [16]content // by 4-byte word; good where used has the word's bit
	used uint16
	// fresh are the words that were loaded since the last look-up or comparison: a key
	// is what is loaded for it.
	fresh uint16
	// family is of the packets that come this far: that of the table, or in one of
	// family inet what the rule has asked for.
	family  netfilter.Family
	counted int // matches before the counter
}

// content is what is known of a register that starts at a word.
type content struct {
	kind   contentKind
	base   nftables.PayloadBase // fromPayload
	off    uint32               // fromPayload
	len    uint32               // bytes; fromPayload
	meta   nftables.MetaKey     // fromMeta
	ct     nftables.CTKey       // fromCT
	fib    nftables.FIB         // fromFIB
	value  []byte               // constant
	name   string               // opaque: the expression that loaded it; fromMap: the map
	key    string               // fromMap: what was looked up there
	shares uint32               // fromNumgen, and fromMap where that was looked up: of how many numbers one is chosen at random
	mask   []byte               // applied by bitwise; nil without
	xor    []byte
}

type contentKind uint8

const (
	nothing contentKind = iota
	fromPayload
	fromMeta
	fromCT
	fromFIB
	constant
	fromNumgen
	fromMap
	opaque
)

// load puts what is known into a register, and forgets what was in the
// length bytes from there.
func (e *evaluator) load(r nftables.Register, length uint32, v content) {
	w, ok := r.Word()
	if !ok {
		return
	}
	for i := w; i < len(e.regs) && i < w+int(min(length, 64)+3)/4; i++ {
		e.used &^= 1 << i
	}
	e.regs[w] = v
	e.used |= 1 << w
	e.fresh |= 1 << w
}

func (e *evaluator) reg(r nftables.Register) content {
	if w, ok := r.Word(); ok && e.used&(1<<w) != 0 {
		return e.regs[w]
	}
	return content{}
}

// expr follows one expression.
func (e *evaluator) expr(x nftables.Expr) {
	switch x := x.(type) {
	case nftables.Counter:
		if !e.rule.HasCounter {
			e.rule.Counter.Packets, e.rule.Counter.Bytes, e.rule.HasCounter = x.Packets, x.Bytes, true
			e.counted = len(e.c.scratch)
		}
	case nftables.Payload:
		e.payload(x)
	case nftables.Meta:
		e.meta(x)
	case nftables.CT:
		if x.Set {
			e.unknownAction("ct")
			return
		}
		v := content{kind: fromCT, ct: x.Key}
		if x.HasDirection {
			v = content{kind: opaque, name: "ct"}
		}
		e.load(x.DReg, 4, v)
	case nftables.FIB:
		e.load(x.DReg, 4, content{kind: fromFIB, fib: x})
	case nftables.Bitwise:
		e.bitwise(x)
	case nftables.Cmp:
		e.cmp(x)
		e.fresh = 0
	case nftables.Range:
		e.inRange(x)
		e.fresh = 0
	case nftables.Immediate:
		if x.Verdict != nil {
			e.verdict(x.Verdict)
			return
		}
		e.load(x.DReg, uint32(len(x.Value)), content{kind: constant, value: x.Value})
	default:
		e.statement(x)
	}
}

func (e *evaluator) payload(x nftables.Payload) {
	if x.Set {
		e.unknownAction("payload")
		return
	}
	e.load(x.DReg, x.Len, content{kind: fromPayload, base: x.Base, off: x.Offset, len: x.Len})
}

func (e *evaluator) meta(x nftables.Meta) {
	if !x.Set {
		length := uint32(4)
		if x.Key == nftables.MetaIIFName || x.Key == nftables.MetaOIFName {
			length = 16
		}
		e.load(x.DReg, length, content{kind: fromMeta, meta: x.Key})
		return
	}
	switch v := e.reg(x.SReg); {
	case x.Key == nftables.MetaNFTrace:
		e.act(Action{Kind: OtherKind, More: &Details{Name: "TRACE"}})
	case x.Key != nftables.MetaMark:
		e.unknownAction("meta")
	case v.kind == constant && len(v.value) == 4:
		e.act(Action{Kind: SetMark, Value: binary.NativeEndian.Uint32(v.value), Mask: 1<<32 - 1})
	case v.kind == fromMeta && v.meta == nftables.MetaMark && len(v.mask) == 4 && len(v.xor) == 4:
		e.act(Action{Kind: SetMark, Value: binary.NativeEndian.Uint32(v.xor), Mask: ^binary.NativeEndian.Uint32(v.mask)})
	default:
		e.unknownAction("meta")
	}
}

func (e *evaluator) bitwise(x nftables.Bitwise) {
	v := e.reg(x.SReg)
	switch {
	case x.Op != nftables.BitwiseMaskXor || v.mask != nil || v.kind == nothing || v.kind == constant:
		v = content{kind: opaque, name: "bitwise"}
	default:
		v.mask, v.xor = x.Mask, x.Xor
	}
	e.load(x.DReg, x.Len, v)
}

// statement follows what neither loads nor compares.
func (e *evaluator) statement(x nftables.Expr) {
	switch x := x.(type) {
	case nftables.CompatMatch:
		e.c.extension(&e.rule, xtables.Extension{Family: e.c.family, Name: x.Name, Revision: x.Revision, Data: x.Data})
	case nftables.CompatTarget:
		e.act(e.c.target(xtables.Extension{Family: e.c.family, Name: x.Name, Revision: x.Revision, Data: x.Data}))
	case nftables.Limit:
		e.limit(x)
	case nftables.Log:
		if x.ToGroup {
			e.act(e.c.nflog(x.Group, x.Prefix, x.SnapLen, x.QThreshold))
		} else {
			e.act(e.c.syslog(x.Prefix, uint8(x.Level), uint8(x.Flags)))
		}
	case nftables.NAT:
		e.nat(x)
	case nftables.Masq:
		e.act(e.c.masquerade(e.ports(uint32(x.Flags), x.ProtoMin, x.ProtoMax)))
	case nftables.Redir:
		a := e.c.masquerade(e.ports(uint32(x.Flags), x.ProtoMin, x.ProtoMax))
		e.act(Action{Kind: OtherKind, More: &Details{Name: "REDIRECT", Args: a.Details().Args}})
	case nftables.Reject:
		e.act(Action{Kind: Reject, More: &Details{With: rejectWith(e.family, x)}})
	case nftables.Notrack:
		e.act(Action{Kind: OtherKind, More: &Details{Name: "NOTRACK"}})
	case nftables.Lookup:
		e.lookup(x)
	case nftables.Numgen:
		e.load(x.DReg, 4, numgen(x))
	case nftables.Byteorder:
		e.load(x.DReg, x.Len, content{kind: opaque, name: "byteorder"})
	case nftables.DynSet:
		e.dynset(x)
	case nftables.ObjRef:
		e.unknown("objref", []byte(x.Object))
	case nftables.UserQueue:
		e.act(Action{Kind: OtherKind, More: &Details{Name: "NFQUEUE", Args: "--queue-num " + itoa(uint64(x.First))}})
	case nftables.Opaque:
		e.unknown(x.Name, bytes.Clone(x.Data))
	default:
		e.unknown(x.ExprName(), nil)
	}
}

// limit is iptables' where packets are counted up to a rate.
func (e *evaluator) limit(x nftables.Limit) {
	if x.Bytes || x.Not || x.Rate == 0 || x.Unit > 1<<32 {
		e.unknown("limit", nil)
		return
	}
	e.c.limit(x.Unit*10000/x.Rate, x.Burst)
}
