// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"context"
	"errors"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/nftables"
	"github.com/svcscope/svcscope/pkg/netfilter/nlattr"
)

// fakeNotices gives datagrams and errors in turn, then has nothing: it
// returns EAGAIN, or waits for the deadline or Close.
type fakeNotices struct {
	queue   []any // []byte or error
	drops   uint32
	limit   uint32
	waiting chan struct{} // gets a value when Receive waits
	ended   chan struct{}
	closed  int
}

func (f *fakeNotices) Receive(buf []byte, wait bool) (int, error) {
	if len(f.queue) == 0 {
		if !wait {
			return 0, unix.EAGAIN
		}
		f.waiting <- struct{}{}
		<-f.ended
		return 0, os.ErrDeadlineExceeded
	}
	next := f.queue[0]
	f.queue = f.queue[1:]
	if err, ok := next.(error); ok {
		return 0, err
	}
	return copy(buf, next.([]byte)), nil
}

func (f *fakeNotices) SetDeadline(t time.Time) error {
	if t.IsZero() {
		f.ended = make(chan struct{})
	} else {
		close(f.ended)
	}
	return nil
}

func (f *fakeNotices) Memory() (socketMemory, error) {
	if f.closed > 0 {
		return socketMemory{}, os.ErrClosed
	}
	return socketMemory{limit: f.limit, drops: f.drops}, nil
}

func (f *fakeNotices) Close() error {
	f.closed++
	close(f.ended)
	return nil
}

func fakeListener(t *testing.T, queue ...any) (*Notices, *fakeNotices) {
	t.Helper()
	f := &fakeNotices{queue: queue, limit: 1 << 20, waiting: make(chan struct{}, 1), ended: make(chan struct{})}
	n, err := openNotices(f)
	if err != nil {
		t.Fatal(err)
	}
	return n, f
}

func datagram(t *testing.T, msgs ...netlink.Message) []byte {
	t.Helper()
	var out []byte
	for _, m := range msgs {
		m.Header.Length = uint32(nlattr.HeaderLen + len(m.Data))
		b, err := m.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, b...)
	}
	return out
}

// ruleNotice is the message of a rule without a counter.
func ruleNotice(typ netlink.HeaderType, handle byte) netlink.Message {
	b := netfilter.AppendGenMsg(nil, netfilter.GenMsg{Family: netfilter.IPv4})
	b = nlattr.AppendString(b, unix.NFTA_RULE_TABLE, "nat")
	b = nlattr.AppendString(b, unix.NFTA_RULE_CHAIN, "KUBE-A")
	b = nlattr.Append(b, unix.NFTA_RULE_HANDLE, []byte{0, 0, 0, 0, 0, 0, 0, handle})
	return netlink.Message{Header: netlink.Header{Type: 10<<8 | typ}, Data: b}
}

func genNotice(id uint32) netlink.Message {
	b := nlattr.AppendUint32(netfilter.AppendGenMsg(nil, netfilter.GenMsg{}), unix.NFTA_GEN_ID, id)
	return netlink.Message{Header: netlink.Header{Type: 10<<8 | unix.NFT_MSG_NEWGEN}, Data: b}
}

// visited calls Next and returns the handles of rules and, negative, the
// generations.
func visited(t *testing.T, n *Notices) ([]int, error) {
	t.Helper()
	var out []int
	err := n.Next(t.Context(), func(m *nftables.Notice) {
		if m.Kind == nftables.NewGen {
			out = append(out, -int(m.Gen.ID))
		} else {
			out = append(out, int(m.Handle))
		}
	})
	return out, err
}

func TestNextEndsWithTheCommit(t *testing.T) {
	n, _ := fakeListener(t,
		datagram(t, ruleNotice(8, 1), ruleNotice(6, 2)),
		// Nothing says that a commit must not begin in the datagram that ends one.
		datagram(t, ruleNotice(6, 3), genNotice(7), ruleNotice(6, 4)),
		datagram(t, errnoMessage(netlink.Error, 0), errnoMessage(netlink.Noop, 0), genNotice(8)),
	)
	for _, want := range [][]int{{1, 2, 3, -7}, {4, -8}} {
		got, err := visited(t, n)
		if d := cmp.Diff(want, got); d != "" || err != nil {
			t.Errorf("%v (-want +got):\n%s", err, d)
		}
	}
}

// step is what one call of Next brings.
type step struct {
	want []int
	err  error
}

func TestOverrunIsSaidAfterWhatCameBefore(t *testing.T) {
	tests := []struct {
		name  string
		queue []any
		want  []step
	}{
		{"before anything", []any{unix.ENOBUFS}, []step{{nil, ErrOverrun}}},
		{
			"in a commit",
			[]any{
				unix.ENOBUFS, datagram(t, ruleNotice(8, 1)), datagram(t, ruleNotice(8, 2)), unix.EAGAIN,
				datagram(t, ruleNotice(8, 3), genNotice(9)),
			},
			[]step{{[]int{1, 2}, ErrOverrun}, {[]int{3, -9}, nil}},
		},
		{
			"after a commit",
			[]any{unix.ENOBUFS, datagram(t, ruleNotice(8, 1), genNotice(8))},
			[]step{{[]int{1, -8}, nil}, {nil, ErrOverrun}},
		},
		{
			"twice",
			[]any{unix.ENOBUFS, datagram(t, ruleNotice(8, 1)), unix.ENOBUFS, datagram(t, ruleNotice(8, 2))},
			[]step{{[]int{1, 2}, ErrOverrun}},
		},
		{
			"said by a message",
			[]any{datagram(t, ruleNotice(8, 1), errnoMessage(netlink.Overrun, 0), genNotice(8))},
			[]step{{[]int{1}, ErrOverrun}, {[]int{-8}, nil}},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n, _ := fakeListener(t, tt.queue...)
			for i, s := range tt.want {
				got, err := visited(t, n)
				if d := cmp.Diff(s.want, got); d != "" || !errors.Is(err, s.err) || (err == nil) != (s.err == nil) {
					t.Errorf("call %d: %v, want %v (-want +got):\n%s", i, err, s.err, d)
				}
			}
		})
	}
}

