// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/svcscope/svcscope/pkg/netfilter/nftables"
	"github.com/svcscope/svcscope/pkg/netfilter/nlattr"
)

// DefaultNoticesBuffer is NoticesConfig.ReceiveBuffer where it is 0. Measured
// on Linux 6.18 with kube-proxy's rules: notices are 0.6 KB each, five to six
// are in a datagram, and while they wait one counts 966 bytes. A rule that is
// replaced makes two, so a full rewrite of 2,500 rules is 4.8 MB, and three of
// them fit; a burst of n notices needs n KB.
const DefaultNoticesBuffer = 16 << 20

// NoticesConfig says how notices are received; the zero value is right
// outside of tests.
type NoticesConfig struct {
	// ReceiveBuffer is how many bytes may wait, as the kernel counts them, with
	// their overhead; 0 is DefaultNoticesBuffer. It is set with SO_RCVBUFFORCE;
	// without CAP_NET_ADMIN in the initial user namespace with SO_RCVBUF, which
	// ends at twice net.core.rmem_max. It takes memory only while notices wait.
	ReceiveBuffer int
}

// Notices receives what the kernel tells of every commit to the nf_tables
// rules of the network namespace it was opened in (multicast group
// NFNLGRP_NFTABLES). It asks the kernel for nothing, ever.
//
// While one is open, whoever changes rules pays: the kernel builds a message
// for each object of a commit and holds them, 8 KiB each (16 for a rule that is
// replaced) and charged to nobody, until the commit is done. Close ends that at
// once.
type Notices struct {
	t      noticeTransport
	closed atomic.Bool

	mu    sync.Mutex // guards total
	total uint64

	// What follows is Next's.
	buf     []byte
	it      nlattr.MessageIter // over what is left of the last datagram
	decoder nftables.NoticeDecoder
	notice  nftables.Notice
	overrun bool // messages were lost, and it was not said yet
	left    int  // bytes that can be of before the loss
	limit   int  // bytes that the socket can hold
}

// noticeTransport is a socket that only receives. Receive reads one datagram
// into buf; where none is there it waits, or returns EAGAIN. ENOBUFS says that
// some were lost.
type noticeTransport interface {
	Receive(buf []byte, wait bool) (int, error)
	SetDeadline(time.Time) error
	Memory() (socketMemory, error)
	Close() error
}

// OpenNotices opens a netlink socket, raises its receive buffer and joins the
// group. It returns an error that wraps ErrAbsent where the kernel would have
// to load the module of nf_tables for that (nfnetlink_bind asks for it), and
// a *CapabilityError without CAP_NET_ADMIN.
func OpenNotices(cfg NoticesConfig) (*Notices, error) {
	const op = "open notices of nf_tables"
	if running.loadable(nftablesModule) {
		return nil, fmt.Errorf("%s: %w: its module is not loaded", op, ErrAbsent)
	}
	t, err := dialNotices(cmp.Or(cfg.ReceiveBuffer, DefaultNoticesBuffer))
	if err != nil {
		return nil, meaning(op, err)
	}
	n, err := openNotices(t)
	if err != nil {
		_ = t.Close()
		return nil, meaning(op, err)
	}
	return n, nil
}

func openNotices(t noticeTransport) (*Notices, error) {
	m, err := t.Memory()
	if err != nil {
		return nil, err
	}
	return &Notices{t: t, buf: make([]byte, receiveSize), limit: int(m.limit)}, nil
}

// Close leaves the group and closes the socket: the kernel builds no more
// messages for it. A Next that waits returns os.ErrClosed. Closing again does
// nothing.
func (n *Notices) Close() error {
	if n.closed.Swap(true) {
		return nil
	}
	return n.t.Close()
}

// Lost counts the datagrams that the kernel did not deliver because the
// buffer was full (SK_MEMINFO_DROPS); each holds one or several notices. It
// may be called beside Next. What ErrOverrun says goes further: where the
// kernel had no memory to build a message, none is counted here.
func (n *Notices) Lost() uint64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	if m, err := n.t.Memory(); err == nil { // not after Close
		n.total += uint64(m.drops - uint32(n.total)) // which starts over at 2^32
	}
	return n.total
}

