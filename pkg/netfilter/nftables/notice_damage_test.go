// SPDX-License-Identifier: Apache-2.0

package nftables

import (
	"fmt"
	"reflect"
	"slices"
	"testing"

	"github.com/svcscope/svcscope/pkg/netfilter/nlattr"
)

// noticeOrError fails tb if decoding gives both an error and a notice, or a
// notice that is not of the message.
func noticeOrError(tb testing.TB, d *NoticeDecoder, m nlattr.Message) {
	tb.Helper()
	n, err := d.Decode(&m)
	switch {
	case err != nil && !reflect.ValueOf(n).IsZero():
		tb.Fatalf("error %v and a notice %+v", err, n)
	case err == nil && (n.Type != m.Type || len(n.Payload) != len(m.Payload) || n.Kind != noticeKind(m.Type)):
		tb.Fatalf("notice %+v of message %#x", n, m.Type)
	case !n.HasCounter && n.Counter.Packets|n.Counter.Bytes != 0:
		tb.Fatalf("a value without a counter: %+v", n)
	}
}

func TestDamagedNotices(t *testing.T) {
	var d NoticeDecoder
	for _, m := range noticeMessages(t) {
		b := m.Payload
		for i := range b {
			m.Payload = b[:i]
			noticeOrError(t, &d, m)
			for _, flip := range []byte{0x01, 0x80, 0xff} {
				m.Payload = slices.Clone(b)
				m.Payload[i] ^= flip
				noticeOrError(t, &d, m)
			}
		}
	}
}

// TestCutRuleNoticeIsNone: the end of a rule that was deleted must not be
// taken for its final value.
func TestCutRuleNoticeIsNone(t *testing.T) {
	var d NoticeDecoder
	for _, m := range noticeMessages(t) {
		whole, err := d.Decode(&m)
		if err != nil || !whole.HasCounter {
			continue
		}
		b := m.Payload
		for i := range b {
			m.Payload = b[:i]
			if n, err := d.Decode(&m); err == nil && n.HasCounter && n.Counter != whole.Counter {
				t.Fatalf("cut to %d of %d bytes: %v, want %v", i, len(b), n.Counter, whole.Counter)
			}
		}
	}
}

func FuzzNotice(f *testing.F) {
	for _, m := range noticeMessages(f) {
		f.Add(m.Type, m.Payload)
	}
	f.Fuzz(func(t *testing.T, typ uint16, b []byte) {
		before := slices.Clone(b)
		noticeOrError(t, &NoticeDecoder{}, nlattr.Message{Type: typ, Payload: b})
		if !slices.Equal(before, b) {
			t.Fatal("the decoder changed its input")
		}
	})
}

func TestNoticeDecoderAllocatesNothing(t *testing.T) {
	msgs := noticeMessages(t)
	i := slices.IndexFunc(msgs, func(m nlattr.Message) bool { return noticeKind(m.Type) == DelRule })
	var d NoticeDecoder
	if n := testing.AllocsPerRun(100, func() { _, _ = d.Decode(&msgs[i]) }); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}

// BenchmarkNotice decodes bursts of rules of one chain.
func BenchmarkNotice(b *testing.B) {
	rule := payloads(b, "kube-proxy", "rules.bin")[0]
	for _, n := range []int{1, 100, 5000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			var d NoticeDecoder
			m := nlattr.Message{Type: 0xa08, Payload: rule}
			for b.Loop() {
				for range n {
					if _, err := d.Decode(&m); err != nil {
						b.Fatal(err)
					}
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/notice")
		})
	}
}
