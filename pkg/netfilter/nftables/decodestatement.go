// SPDX-License-Identifier: Apache-2.0

package nftables

import (
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/nlattr"
)

func decodeCounter(a nlattr.Iter) (Counter, error) {
	var c Counter
	for a.Next() {
		switch a.Type() {
		case 1:
			c.Bytes = a.Uint64("NFTA_COUNTER_BYTES")
		case 2:
			c.Packets = a.Uint64("NFTA_COUNTER_PACKETS")
		}
	}
	a.Require(1, "NFTA_COUNTER_BYTES")
	a.Require(2, "NFTA_COUNTER_PACKETS")
	if a.Err() != nil {
		return Counter{}, a.Err()
	}
	return c, nil
}

func decodeImmediate(a nlattr.Iter) (Expr, error) {
	var i Immediate
	for a.Next() {
		switch a.Type() {
		case 1:
			i.DReg = Register(a.Uint32("NFTA_IMMEDIATE_DREG"))
		case 2:
			v, verdict, err := decodeData(a.Nested())
			i.Value, i.Verdict = v, verdict
			a.Fail(err)
		default:
			return nil, nil
		}
	}
	a.Require(1, "NFTA_IMMEDIATE_DREG")
	a.Require(2, "NFTA_IMMEDIATE_DATA")
	return expr(i, a.Err())
}

func decodeLog(a nlattr.Iter) (Expr, error) {
	var l Log
	for a.Next() {
		switch a.Type() {
		case 1:
			l.Group, l.ToGroup = a.Uint16("NFTA_LOG_GROUP"), true
		case 2:
			l.Prefix = a.String()
		case 3:
			l.SnapLen = a.Uint32("NFTA_LOG_SNAPLEN")
		case 4:
			l.QThreshold = a.Uint16("NFTA_LOG_QTHRESHOLD")
		case 5:
			l.Level = a.Uint32("NFTA_LOG_LEVEL")
		case 6:
			l.Flags = a.Uint32("NFTA_LOG_FLAGS")
		default:
			return nil, nil
		}
	}
	return expr(l, a.Err())
}

func decodeLimit(a nlattr.Iter) (Expr, error) {
	var l Limit
	for a.Next() {
		switch a.Type() {
		case 1:
			l.Rate = a.Uint64("NFTA_LIMIT_RATE")
		case 2:
			l.Unit = a.Uint64("NFTA_LIMIT_UNIT")
		case 3:
			l.Burst = a.Uint32("NFTA_LIMIT_BURST")
		case 4:
			l.Bytes = a.Uint32("NFTA_LIMIT_TYPE") == 1 // NFT_LIMIT_PKT_BYTES
		case 5:
			l.Not = a.Uint32("NFTA_LIMIT_FLAGS")&1 != 0 // NFT_LIMIT_F_INV
		case 6: // NFTA_LIMIT_PAD
		default:
			return nil, nil
		}
	}
	a.Require(1, "NFTA_LIMIT_RATE")
	a.Require(2, "NFTA_LIMIT_UNIT")
	return expr(l, a.Err())
}

func decodeNAT(a nlattr.Iter) (Expr, error) {
	var (
		n   NAT
		typ uint32
	)
	for a.Next() {
		switch a.Type() {
		case 1:
			typ = a.Uint32("NFTA_NAT_TYPE")
		case 2:
			n.Family = netfilter.Family(a.Uint32("NFTA_NAT_FAMILY"))
		case 3:
			n.AddrMin = Register(a.Uint32("NFTA_NAT_REG_ADDR_MIN"))
		case 4:
			n.AddrMax = Register(a.Uint32("NFTA_NAT_REG_ADDR_MAX"))
		case 5:
			n.ProtoMin = Register(a.Uint32("NFTA_NAT_REG_PROTO_MIN"))
		case 6:
			n.ProtoMax = Register(a.Uint32("NFTA_NAT_REG_PROTO_MAX"))
		case 7:
			n.Flags = NATFlags(a.Uint32("NFTA_NAT_FLAGS"))
		default:
			return nil, nil
		}
	}
	a.Require(1, "NFTA_NAT_TYPE")
	a.Require(2, "NFTA_NAT_FAMILY")
	if typ > 1 { // neither NFT_NAT_SNAT nor NFT_NAT_DNAT
		return nil, a.Err()
	}
	n.Dest = typ == 1
	return expr(n, a.Err())
}

