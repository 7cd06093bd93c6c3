// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/nflog"
	"github.com/svcscope/svcscope/pkg/netfilter/nlattr"
)

// TestLogConfig holds the one message that changes something to what it may: it binds
// a group. Commands 3 and 4 would switch the logger of a whole family.
func TestLogConfig(t *testing.T) {
	h, attrs, err := netfilter.DecodeGenMsg(logConfig(100, 5))
	if err != nil {
		t.Fatal(err)
	}
	if want := (netfilter.GenMsg{ResID: 100}); h != want {
		t.Errorf("got %+v, want %+v", h, want)
	}
	got := map[uint16]string{}
	it := nlattr.Attrs(attrs)
	for it.Next() {
		got[it.Type()] = fmt.Sprintf("%x", it.Bytes())
	}
	want := map[uint16]string{
		1: "01", 2: "000000400200", 3: "00020000", 4: "0000000a", 5: "00000040", 6: "0005",
	}
	if d := cmp.Diff(want, got); d != "" || it.Err() != nil {
		t.Errorf("%v; attributes (-want +got):\n%s", it.Err(), d)
	}
	if configureLog != 4<<8|1 {
		t.Errorf("the message is %#x", configureLog)
	}
}

func TestParseLogGroups(t *testing.T) {
	got, err := parseLogGroups(strings.NewReader("    1   4242     0 2    80    100  1\n  100 4294967295     3 2 65531     10  1\n"))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]LogGroup{{1, 4242}, {100, 4294967295}}, got); d != "" {
		t.Errorf("groups (-want +got):\n%s", d)
	}
	if _, err := parseLogGroups(strings.NewReader("group port\n")); err == nil || !strings.Contains(err.Error(), `line "group port"`) {
		t.Errorf("got %v, want an error that has the line", err)
	}
}

// logged is a datagram with packets of these sequence numbers.
func logged(seqs ...uint32) []byte {
	var b []byte
	for _, seq := range seqs {
		p := netfilter.AppendGenMsg(nil, netfilter.GenMsg{Family: netfilter.IPv4, ResID: 7})
		p = nlattr.Append(p, 1, []byte{8, 0, 3, 0})
		p = nlattr.AppendUint32(p, 12, seq)
		b = appendMessage(b, nflog.MessagePacket, p)
	}
	return b
}

func appendMessage(b []byte, typ uint16, payload []byte) []byte {
	b = binary.NativeEndian.AppendUint32(b, uint32(nlattr.HeaderLen+len(payload)))
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = binary.NativeEndian.AppendUint16(b, 0)
	b = append(b, make([]byte, 8)...)
	b = append(b, payload...)
	return append(b, make([]byte, -len(b)&3)...)
}

// TestPacketLogCounts reads datagrams in which some packets are missing.
func TestPacketLogCounts(t *testing.T) {
	damaged := appendMessage(nil, nflog.MessagePacket, []byte{2, 0, 0})
	tests := []struct {
		name  string
		early [][]byte
		queue []any
		want  PacketLogStats
		seen  []uint32
	}{
		{"all", nil, []any{logged(0, 1), logged(2)}, PacketLogStats{Received: 3}, []uint32{0, 1, 2}},
		{"before the first", nil, []any{logged(5)}, PacketLogStats{Received: 1, Lost: 5}, []uint32{5}},
		{"a datagram", nil, []any{logged(0), unix.ENOBUFS, logged(65, 66)}, PacketLogStats{Received: 3, Lost: 64}, []uint32{0, 65, 66}},
		{"before the answer to the bind", [][]byte{logged(0), logged(1)}, []any{logged(2)}, PacketLogStats{Received: 3}, []uint32{0, 1, 2}},
		{"of no known shape", nil, []any{append(logged(0), damaged...), logged(2)}, PacketLogStats{Received: 3, Undecoded: 1}, []uint32{0, 2}},
		{"cut", nil, []any{logged(0, 1)[:70], logged(2)}, PacketLogStats{Received: 2, Lost: 1, Undecoded: 1}, []uint32{0, 2}},
		{"end of numbers", nil, []any{logged(0), logged(1<<32 - 1), logged(1)}, PacketLogStats{Received: 3, Lost: 1<<32 - 1}, []uint32{0, 1<<32 - 1, 1}},
		{"others' messages", nil, []any{appendMessage(logged(0), nlattr.TypeDone, nil), logged(1)}, PacketLogStats{Received: 2}, []uint32{0, 1}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := &PacketLog{t: &fakeNotices{queue: append(tt.queue, errTest)}, early: tt.early, buf: make([]byte, logReceiveSize)}
			var seen []uint32
			for {
				err := l.Next(t.Context(), func(p *nflog.Packet) { seen = append(seen, p.Seq) })
				if errors.Is(err, errTest) {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			if d := cmp.Diff(tt.want, l.Stats()); d != "" {
				t.Errorf("counts (-want +got):\n%s", d)
			}
			if d := cmp.Diff(tt.seen, seen); d != "" {
				t.Errorf("sequence numbers (-want +got):\n%s", d)
			}
		})
	}
}

var errTest = errors.New("the test's end")

// TestPacketLogClosed ends a reader that waits.
func TestPacketLogClosed(t *testing.T) {
	f := &fakeNotices{waiting: make(chan struct{}), ended: make(chan struct{})}
	l := &PacketLog{t: f, buf: make([]byte, logReceiveSize)}
	done := make(chan error)
	go func() { done <- l.Next(t.Context(), func(*nflog.Packet) {}) }()
	<-f.waiting
	_ = l.Close()
	if err := <-done; !errors.Is(err, os.ErrClosed) {
		t.Errorf("got %v, want os.ErrClosed", err)
	}
	if err := l.Close(); err != nil || f.closed != 1 {
		t.Errorf("closed %d times: %v", f.closed, err)
	}
}

// FuzzPacketLog reads datagrams of any bytes: each message is counted, and none stops
// the reader.
func FuzzPacketLog(f *testing.F) {
	f.Add(logged(0, 1, 5))
	f.Add(logged(0, 1)[:70])
	f.Fuzz(func(t *testing.T, b []byte) {
		l := &PacketLog{}
		visited := uint64(0)
		l.datagram(b, func(p *nflog.Packet) {
			visited++
			_, _ = nflog.ParseHeaders(p.Payload)
		})
		if n := l.Stats(); visited > n.Received || n.Received > visited+n.Undecoded {
			t.Errorf("%d packets visited of %+v", visited, n)
		}
	})
}