// ReceiveBuffer returns what NoticesConfig.ReceiveBuffer came to.
func (n *Notices) ReceiveBuffer() int { return n.limit }

// Next waits for a commit and calls visit for each of its notices, as they
// come and in the kernel's order; it returns nil after NewGen. The notice and
// its payload are valid during the call only, names for good. One goroutine
// at a time may call it. Errors:
//
//   - ErrOverrun: notices were lost. All that were received before the loss
//     have been visited; those of a commit without its NewGen are true, but
//     not all. Read the rules anew; Next goes on.
//   - ctx's error, at once. Where that comes in the middle of a commit, the
//     next call goes on from there.
//   - os.ErrClosed after Close.
//   - any other, such as a message that could not be decoded
//     (*netfilter.ShortError, *nlattr.Error): notices cannot be relied on; close it.
//
// # Whether this kernel tells final values
//
// Counting through rewrites needs the final counter in the notice of a
// deleted rule, and nothing is ever written to find out whether this kernel
// sends it. The first DelRule of a rule that is known to have a counter, by
// its NewRule or by a reading, shows it: with HasCounter the kernel does; a
// rule with a counter whose DelRule has none means that it does not, and that
// totals are not exact here. A rule of iptables-nft always has one. (Every
// kernel from 3.18, where nf_tables_rule_notify began to fill the expressions
// of deleted rules, to 6.18 sends it.)
func (n *Notices) Next(ctx context.Context, visit func(*nftables.Notice)) error {
	err := until(ctx, n.t, func() error { return n.next(visit) })
	switch {
	case err == nil:
		return nil
	case n.closed.Load():
		err = os.ErrClosed
	case ctx.Err() != nil && errors.Is(err, os.ErrDeadlineExceeded):
		err = ctx.Err()
	}
	return fmt.Errorf("read notices of nf_tables: %w", err)
}

func (n *Notices) next(visit func(*nftables.Notice)) error {
	for {
		for n.it.Next() {
			end, err := n.message(n.it.Message(), visit)
			if err != nil || end {
				return err
			}
		}
		err := n.it.Err()
		n.it = nlattr.MessageIter{}
		if err == nil {
			err = n.receive()
		}
		if err != nil {
			return err
		}
	}
}

// message visits one message; true is the end of a commit.
func (n *Notices) message(m *nlattr.Message, visit func(*nftables.Notice)) (bool, error) {
	switch m.Type {
	case nlattr.TypeNoop, nlattr.TypeError, nlattr.TypeDone:
		return false, nil // of no commit
	case nlattr.TypeOverrun:
		return false, ErrOverrun
	}
	var err error
	if n.notice, err = n.decoder.Decode(m); err != nil {
		return false, err
	}
	visit(&n.notice)
	return n.notice.Kind == nftables.NewGen, nil
}

// receive reads the next datagram. The kernel says that messages were lost
// before it gives those that came before the loss, takes nothing more until
// these have been read, and does not say it again (net/netlink/af_netlink.c,
// netlink_overrun, netlink_rcv_wake). So ErrOverrun waits until nothing is
// left, or until more has come than the socket can have held.
func (n *Notices) receive() error {
	size, err := n.t.Receive(n.buf, !n.overrun)
	switch {
	case errors.Is(err, unix.ENOBUFS):
		if !n.overrun {
			n.overrun, n.left = true, n.limit
		}
	case errors.Is(err, unix.EAGAIN) && n.overrun:
		n.overrun = false
		return ErrOverrun
	case err != nil:
		return err
	default:
		n.it = nlattr.Messages(n.buf[:size])
		if n.left -= size; n.overrun && n.left < 0 {
			n.left = n.limit
			return ErrOverrun
		}
	}
	return nil
}
