// SPDX-License-Identifier: Apache-2.0

package nftables

import "github.com/svcscope/svcscope/pkg/netfilter/nlattr"

// The decoders here read the attributes of one expression each, by the
// numbers of enum nft_<expression>_attributes; the C name stands in each
// read. An unknown number gives nil, nil: the caller makes it an Opaque.

func decodeCompat(match bool, a nlattr.Iter) (Expr, error) {
	var (
		name string
		rev  uint32
		info []byte
	)
	for a.Next() {
		switch a.Type() {
		case 1:
			name = compatName(a.Text())
		case 2:
			rev = a.Uint32("NFTA_MATCH_REV")
		case 3:
			info = a.Bytes()
		default:
			return nil, nil
		}
	}
	a.Require(1, "NFTA_MATCH_NAME")
	a.Require(2, "NFTA_MATCH_REV")
	a.Require(3, "NFTA_MATCH_INFO")
	if a.Err() != nil {
		return nil, a.Err()
	}
	if rev > 255 { // x_tables has no such revision
		return nil, nil
	}
	if match {
		return CompatMatch{Name: name, Revision: uint8(rev), Data: info}, nil
	}
	return CompatTarget{Name: name, Revision: uint8(rev), Data: info}, nil
}

// compatName saves the copy of the names that nearly all rules have.
func compatName(b []byte) string {
	switch string(b) {
	case "comment":
		return "comment"
	case "conntrack":
		return "conntrack"
	case "statistic":
		return "statistic"
	case "addrtype":
		return "addrtype"
	case "tcp":
		return "tcp"
	case "udp":
		return "udp"
	case "DNAT":
		return "DNAT"
	case "MARK":
		return "MARK"
	}
	return string(b)
}

func decodeMeta(a nlattr.Iter) (Expr, error) {
	var m Meta
	for a.Next() {
		switch a.Type() {
		case 1:
			m.DReg = Register(a.Uint32("NFTA_META_DREG"))
		case 2:
			m.Key = MetaKey(a.Uint32("NFTA_META_KEY"))
		case 3:
			m.SReg, m.Set = Register(a.Uint32("NFTA_META_SREG")), true
		default:
			return nil, nil
		}
	}
	a.Require(2, "NFTA_META_KEY")
	if !m.Set {
		a.Require(1, "NFTA_META_DREG")
	}
	return expr(m, a.Err())
}

func decodeCmp(a nlattr.Iter) (Expr, error) {
	var c Cmp
	for a.Next() {
		switch a.Type() {
		case 1:
			c.SReg = Register(a.Uint32("NFTA_CMP_SREG"))
		case 2:
			c.Op = CmpOp(a.Uint32("NFTA_CMP_OP"))
		case 3:
			v, err := decodeValue(a.Nested())
			c.Data = v
			a.Fail(err)
		default:
			return nil, nil
		}
	}
	a.Require(1, "NFTA_CMP_SREG")
	a.Require(2, "NFTA_CMP_OP")
	a.Require(3, "NFTA_CMP_DATA")
	return expr(c, a.Err())
}

func decodePayload(a nlattr.Iter) (Expr, error) {
	var p Payload
	for a.Next() {
		switch a.Type() {
		case 1:
			p.DReg = Register(a.Uint32("NFTA_PAYLOAD_DREG"))
		case 2:
			p.Base = PayloadBase(a.Uint32("NFTA_PAYLOAD_BASE"))
		case 3:
			p.Offset = a.Uint32("NFTA_PAYLOAD_OFFSET")
		case 4:
			p.Len = a.Uint32("NFTA_PAYLOAD_LEN")
		case 5:
			p.SReg, p.Set = Register(a.Uint32("NFTA_PAYLOAD_SREG")), true
		case 6, 7, 8: // NFTA_PAYLOAD_CSUM_*: how a write mends checksums
		default:
			return nil, nil
		}
	}
	a.Require(2, "NFTA_PAYLOAD_BASE")
	a.Require(3, "NFTA_PAYLOAD_OFFSET")
	a.Require(4, "NFTA_PAYLOAD_LEN")
	if !p.Set {
		a.Require(1, "NFTA_PAYLOAD_DREG")
	}
	return expr(p, a.Err())
}

func decodeBitwise(a nlattr.Iter) (Expr, error) {
	var (
		w   Bitwise
		err error
	)
	for a.Next() {
		switch a.Type() {
		case 1:
			w.SReg = Register(a.Uint32("NFTA_BITWISE_SREG"))
		case 2:
			w.DReg = Register(a.Uint32("NFTA_BITWISE_DREG"))
		case 3:
			w.Len = a.Uint32("NFTA_BITWISE_LEN")
		case 4:
			w.Mask, err = decodeValue(a.Nested())
		case 5:
			w.Xor, err = decodeValue(a.Nested())
		case 6:
			w.Op = BitwiseOp(a.Uint32("NFTA_BITWISE_OP"))
		case 7:
			w.Data, err = decodeValue(a.Nested())
		default: // 8 is NFTA_BITWISE_SREG2
			return nil, nil
		}
		a.Fail(err)
	}
	a.Require(1, "NFTA_BITWISE_SREG")
	a.Require(2, "NFTA_BITWISE_DREG")
	a.Require(3, "NFTA_BITWISE_LEN")
	if w.Op == BitwiseMaskXor {
		a.Require(4, "NFTA_BITWISE_MASK")
		a.Require(5, "NFTA_BITWISE_XOR")
	}
	return expr(w, a.Err())
}