// TestOverrunIsSaidInAFlood: where the queue never runs empty, no more comes
// before ErrOverrun than the socket can have held, and it is said again: the
// kernel goes on losing messages until the queue was empty.
func TestOverrunIsSaidInAFlood(t *testing.T) {
	one := datagram(t, ruleNotice(8, 1))
	n, f := fakeListener(t)
	n.limit = 3 * len(one)
	f.queue = append([]any{unix.ENOBUFS}, slices.Repeat([]any{one}, 10)...)
	for _, want := range []int{3, 4, 3} {
		got, err := visited(t, n)
		if len(got) != want || !errors.Is(err, ErrOverrun) {
			t.Errorf("got %d notices and %v, want %d", len(got), err, want)
		}
	}
}

func TestDamagedNotices(t *testing.T) {
	whole := datagram(t, ruleNotice(8, 1), ruleNotice(8, 2))
	nameless := netlink.Message{Header: netlink.Header{Type: 10<<8 | 6}, Data: make([]byte, 4)}
	n, _ := fakeListener(t,
		whole[:len(whole)-8],
		datagram(t, nameless, ruleNotice(6, 3), genNotice(5)),
		unix.EIO,
	)
	var short *netfilter.ShortError
	if got, err := visited(t, n); !errors.As(err, &short) || len(got) != 1 {
		t.Errorf("cut datagram: got %v, %v", got, err)
	}
	var attr *nlattr.Error
	if got, err := visited(t, n); !errors.As(err, &attr) || len(got) != 0 {
		t.Errorf("rule without a name: got %v, %v", got, err)
	}
	if got, err := visited(t, n); len(got) != 2 || err != nil {
		t.Errorf("what followed: got %v, %v", got, err)
	}
	if _, err := visited(t, n); !errors.Is(err, unix.EIO) {
		t.Errorf("got %v, want the socket's error", err)
	}
}

func TestNextEndsWithItsContext(t *testing.T) {
	n, f := fakeListener(t, datagram(t, ruleNotice(8, 1)))
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-f.waiting; cancel() }()
	visits := 0
	if err := n.Next(ctx, func(*nftables.Notice) { visits++ }); !errors.Is(err, context.Canceled) || visits != 1 {
		t.Errorf("got %v after %d visits", err, visits)
	}
	if err := n.Next(ctx, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("ended before: got %v", err)
	}
	f.queue = []any{datagram(t, ruleNotice(8, 2), genNotice(4))}
	got, err := visited(t, n)
	if d := cmp.Diff([]int{2, -4}, got); d != "" || err != nil {
		t.Errorf("the rest of the commit: %v (-want +got):\n%s", err, d)
	}
	go func() { <-f.waiting; _ = n.Close() }()
	if err := n.Next(t.Context(), nil); !errors.Is(err, os.ErrClosed) {
		t.Errorf("closed: got %v", err)
	}
	if err := n.Close(); err != nil || f.closed != 1 {
		t.Errorf("closed again: %v, %d times", err, f.closed)
	}
}

func TestLostGoesOnPastTheCounter(t *testing.T) {
	n, f := fakeListener(t)
	for _, s := range []struct {
		drops uint32
		want  uint64
	}{{0, 0}, {5, 5}, {1<<32 - 1, 1<<32 - 1}, {3, 1<<32 + 3}, {3, 1<<32 + 3}} {
		f.drops = s.drops
		if got := n.Lost(); got != s.want {
			t.Errorf("%d drops: got %d, want %d", s.drops, got, s.want)
		}
	}
	_ = n.Close()
	if got := n.Lost(); got != 1<<32+3 {
		t.Errorf("after close: got %d", got)
	}
}

// TestNextAllocatesOnceACommit: not for each notice.
func TestNextAllocatesOnceACommit(t *testing.T) {
	const rules = 500
	msgs := make([]netlink.Message, rules)
	for i := range msgs {
		msgs[i] = ruleNotice(8, byte(i))
	}
	b := datagram(t, append(msgs, genNotice(1))...)
	n, f := fakeListener(t)
	visits := 0
	visit := func(*nftables.Notice) { visits++ }
	queue := []any{b}
	allocs := testing.AllocsPerRun(50, func() {
		f.queue = queue
		if err := n.Next(t.Context(), visit); err != nil {
			t.Fatal(err)
		}
	})
	if allocs > 10 || visits != 51*(rules+1) {
		t.Errorf("%v allocations for a commit of %d rules; %d visits", allocs, rules, visits)
	}
}
