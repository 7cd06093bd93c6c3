// SPDX-License-Identifier: Apache-2.0

package nftables

import "github.com/svcscope/svcscope/pkg/netfilter"

// Set is one set or map of a table, NFT_MSG_NEWSET.
type Set struct {
	Family netfilter.Family
	Table  string
	Name   string
	Handle uint64
	Flags  SetFlags
	// KeyType and DataType are user space's numbers for types (Types tells them
	// apart). 0xffffff00 as DataType (VerdictData) is a verdict.
	KeyType, DataType uint32
	KeyLen, DataLen   uint32 // bytes
	// Size is how many elements it may have at most; 0: as many as come.
	Size uint32
	// Timeout is how long an element stays that has no timeout of its own, in
	// milliseconds; 0: for ever.
	Timeout uint64
	Comment string
}

// VerdictData is Set.DataType of a verdict map, NFT_DATA_VERDICT.
const VerdictData = 0xffffff00

// SetFlags are the flags of a set, enum nft_set_flags.
type SetFlags uint32

// The flags of a set.
const (
	SetAnonymous SetFlags = 1 << 0 // NFT_SET_ANONYMOUS
	SetConstant  SetFlags = 1 << 1 // NFT_SET_CONSTANT
	SetInterval  SetFlags = 1 << 2 // NFT_SET_INTERVAL
	SetMap       SetFlags = 1 << 3 // NFT_SET_MAP
	SetTimeout   SetFlags = 1 << 4 // NFT_SET_TIMEOUT
	SetEval      SetFlags = 1 << 5 // NFT_SET_EVAL
	SetObject    SetFlags = 1 << 6 // NFT_SET_OBJECT
	SetConcat    SetFlags = 1 << 7 // NFT_SET_CONCAT
	SetExpr      SetFlags = 1 << 8 // NFT_SET_EXPR
)

// Elements is a run of a set's elements, NFT_MSG_NEWSETELEM: one set may
// come in several messages.
type Elements struct {
	Family   netfilter.Family
	Table    string
	Set      string
	Elements []Element
}

// Element is one element of a set or map. Key, KeyEnd and Value share the
// payload's memory.
type Element struct {
	Key     []byte // nil in a catch-all element
	KeyEnd  []byte // the end of a concatenated range; else nil
	Value   []byte // the data of a map; else nil
	Verdict *Verdict
	Object  string // name of the object of an object map
	Flags   ElementFlags
	// Timeout is the element's own, where that is another one than the set's, and
	// Expiration is when it ends; both in milliseconds, 0 without.
	Timeout, Expiration uint64
	Comment             string
	Exprs               []Expr // counters and other state of the element
}

// ElementFlags are the flags of a set's element, enum nft_set_elem_flags.
type ElementFlags uint32

// The flags of an element.
const (
	ElementIntervalEnd ElementFlags = 1 << 0 // NFT_SET_ELEM_INTERVAL_END
	ElementCatchall    ElementFlags = 1 << 1 // NFT_SET_ELEM_CATCHALL
)
