// SPDX-License-Identifier: Apache-2.0

package nftables

import (
	"fmt"

	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/nlattr"
)

// DecodeSet decodes the payload of an NFT_MSG_NEWSET message.
func DecodeSet(b []byte) (Set, error) {
	h, attrs, err := netfilter.DecodeGenMsg(b)
	if err != nil {
		return Set{}, fmt.Errorf("set: %w", err)
	}
	s := Set{Family: h.Family}
	a := nlattr.Attrs(attrs)
	for a.Next() {
		switch a.Type() {
		case attrSetTable:
			s.Table = a.String()
		case attrSetName:
			s.Name = a.String()
		case attrSetFlags:
			s.Flags = SetFlags(a.Uint32("NFTA_SET_FLAGS"))
		case attrSetKeyType:
			s.KeyType = a.Uint32("NFTA_SET_KEY_TYPE")
		case attrSetKeyLen:
			s.KeyLen = a.Uint32("NFTA_SET_KEY_LEN")
		case attrSetDataType:
			s.DataType = a.Uint32("NFTA_SET_DATA_TYPE")
		case attrSetDataLen:
			s.DataLen = a.Uint32("NFTA_SET_DATA_LEN")
		case attrSetDesc:
			a.Fail(decodeDesc(a.Nested(), &s))
		case attrSetTimeout:
			s.Timeout = a.Uint64("NFTA_SET_TIMEOUT")
		case attrSetUserdata:
			s.Comment = comment(a.Bytes(), 7)
		case attrSetHandle:
			s.Handle = a.Uint64("NFTA_SET_HANDLE")
		}
	}
	a.Require(attrSetTable, "NFTA_SET_TABLE")
	a.Require(attrSetName, "NFTA_SET_NAME")
	if err := a.Err(); err != nil {
		return Set{}, fmt.Errorf("set %s: %w", s.Name, err)
	}
	return s, nil
}

// decodeDesc reads how large a set may be. How long the fields of its key are, which
// only those of ranges tell there, its type says, too.
func decodeDesc(a nlattr.Iter, s *Set) error {
	for a.Next() {
		if a.Type() == attrDescSize {
			s.Size = a.Uint32("NFTA_SET_DESC_SIZE")
		}
	}
	return a.Err()
}

// DecodeElements decodes the payload of an NFT_MSG_NEWSETELEM message.
func DecodeElements(b []byte) (Elements, error) {
	h, attrs, err := netfilter.DecodeGenMsg(b)
	if err != nil {
		return Elements{}, fmt.Errorf("elements: %w", err)
	}
	es := Elements{Family: h.Family}
	a := nlattr.Attrs(attrs)
	for a.Next() {
		switch a.Type() {
		case attrElemListTable:
			es.Table = a.String()
		case attrElemListSet:
			es.Set = a.String()
		case attrElemListElements:
			list := a.Nested()
			for list.Next() {
				e, err := decodeElement(list.Nested())
				if err != nil {
					list.Fail(err)
					break
				}
				es.Elements = append(es.Elements, e)
			}
			a.Fail(list.Err())
		}
	}
	a.Require(attrElemListTable, "NFTA_SET_ELEM_LIST_TABLE")
	a.Require(attrElemListSet, "NFTA_SET_ELEM_LIST_SET")
	if err := a.Err(); err != nil {
		return Elements{}, fmt.Errorf("elements of %s: %w", es.Set, err)
	}
	return es, nil
}

func decodeElement(a nlattr.Iter) (Element, error) {
	var (
		e   Element
		err error
	)
	for a.Next() {
		switch a.Type() {
		case attrElemKey:
			e.Key, err = decodeValue(a.Nested())
		case attrElemKeyEnd:
			e.KeyEnd, err = decodeValue(a.Nested())
		case attrElemData:
			e.Value, e.Verdict, err = decodeData(a.Nested())
		case attrElemFlags:
			e.Flags = ElementFlags(a.Uint32("NFTA_SET_ELEM_FLAGS"))
		case attrElemTimeout:
			e.Timeout = a.Uint64("NFTA_SET_ELEM_TIMEOUT")
		case attrElemExpiration:
			e.Expiration = a.Uint64("NFTA_SET_ELEM_EXPIRATION")
		case attrElemUserdata:
			e.Comment = comment(a.Bytes(), 0)
		case attrElemObjRef:
			e.Object = a.String()
		case attrElemExpr:
			e.Exprs, err = decodeOneState(a.Nested())
		case attrElemExpressions:
			e.Exprs, err = decodeExprs(a.Nested(), decodeState)
		}
		a.Fail(err)
	}
	if a.Err() != nil {
		return Element{}, a.Err()
	}
	return e, nil
}

// decodeOneState decodes the one expression that older kernels allow for
// the state of an element. An expression inside cannot hold further ones
// here, so that damaged bytes cannot nest without end.
func decodeOneState(a nlattr.Iter) ([]Expr, error) {
	e, err := decodeState(a)
	if err != nil {
		return nil, err
	}
	return []Expr{e}, nil
}

func decodeState(a nlattr.Iter) (Expr, error) {
	name, data, err := splitExpr(a)
	if err != nil {
		return nil, err
	}
	switch string(name) {
	case "counter":
		return expr(decodeCounter(nlattr.Attrs(data)))
	case "limit":
		e, err := decodeLimit(nlattr.Attrs(data))
		if e != nil || err != nil {
			return e, err
		}
	}
	return Opaque{Name: string(name), Data: data}, nil
}