func decodeRange(a nlattr.Iter) (Expr, error) {
	var (
		r   Range
		op  uint32
		err error
	)
	for a.Next() {
		switch a.Type() {
		case 1:
			r.SReg = Register(a.Uint32("NFTA_RANGE_SREG"))
		case 2:
			op = a.Uint32("NFTA_RANGE_OP")
		case 3:
			r.From, err = decodeValue(a.Nested())
		case 4:
			r.To, err = decodeValue(a.Nested())
		default:
			return nil, nil
		}
		a.Fail(err)
	}
	a.Require(1, "NFTA_RANGE_SREG")
	a.Require(3, "NFTA_RANGE_FROM_DATA")
	a.Require(4, "NFTA_RANGE_TO_DATA")
	if op > 1 { // neither NFT_RANGE_EQ nor NFT_RANGE_NEQ
		return nil, a.Err()
	}
	r.Not = op == 1
	return expr(r, a.Err())
}

func decodeLookup(a nlattr.Iter) (Expr, error) {
	var l Lookup
	for a.Next() {
		switch a.Type() {
		case 1:
			l.Set = a.String()
		case 2:
			l.SReg = Register(a.Uint32("NFTA_LOOKUP_SREG"))
		case 3:
			l.DReg, l.Map = Register(a.Uint32("NFTA_LOOKUP_DREG")), true
		case 4: // NFTA_LOOKUP_SET_ID: within a transaction
		case 5:
			l.Not = a.Uint32("NFTA_LOOKUP_FLAGS")&1 != 0 // NFT_LOOKUP_F_INV
		default:
			return nil, nil
		}
	}
	a.Require(1, "NFTA_LOOKUP_SET")
	a.Require(2, "NFTA_LOOKUP_SREG")
	return expr(l, a.Err())
}

func decodeCT(a nlattr.Iter) (Expr, error) {
	var c CT
	for a.Next() {
		switch a.Type() {
		case 1:
			c.DReg = Register(a.Uint32("NFTA_CT_DREG"))
		case 2:
			c.Key = CTKey(a.Uint32("NFTA_CT_KEY"))
		case 3:
			c.Direction, c.HasDirection = a.Uint8("NFTA_CT_DIRECTION"), true
		case 4:
			c.SReg, c.Set = Register(a.Uint32("NFTA_CT_SREG")), true
		default:
			return nil, nil
		}
	}
	a.Require(2, "NFTA_CT_KEY")
	if !c.Set {
		a.Require(1, "NFTA_CT_DREG")
	}
	return expr(c, a.Err())
}

func decodeFIB(a nlattr.Iter) (Expr, error) {
	var f FIB
	for a.Next() {
		switch a.Type() {
		case 1:
			f.DReg = Register(a.Uint32("NFTA_FIB_DREG"))
		case 2:
			f.Result = FIBResult(a.Uint32("NFTA_FIB_RESULT"))
		case 3:
			f.Flags = FIBFlags(a.Uint32("NFTA_FIB_FLAGS"))
		default:
			return nil, nil
		}
	}
	a.Require(2, "NFTA_FIB_RESULT")
	return expr(f, a.Err())
}

func decodeByteorder(a nlattr.Iter) (Expr, error) {
	var o Byteorder
	for a.Next() {
		switch a.Type() {
		case 1:
			o.SReg = Register(a.Uint32("NFTA_BYTEORDER_SREG"))
		case 2:
			o.DReg = Register(a.Uint32("NFTA_BYTEORDER_DREG"))
		case 3:
			o.Hton = a.Uint32("NFTA_BYTEORDER_OP") == 1 // NFT_BYTEORDER_HTON
		case 4:
			o.Len = a.Uint32("NFTA_BYTEORDER_LEN")
		case 5:
			o.Size = a.Uint32("NFTA_BYTEORDER_SIZE")
		default:
			return nil, nil
		}
	}
	a.Require(1, "NFTA_BYTEORDER_SREG")
	a.Require(2, "NFTA_BYTEORDER_DREG")
	return expr(o, a.Err())
}

func decodeNumgen(a nlattr.Iter) (Expr, error) {
	var (
		n   Numgen
		typ uint32
	)
	for a.Next() {
		switch a.Type() {
		case 1:
			n.DReg = Register(a.Uint32("NFTA_NG_DREG"))
		case 2:
			n.Modulus = a.Uint32("NFTA_NG_MODULUS")
		case 3:
			typ = a.Uint32("NFTA_NG_TYPE")
		case 4:
			n.Offset = a.Uint32("NFTA_NG_OFFSET")
		default:
			return nil, nil
		}
	}
	a.Require(1, "NFTA_NG_DREG")
	a.Require(2, "NFTA_NG_MODULUS")
	if typ > 1 { // neither NFT_NG_INCREMENTAL nor NFT_NG_RANDOM
		return nil, a.Err()
	}
	n.Random = typ == 1
	return expr(n, a.Err())
}
