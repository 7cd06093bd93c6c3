// SPDX-License-Identifier: Apache-2.0

package nftables

import (
	"encoding/binary"

	"github.com/svcscope/svcscope/pkg/netfilter/nlattr"
)

// AppendExpr appends the attributes of one expression: its name and data. It knows
// those that a table of counters needs, and returns nil for others.
func AppendExpr(b []byte, e Expr) []byte {
	var data []byte
	switch e := e.(type) {
	case Meta:
		data = nlattr.AppendUint32(nil, 2, uint32(e.Key)) // NFTA_META_KEY
		data = nlattr.AppendUint32(data, 1, uint32(e.DReg))
	case Cmp:
		data = nlattr.AppendUint32(nil, 1, uint32(e.SReg))
		data = nlattr.AppendUint32(data, 2, uint32(e.Op))
		data = appendValue(data, 3, e.Data)
	case Payload:
		data = nlattr.AppendUint32(nil, 1, uint32(e.DReg))
		data = nlattr.AppendUint32(data, 2, uint32(e.Base))
		data = nlattr.AppendUint32(data, 3, e.Offset)
		data = nlattr.AppendUint32(data, 4, e.Len)
	case Bitwise:
		data = nlattr.AppendUint32(nil, 1, uint32(e.SReg))
		data = nlattr.AppendUint32(data, 2, uint32(e.DReg))
		data = nlattr.AppendUint32(data, 3, e.Len)
		data = appendValue(data, 4, e.Mask)
		data = appendValue(data, 5, e.Xor)
	case CT:
		data = nlattr.AppendUint32(nil, 1, uint32(e.DReg))
		data = nlattr.AppendUint32(data, 2, uint32(e.Key))
		if e.HasDirection {
			data = nlattr.Append(data, 3, []byte{e.Direction})
		}
	case Lookup:
		data = nlattr.AppendString(nil, 1, e.Set)
		data = nlattr.AppendUint32(data, 2, uint32(e.SReg))
		if e.Not {
			data = nlattr.AppendUint32(data, 5, 1) // NFTA_LOOKUP_FLAGS: NFT_LOOKUP_F_INV
		}
	case FIB:
		data = nlattr.AppendUint32(nil, 1, uint32(e.DReg))
		data = nlattr.AppendUint32(data, 2, uint32(e.Result))
		data = nlattr.AppendUint32(data, 3, uint32(e.Flags))
	case Counter:
		data = nlattr.Append(nil, 1, binary.BigEndian.AppendUint64(nil, e.Bytes))
		data = nlattr.Append(data, 2, binary.BigEndian.AppendUint64(nil, e.Packets))
	case Limit:
		data = nlattr.Append(nil, 1, binary.BigEndian.AppendUint64(nil, e.Rate))
		data = nlattr.Append(data, 2, binary.BigEndian.AppendUint64(nil, e.Unit))
		data = nlattr.AppendUint32(data, 3, e.Burst)
	case Log:
		data = appendLog(e)
	case Immediate:
		if e.Verdict == nil {
			return nil
		}
		verdict := nlattr.AppendUint32(nil, attrVerdictCode, uint32(e.Verdict.Code))
		data = nlattr.AppendUint32(nil, 1, uint32(e.DReg))
		data = nlattr.AppendNested(data, 2, nlattr.AppendNested(nil, attrDataVerdict, verdict))
	default:
		return nil
	}
	b = nlattr.AppendString(b, attrExprName, e.ExprName())
	return nlattr.AppendNested(b, attrExprData, data)
}

// appendValue appends NFTA_DATA_VALUE in an attribute.
func appendValue(b []byte, attr uint16, value []byte) []byte {
	return nlattr.AppendNested(b, attr, nlattr.Append(nil, attrDataValue, value))
}

// appendLog is the data of a log to a group.
func appendLog(l Log) []byte {
	data := nlattr.Append(nil, 1, be16(l.Group))
	if l.Prefix != "" {
		data = nlattr.AppendString(data, 2, l.Prefix)
	}
	if l.SnapLen > 0 {
		data = nlattr.AppendUint32(data, 3, l.SnapLen)
	}
	if l.QThreshold > 0 {
		data = nlattr.Append(data, 4, be16(l.QThreshold))
	}
	return data
}
