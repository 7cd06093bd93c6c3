// SPDX-License-Identifier: Apache-2.0

package ruleset

import (
	"cmp"
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/svcscope/svcscope/pkg/netfilter/nftables"
)

// Set is a set or map of a table of nf_tables. Make it with NewSet; after Done it does
// not change.
type Set struct {
	Name   string
	Handle uint64
	// Keys and Values are what the fields of keys and of a map's values are. Verdicts is
	// true of a map of verdicts, which has no Values.
	Keys, Values []FieldType
	Verdicts     bool
	// Constant: no element comes or goes. Dynamic: packets add elements.
	Constant, Dynamic bool
	// Timeout is how long an element stays; 0: for ever.
	Timeout time.Duration
	// Unread is true where elements were not asked for: Elements then says nothing.
	Unread   bool
	Elements []Element // by key

	interval bool // elements are ranges, and the kernel tells where they begin and end
}

// FieldType is what a field of a key or value is.
type FieldType uint8

// The types of fields.
const (
	OtherField   FieldType = iota // of whose type nothing is known
	AddressField                  // of either family
	ProtocolField
	PortField
	NumberField
)

// Element is one of a set's. Two are equal where they say the same.
type Element struct {
	// Key is the bytes of the key, End those of the last one of a range, Value those of
	// what a map has for it: Set.Key and the like read them.
	Key, End, Value string
	// Default is an element for all keys that no other has.
	Default bool
	// Verdict is that of a map of verdicts: Accept, Drop, Jump, Goto, Return, Continue;
	// Chain is where Jump and Goto lead.
	Verdict ActionKind
	Chain   string
	Comment string

	ends bool // it is where a range ends, and no element
}

// Tuple is what a key or value says: of each type the first field.
type Tuple struct {
	Addr     netip.Addr
	Protocol uint8
	Port     uint16
	Number   uint32
}

// NewSet begins a set. Its elements are Unread until they are added.
func NewSet(head *nftables.Set) *Set {
	s := &Set{
		Name: head.Name, Handle: head.Handle, Keys: fieldTypes(head.KeyType), Unread: true,
		Constant: head.Flags&nftables.SetConstant != 0, Dynamic: head.Flags&nftables.SetEval != 0,
		Timeout: time.Duration(min(head.Timeout, uint64(maxTimeout/time.Millisecond))) * time.Millisecond,
		// The kernel tells of a concatenation's range in one element.
		interval: head.Flags&nftables.SetInterval != 0 && head.Flags&nftables.SetConcat == 0,
	}
	switch {
	case head.DataType == nftables.VerdictData:
		s.Verdicts = true
	case head.Flags&nftables.SetMap != 0:
		s.Values = fieldTypes(head.DataType)
	}
	return s
}

// maxTimeout is more than anybody wants.
const maxTimeout = 1 << 62

func fieldTypes(packed uint32) []FieldType {
	types := nftables.Types(packed)
	out := make([]FieldType, len(types))
	for i, t := range types {
		switch t {
		case nftables.TypeIPv4, nftables.TypeIPv6:
			out[i] = AddressField
		case nftables.TypeInetProto:
			out[i] = ProtocolField
		case nftables.TypeInetService:
			out[i] = PortField
		case nftables.TypeInteger, nftables.TypeMark:
			out[i] = NumberField
		}
	}
	return out
}

// Add adds elements that were read, of which it keeps no memory. It returns true, so
// that it may be what kernel.Attempt.Elements visits.
func (s *Set) Add(es *nftables.Elements) bool {
	s.Elements = slices.Grow(s.Elements, len(es.Elements))
	for i := range es.Elements {
		e := &es.Elements[i]
		add := Element{
			Key: string(e.Key), End: string(e.KeyEnd), Value: string(e.Value), Comment: e.Comment,
			Default: e.Flags&nftables.ElementCatchall != 0, ends: e.Flags&nftables.ElementIntervalEnd != 0,
		}
		if e.Verdict != nil {
			add.Verdict, add.Chain = verdictKind(e.Verdict.Code), e.Verdict.Chain
		}
		s.Elements = append(s.Elements, add)
	}
	return true
}

func verdictKind(c nftables.Code) ActionKind {
	switch c {
	case nftables.Accept:
		return Accept
	case nftables.Drop:
		return Drop
	case nftables.Queue:
		return Queue
	case nftables.Jump:
		return Jump
	case nftables.Goto:
		return Goto
	case nftables.Return:
		return Return
	case nftables.Continue, nftables.Break:
		return Continue
	}
	return OtherKind
}

