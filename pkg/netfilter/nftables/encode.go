// SPDX-License-Identifier: Apache-2.0

package nftables

import (
	"encoding/binary"

	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/nlattr"
)

// What follows makes the payloads of the messages that make objects, of the values
// that the decoders give. Fields that the kernel alone sets (handles, uses) are left
// out.

// Append appends the payload of NFT_MSG_NEWTABLE.
func (t *Table) Append(b []byte) []byte {
	b = netfilter.AppendGenMsg(b, netfilter.GenMsg{Family: t.Family})
	b = nlattr.AppendString(b, attrTableName, t.Name)
	b = nlattr.AppendUint32(b, attrTableFlags, uint32(t.Flags))
	return appendComment(b, attrTableUserdata, 0, t.Comment)
}

// Append appends the payload of NFT_MSG_NEWCHAIN.
func (c *Chain) Append(b []byte) []byte {
	b = netfilter.AppendGenMsg(b, netfilter.GenMsg{Family: c.Family})
	b = nlattr.AppendString(b, attrChainTable, c.Table)
	b = nlattr.AppendString(b, attrChainName, c.Name)
	if c.Base != nil {
		hook := nlattr.AppendUint32(nil, attrHookNum, uint32(c.Base.Hook))
		hook = nlattr.AppendUint32(hook, attrHookPriority, uint32(c.Base.Priority))
		b = nlattr.AppendNested(b, attrChainHook, hook)
		b = nlattr.AppendUint32(b, attrChainPolicy, uint32(c.Base.Policy))
		b = nlattr.AppendString(b, attrChainType, c.Base.Type)
	}
	return appendComment(b, attrChainUserdata, 0, c.Comment)
}

// Append appends the payload of NFT_MSG_NEWRULE. An expression that AppendExpr does
// not know is an error of the caller, and left out.
func (r *Rule) Append(b []byte) []byte {
	b = netfilter.AppendGenMsg(b, netfilter.GenMsg{Family: r.Family})
	b = nlattr.AppendString(b, attrRuleTable, r.Table)
	b = nlattr.AppendString(b, attrRuleChain, r.Chain)
	var list []byte
	for _, e := range r.Exprs {
		if one := AppendExpr(nil, e); one != nil {
			list = nlattr.AppendNested(list, attrListElem, one)
		}
	}
	b = nlattr.AppendNested(b, attrRuleExpressions, list)
	return appendComment(b, attrRuleUserdata, 0, r.Comment)
}

// NewSet is what NFT_MSG_NEWSET says beside the set.
type NewSet struct {
	Set
	ID uint32 // names the set within the transaction
	// Fields are how many bytes the fields of a key have, of a concatenation of ranges.
	Fields []uint32
	// Expr is the state that each element has: a Counter; nil for none.
	Expr Expr
}

// Append appends the payload of NFT_MSG_NEWSET.
func (s *NewSet) Append(b []byte) []byte {
	const id, elemExpr = 10, 17 // NFTA_SET_ID, NFTA_SET_EXPR
	b = netfilter.AppendGenMsg(b, netfilter.GenMsg{Family: s.Family})
	b = nlattr.AppendString(b, attrSetTable, s.Table)
	b = nlattr.AppendString(b, attrSetName, s.Name)
	b = nlattr.AppendUint32(b, attrSetFlags, uint32(s.Flags))
	b = nlattr.AppendUint32(b, attrSetKeyType, s.KeyType)
	b = nlattr.AppendUint32(b, attrSetKeyLen, s.KeyLen)
	b = nlattr.AppendUint32(b, id, s.ID)
	if desc := s.desc(); desc != nil {
		b = nlattr.AppendNested(b, attrSetDesc, desc)
	}
	if s.Expr != nil {
		b = nlattr.AppendNested(b, elemExpr, AppendExpr(nil, s.Expr))
	}
	return appendComment(b, attrSetUserdata, 7, s.Comment)
}

// desc is how large the set may be, and how long its fields are.
func (s *NewSet) desc() (b []byte) {
	const concat, fieldLen = 2, 1 // NFTA_SET_DESC_CONCAT, NFTA_SET_FIELD_LEN
	if s.Size > 0 {
		b = nlattr.AppendUint32(b, attrDescSize, s.Size)
	}
	var fields []byte
	for _, n := range s.Fields {
		fields = nlattr.AppendNested(fields, attrListElem, nlattr.AppendUint32(nil, fieldLen, n))
	}
	if fields != nil {
		b = nlattr.AppendNested(b, concat, fields)
	}
	return b
}

// Append appends the payload of NFT_MSG_NEWSETELEM or NFT_MSG_DELSETELEM. Of elements
// it has the keys, and where ranges end.
func (es *Elements) Append(b []byte) []byte {
	b = netfilter.AppendGenMsg(b, netfilter.GenMsg{Family: es.Family})
	b = nlattr.AppendString(b, attrElemListTable, es.Table)
	b = nlattr.AppendString(b, attrElemListSet, es.Set)
	var list []byte
	for i := range es.Elements {
		key := nlattr.AppendNested(nil, attrElemKey, nlattr.Append(nil, attrDataValue, es.Elements[i].Key))
		if end := es.Elements[i].KeyEnd; end != nil {
			key = nlattr.AppendNested(key, attrElemKeyEnd, nlattr.Append(nil, attrDataValue, end))
		}
		list = nlattr.AppendNested(list, attrListElem, key)
	}
	return nlattr.AppendNested(b, attrElemListElements, list)
}

// appendComment appends user data with a comment of a type, as libnftnl has it.
func appendComment(b []byte, attr uint16, typ uint8, text string) []byte {
	if text == "" {
		return b
	}
	data := append([]byte{typ, uint8(len(text) + 1)}, text...)
	return nlattr.Append(b, attr, append(data, 0))
}

func be16(v uint16) []byte { return binary.BigEndian.AppendUint16(nil, v) }