func decodeMasq(a nlattr.Iter) (Expr, error) {
	var m Masq
	for a.Next() {
		switch a.Type() {
		case 1:
			m.Flags = NATFlags(a.Uint32("NFTA_MASQ_FLAGS"))
		case 2:
			m.ProtoMin = Register(a.Uint32("NFTA_MASQ_REG_PROTO_MIN"))
		case 3:
			m.ProtoMax = Register(a.Uint32("NFTA_MASQ_REG_PROTO_MAX"))
		default:
			return nil, nil
		}
	}
	return expr(m, a.Err())
}

func decodeRedir(a nlattr.Iter) (Expr, error) {
	var r Redir
	for a.Next() {
		switch a.Type() {
		case 1:
			r.ProtoMin = Register(a.Uint32("NFTA_REDIR_REG_PROTO_MIN"))
		case 2:
			r.ProtoMax = Register(a.Uint32("NFTA_REDIR_REG_PROTO_MAX"))
		case 3:
			r.Flags = NATFlags(a.Uint32("NFTA_REDIR_FLAGS"))
		default:
			return nil, nil
		}
	}
	return expr(r, a.Err())
}

func decodeReject(a nlattr.Iter) (Expr, error) {
	var r Reject
	for a.Next() {
		switch a.Type() {
		case 1:
			r.Type = RejectType(a.Uint32("NFTA_REJECT_TYPE"))
		case 2:
			r.Code = a.Uint8("NFTA_REJECT_ICMP_CODE")
		default:
			return nil, nil
		}
	}
	a.Require(1, "NFTA_REJECT_TYPE")
	return expr(r, a.Err())
}

func decodeObjRef(a nlattr.Iter) (Expr, error) {
	var o ObjRef
	for a.Next() {
		switch a.Type() {
		case 1:
			o.Type = a.Uint32("NFTA_OBJREF_IMM_TYPE")
		case 2:
			o.Object = a.String()
		case 3:
			o.SReg = Register(a.Uint32("NFTA_OBJREF_SET_SREG"))
		case 4:
			o.Set = a.String()
		case 5: // NFTA_OBJREF_SET_ID: within a transaction
		default:
			return nil, nil
		}
	}
	return expr(o, a.Err())
}

func decodeQueue(a nlattr.Iter) (Expr, error) {
	var q UserQueue
	for a.Next() {
		switch a.Type() {
		case 1:
			q.First = a.Uint16("NFTA_QUEUE_NUM")
		case 2:
			q.Total = a.Uint16("NFTA_QUEUE_TOTAL")
		case 3:
			q.Flags = a.Uint16("NFTA_QUEUE_FLAGS")
		case 4:
			q.SReg = Register(a.Uint32("NFTA_QUEUE_SREG_QNUM"))
		default:
			return nil, nil
		}
	}
	return expr(q, a.Err())
}

func decodeDynSet(a nlattr.Iter) (Expr, error) {
	var (
		d   DynSet
		err error
	)
	for a.Next() {
		switch a.Type() {
		case 1:
			d.Set = a.String()
		case 2: // NFTA_DYNSET_SET_ID: within a transaction
		case 3:
			d.Op = a.Uint32("NFTA_DYNSET_OP")
		case 4:
			d.Key = Register(a.Uint32("NFTA_DYNSET_SREG_KEY"))
		case 5:
			d.Data = Register(a.Uint32("NFTA_DYNSET_SREG_DATA"))
		case 6:
			d.Timeout = a.Uint64("NFTA_DYNSET_TIMEOUT")
		case 7:
			d.Exprs, err = decodeOneState(a.Nested())
		case 8: // NFTA_DYNSET_PAD
		case 9:
			d.Not = a.Uint32("NFTA_DYNSET_FLAGS")&1 != 0 // NFT_DYNSET_F_INV
		case 10:
			d.Exprs, err = decodeExprs(a.Nested(), decodeState)
		default:
			return nil, nil
		}
		a.Fail(err)
	}
	a.Require(1, "NFTA_DYNSET_SET_NAME")
	return expr(d, a.Err())
}