// Done ends the set: all of its elements were added.
func (s *Set) Done() {
	s.Unread = false
	slices.SortFunc(s.Elements, func(a, b Element) int {
		// A range that ends where another begins ends before.
		return cmp.Or(strings.Compare(a.Key, b.Key), -compareBools(a.ends, b.ends), strings.Compare(a.End, b.End))
	})
	if s.interval {
		s.closeRanges()
	}
	s.Elements = fit(s.Elements)
}

func compareBools(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

// closeRanges gives elements that begin a range its last key, from the element that has
// the first one after it. A range to the end of all keys has none.
func (s *Set) closeRanges() {
	kept := s.Elements[:0]
	open := -1 // the element in kept that has no end yet
	for _, e := range s.Elements {
		switch {
		case e.Default:
			kept = append(kept, e)
		case e.ends:
			if open >= 0 {
				kept[open].End = before(e.Key)
			}
			open = -1
		default:
			open = len(kept)
			kept = append(kept, e)
		}
	}
	if open >= 0 {
		kept[open].End = strings.Repeat("\xff", len(kept[open].Key))
	}
	clear(s.Elements[len(kept):])
	s.Elements = kept
}

// before is the number before a key, as which its bytes are read.
func before(key string) string {
	b := []byte(key)
	for i := len(b) - 1; i >= 0; i-- {
		if b[i]--; b[i] != 0xff {
			break
		}
	}
	return string(b)
}

// Same reports whether two sets say the same.
func (s *Set) Same(t *Set) bool {
	return s == t || s.Name == t.Name && s.Handle == t.Handle && s.Verdicts == t.Verdicts && s.Constant == t.Constant &&
		s.Dynamic == t.Dynamic && s.Timeout == t.Timeout && s.Unread == t.Unread && slices.Equal(s.Keys, t.Keys) &&
		slices.Equal(s.Values, t.Values) && slices.Equal(s.Elements, t.Elements)
}

// HasKeys reports whether keys have just these fields.
func (s *Set) HasKeys(types ...FieldType) bool { return slices.Equal(s.Keys, types) }

// Key reads the key of an element; ok is false where it is not as the set's types say.
func (s *Set) Key(e *Element) (t Tuple, ok bool) { return tuple(s.Keys, e.Key) }

// End reads the last key of an element: its own key where it is no range.
func (s *Set) End(e *Element) (t Tuple, ok bool) {
	if e.End == "" {
		return s.Key(e)
	}
	return tuple(s.Keys, e.End)
}

// Value reads what a map has for an element.
func (s *Set) Value(e *Element) (t Tuple, ok bool) { return tuple(s.Values, e.Value) }

// tuple reads fields, each of which begins at a multiple of four bytes. The length of an
// address tells its family: that of the one field whose length is not known.
func tuple(types []FieldType, b string) (t Tuple, ok bool) {
	rest := len(b)
	for _, typ := range types {
		if typ != AddressField {
			rest -= 4
		}
	}
	addresses := countAddresses(types)
	for i := len(types) - 1; i >= 0; i-- {
		n := 4
		switch {
		case types[i] == OtherField:
			return Tuple{}, false
		case types[i] == AddressField:
			n = rest / addresses
		case len(types) == 1:
			n = len(b)
		}
		if n < 1 || n > len(b) || !t.set(types[i], b[len(b)-n:]) {
			return Tuple{}, false
		}
		b = b[:len(b)-n]
	}
	return t, len(b) == 0
}

func countAddresses(types []FieldType) (n int) {
	for _, t := range types {
		if t == AddressField {
			n++
		}
	}
	return n
}

// set takes one field.
func (t *Tuple) set(typ FieldType, b string) bool {
	switch typ {
	case AddressField:
		addr, ok := netip.AddrFromSlice([]byte(b))
		t.Addr = addr
		return ok
	case ProtocolField:
		t.Protocol = b[0]
	case PortField:
		if len(b) < 2 {
			return false
		}
		t.Port = uint16(b[0])<<8 | uint16(b[1])
	case NumberField:
		if len(b) != 4 {
			return false
		}
		t.Number = binary.NativeEndian.Uint32([]byte(b))
	}
	return true
}

// leads are the chains that the elements of verdict maps lead to, as Table.Maps has them.
func leads(sets map[string]*Set) map[string][]string {
	var out map[string][]string
	for name, s := range sets {
		var to []string
		for i := range s.Elements {
			if c := s.Elements[i].Chain; c != "" {
				to = append(to, c)
			}
		}
		if len(to) == 0 {
			continue
		}
		slices.Sort(to)
		if out == nil {
			out = make(map[string][]string)
		}
		out[name] = slices.Compact(to)
	}
	return out
}
