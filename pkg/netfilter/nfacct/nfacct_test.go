// SPDX-License-Identifier: Apache-2.0

package nfacct

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"testing"

	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/nlattr"
)

// message is what the kernel sends of kube-proxy's object (nfnl_acct_fill_info).
func message() []byte {
	be64 := func(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }
	b := netfilter.AppendGenMsg(nil, netfilter.GenMsg{})
	b = nlattr.AppendString(b, attrName, "ct_state_invalid_dropped_pkts")
	b = nlattr.Append(b, attrPackets, be64(1<<40|7))
	b = nlattr.Append(b, attrBytes, be64(420))
	b = nlattr.AppendUint32(b, 4, 3)             // NFACCT_USE
	b = nlattr.AppendUint32(b, 5, 1)             // NFACCT_FLAGS
	b = nlattr.Append(b, 6, be64(1_000_000))     // NFACCT_QUOTA
	return nlattr.Append(b, 77, []byte{1, 2, 3}) // of a later kernel
}

func TestDecode(t *testing.T) {
	got, err := Decode(message())
	want := Object{Name: "ct_state_invalid_dropped_pkts", Counter: netfilter.Counter{Packets: 1<<40 | 7, Bytes: 420}}
	if got != want || err != nil {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
}

func TestDecodeWantsAllOfIt(t *testing.T) {
	for _, typ := range []uint16{attrName, attrPackets, attrBytes} {
		b := netfilter.AppendGenMsg(nil, netfilter.GenMsg{})
		for a := nlattr.Attrs(message()[netfilter.GenMsgLen:]); a.Next(); {
			if a.Type() != typ {
				b = nlattr.Append(b, a.Type(), a.Bytes())
			}
		}
		o, err := Decode(b)
		if missing, ok := errors.AsType[*nlattr.Error](err); !ok || missing.Len != -1 || o != (Object{}) {
			t.Errorf("without attribute %d: got %+v, %v", typ, o, err)
		}
	}
	if _, err := Decode(message()[:3]); err == nil {
		t.Error("a message without its header is decoded")
	}
}

// check fails tb if b gives an error and a value.
func check(tb testing.TB, b []byte) {
	tb.Helper()
	if o, err := Decode(b); err != nil && o != (Object{}) {
		tb.Fatalf("error %v and a value %+v", err, o)
	}
}

// TestDamage cuts the message anywhere and changes each of its bytes.
func TestDamage(t *testing.T) {
	whole := message()
	for i := range whole {
		check(t, whole[:i:i])
		c := slices.Clone(whole)
		c[i] ^= 0xff
		check(t, c)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(message())
	f.Add(bytes.Repeat([]byte{4, 0}, 9))
	f.Fuzz(func(t *testing.T, b []byte) { check(t, b) })
}
