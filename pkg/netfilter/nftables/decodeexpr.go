// SPDX-License-Identifier: Apache-2.0

package nftables

import (
	"fmt"

	"github.com/svcscope/svcscope/pkg/netfilter/nlattr"
)

// decodeExprs decodes a list of NFTA_LIST_ELEM, each with decode.
func decodeExprs(list nlattr.Iter, decode func(nlattr.Iter) (Expr, error)) ([]Expr, error) {
	n, count := 0, list
	for count.Next() {
		n++
	}
	if n == 0 {
		return nil, count.Err()
	}
	exprs := make([]Expr, 0, n)
	for list.Next() {
		e, err := decode(list.Nested())
		if err != nil {
			return nil, err
		}
		exprs = append(exprs, e)
	}
	if list.Err() != nil {
		return nil, list.Err()
	}
	return exprs, nil
}

// splitExpr returns the name and the data (nil without) of one expression.
func splitExpr(a nlattr.Iter) (name, data []byte, err error) {
	for a.Next() {
		switch a.Type() {
		case attrExprName:
			name = a.Text()
		case attrExprData:
			data = a.Bytes()
		}
	}
	a.Require(attrExprName, "NFTA_EXPR_NAME")
	return name, data, a.Err()
}

// decodeExpr decodes one expression. Decoders of single expressions return
// nil, nil when they meet an attribute that they do not know.
func decodeExpr(a nlattr.Iter) (Expr, error) {
	name, data, err := splitExpr(a)
	if err != nil {
		return nil, err
	}
	e, err := decodeKnown(name, nlattr.Attrs(data))
	if err != nil {
		return nil, fmt.Errorf("expression %s: %w", name, err)
	}
	if e == nil {
		return Opaque{Name: string(name), Data: data}, nil
	}
	return e, nil
}

func decodeKnown(name []byte, a nlattr.Iter) (Expr, error) {
	switch string(name) {
	case "match", "target":
		return decodeCompat(string(name) == "match", a)
	case "counter":
		return expr(decodeCounter(a))
	case "payload":
		return decodePayload(a)
	case "cmp":
		return decodeCmp(a)
	case "meta":
		return decodeMeta(a)
	case "immediate":
		return decodeImmediate(a)
	case "bitwise":
		return decodeBitwise(a)
	case "range":
		return decodeRange(a)
	case "lookup":
		return decodeLookup(a)
	case "dynset":
		return decodeDynSet(a)
	case "ct":
		return decodeCT(a)
	case "fib":
		return decodeFIB(a)
	case "byteorder":
		return decodeByteorder(a)
	case "numgen":
		return decodeNumgen(a)
	}
	return decodeStatement(name, a)
}

func decodeStatement(name []byte, a nlattr.Iter) (Expr, error) {
	switch string(name) {
	case "log":
		return decodeLog(a)
	case "limit":
		return decodeLimit(a)
	case "nat":
		return decodeNAT(a)
	case "masq":
		return decodeMasq(a)
	case "redir":
		return decodeRedir(a)
	case "reject":
		return decodeReject(a)
	case "objref":
		return decodeObjRef(a)
	case "queue":
		return decodeQueue(a)
	case "notrack":
		if a.Next() {
			return nil, nil
		}
		return expr(Notrack{}, a.Err())
	}
	return nil, nil
}

// expr turns a value and its error into an Expr or an error.
func expr[E Expr](e E, err error) (Expr, error) {
	if err != nil {
		return nil, err
	}
	return e, nil
}

// decodeData decodes NFTA_DATA_*: a value or a verdict.
func decodeData(a nlattr.Iter) (value []byte, v *Verdict, err error) {
	for a.Next() {
		switch a.Type() {
		case attrDataValue:
			value = a.Bytes()
		case attrDataVerdict:
			v, err = decodeVerdict(a.Nested())
			a.Fail(err)
		}
	}
	if !a.Seen(attrDataValue) && !a.Seen(attrDataVerdict) {
		a.Fail(nlattr.Missing("NFTA_DATA_VALUE"))
	}
	if a.Err() != nil {
		return nil, nil, a.Err()
	}
	return value, v, nil
}

// decodeValue decodes NFTA_DATA_* that must be a value.
func decodeValue(a nlattr.Iter) ([]byte, error) {
	v, verdict, err := decodeData(a)
	if err == nil && verdict != nil {
		err = nlattr.Missing("NFTA_DATA_VALUE")
	}
	return v, err
}

func decodeVerdict(a nlattr.Iter) (*Verdict, error) {
	v := &Verdict{}
	for a.Next() {
		switch a.Type() {
		case attrVerdictCode:
			v.Code = Code(a.Uint32("NFTA_VERDICT_CODE"))
		case attrVerdictChain:
			v.Chain = a.String()
		}
	}
	a.Require(attrVerdictCode, "NFTA_VERDICT_CODE")
	if v.Code == Jump || v.Code == Goto {
		a.Require(attrVerdictChain, "NFTA_VERDICT_CHAIN")
	}
	if a.Err() != nil {
		return nil, a.Err()
	}
	return v, nil
}
