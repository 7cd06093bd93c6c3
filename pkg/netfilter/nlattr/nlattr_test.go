// SPDX-License-Identifier: Apache-2.0

package nlattr

import (
	"encoding/binary"
	"errors"
	"slices"
	"testing"

	"github.com/svcscope/svcscope/pkg/netfilter"
)

// message returns one netlink message with its padding.
func message(typ, flags uint16, payload []byte) []byte {
	b := binary.NativeEndian.AppendUint32(nil, uint32(HeaderLen+len(payload)))
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = binary.NativeEndian.AppendUint16(b, flags)
	b = binary.NativeEndian.AppendUint32(b, 7)
	b = binary.NativeEndian.AppendUint32(b, 9)
	b = append(b, payload...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

func sample() []byte {
	inner := AppendUint32(nil, 1, 0x01020304)
	inner = Append(inner, 2, []byte{1, 2, 3})
	b := AppendString(nil, 1, "name")
	b = Append(b, 2, []byte{0, 0, 0, 0, 0, 0, 1, 0})
	b = AppendNested(b, 3, inner)
	b = Append(b, 4, nil)
	return Append(b, 5, []byte{0x12, 0x34})
}

func TestAttrs(t *testing.T) {
	a := Attrs(sample())
	var types []uint16
	for a.Next() {
		types = append(types, a.Type())
		switch a.Type() {
		case 1:
			if a.String() != "name" || len(a.Bytes()) != 5 {
				t.Errorf("got %q", a.Bytes())
			}
		case 2:
			if v := a.Uint64("two"); v != 256 {
				t.Errorf("got %d, want 256", v)
			}
		case 3:
			in := a.Nested()
			if !in.Next() || in.Uint32("inner") != 0x01020304 || !in.Next() || len(in.Bytes()) != 3 || in.Next() {
				t.Errorf("nested: %v", in.Err())
			}
		case 5:
			if v := a.Uint16("five"); v != 0x1234 {
				t.Errorf("got %#x", v)
			}
		}
	}
	if a.Err() != nil || !slices.Equal(types, []uint16{1, 2, 3, 4, 5}) {
		t.Errorf("got %v, %v", types, a.Err())
	}
	if !a.Seen(4) || a.Seen(6) {
		t.Error("Seen: want 4 and not 6")
	}
}

func TestAttrErrors(t *testing.T) {
	tests := []struct {
		name string
		b    []byte
		want error
	}{
		{"header cut", []byte{8, 0}, &netfilter.ShortError{Struct: "nlattr", Need: 4, Have: 2}},
		{"value cut", []byte{8, 0, 1, 0, 9}, &netfilter.ShortError{Struct: "nlattr", Need: 8, Have: 5}},
		{"shorter than its header", []byte{3, 0, 1, 0}, &Error{Attr: "nlattr", Len: 3, Want: 4}},
		{"of length 0", []byte{0, 0, 1, 0, 0, 0, 0, 0}, &Error{Attr: "nlattr", Len: 0, Want: 4}},
		{"wrong size", Append(nil, 1, []byte{1, 2}), &Error{Attr: "X", Len: 2, Want: 4}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := Attrs(tt.b)
			for a.Next() {
				_ = a.Uint32("X")
			}
			if a.Err() == nil || a.Err().Error() != tt.want.Error() {
				t.Errorf("got %v, want %v", a.Err(), tt.want)
			}
			if a.Next() {
				t.Error("Next goes on after an error")
			}
		})
	}
	a := Attrs(nil)
	a.Require(3, "THREE")
	var e *Error
	if !errors.As(a.Err(), &e) || e.Error() != "THREE: missing" {
		t.Errorf("got %v, want THREE: missing", a.Err())
	}
}

func TestMessages(t *testing.T) {
	errno := binary.NativeEndian.AppendUint32(nil, uint32(0xffffffff)) // -EPERM
	b := slices.Concat(message(0xa06, FlagMulti|FlagDumpIntr, []byte("abc")), message(TypeError, 0, errno),
		message(TypeDone, FlagMulti, []byte{0, 0, 0, 0}))
	it := Messages(b)
	if !it.Next() || string(it.Message().Payload) != "abc" || it.Message().Flags&FlagDumpIntr == 0 ||
		it.Message().Seq != 7 || it.Message().Port != 9 {
		t.Fatalf("first: %+v, %v", it.Message(), it.Err())
	}
	for _, want := range []int{1, 0} {
		if !it.Next() {
			t.Fatal(it.Err())
		}
		if n, err := it.Message().Errno(); n != want || err != nil {
			t.Errorf("got errno %d, %v; want %d", n, err, want)
		}
	}
	if it.Next() || it.Err() != nil {
		t.Errorf("end: %v", it.Err())
	}
}

func walk(b []byte) (n int) {
	it := Messages(b)
	for it.Next() {
		n++
		_, _ = it.Message().Errno()
		n += walkAttrs(it.Message().Payload, 0)
	}
	return n + walkAttrs(b, 0)
}

func walkAttrs(b []byte, depth int) (n int) {
	a := Attrs(b)
	for a.Next() {
		n++
		_, _ = a.Text(), a.Uint8("x")
		if depth < 3 {
			n += walkAttrs(a.Bytes(), depth+1)
		}
	}
	return n
}

// TestDamage is about what must not happen: a panic.
func TestDamage(*testing.T) {
	good := message(1, 2, sample())
	for i := range good {
		walk(good[:i])
		for bit := range 256 {
			c := slices.Clone(good)
			c[i] ^= byte(bit)
			walk(c)
		}
	}
}

func TestNoAllocation(t *testing.T) {
	b := message(1, 2, sample())
	if n := testing.AllocsPerRun(100, func() {
		it := Messages(b)
		for it.Next() {
			a := Attrs(it.Message().Payload)
			for a.Next() {
				_ = a.Text()
			}
			a.Require(1, "ONE")
		}
	}); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}

func FuzzWalk(f *testing.F) {
	f.Add(message(1, 2, sample()))
	f.Fuzz(func(t *testing.T, b []byte) {
		if n := walk(b); n > 5*len(b)+1 {
			t.Fatalf("%d steps for %d bytes", n, len(b))
		}
	})
}
