// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/nlattr"
)

// requestType is the type of a netlink message that this package may send:
// the subsystem in the high byte, its message in the low one. These constants
// are the only values; a test holds them against the list of requests that
// change nothing in the kernel, and the socket sends no other.
type requestType uint16

// include/uapi/linux/netfilter/nfnetlink.h, nf_tables.h, nfnetlink_conntrack.h,
// nfnetlink_acct.h
const (
	getTable    requestType = unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETTABLE
	getChain    requestType = unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETCHAIN
	getRule     requestType = unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETRULE
	getSet      requestType = unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETSET
	getSetElem  requestType = unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETSETELEM
	getGen      requestType = unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETGEN
	getFlows    requestType = unix.NFNL_SUBSYS_CTNETLINK<<8 | 1 // IPCTNL_MSG_CT_GET
	getStatsCPU requestType = unix.NFNL_SUBSYS_CTNETLINK<<8 | 4 // IPCTNL_MSG_CT_GET_STATS_CPU
	getAccounts requestType = unix.NFNL_SUBSYS_ACCT<<8 | 1      // NFNL_MSG_ACCT_GET
)

// harmless reports whether a type is one of the constants.
func (t requestType) harmless() bool {
	switch t {
	case getTable, getChain, getRule, getSet, getSetElem, getGen, getFlows, getStatsCPU, getAccounts:
		return true
	}
	return false
}

// request is one question to the kernel.
type request struct {
	typ    requestType
	dump   bool
	family netfilter.Family
	attrs  []byte
}

// transport is a netlink socket. Receive returns one datagram, valid until the
// next call, and os.ErrDeadlineExceeded where none has come when ctx ends. Send
// does not keep what it is given. Tests answer with bytes.
type transport interface {
	Send(context.Context, netlink.Message) (netlink.Message, error)
	Receive(context.Context) ([]byte, error)
	Close() error
}

// receiveSize is larger than any datagram of a dump: the kernel fills up to
// 32 KiB when the reader's buffer is at least that large
// (net/netlink/af_netlink.c, netlink_dump).
const receiveSize = 64 << 10

// conn asks and reads answers over one netlink socket, which it opens anew
// after an exchange that did not come to its end: the kernel refuses a dump
// (EBUSY) while another one has not been read.
type conn struct {
	dial    func() (transport, error)
	timeout time.Duration // of what limit bounds; 0 is answerTime

	bytes, messages atomic.Uint64 // received

	mu     sync.Mutex // held through an exchange; guards what follows
	t      transport
	out    []byte // the last request
	answer answer // to it
}

// answerTime is how long all exchanges of one operation may take. The kernel
// takes 3 s for 110,000 rules in one dump, and a hundredth of that by chains.
const answerTime = 30 * time.Second

// limit bounds the time of an operation.
func (c *conn) limit(ctx context.Context) (context.Context, context.CancelFunc) {
	d := cmp.Or(c.timeout, answerTime)
	return context.WithTimeoutCause(ctx, d, fmt.Errorf("%w within %v", ErrTimeout, d))
}

// ended is why ctx did; nil if it did not.
func ended(ctx context.Context) error {
	if cause := context.Cause(ctx); errors.Is(cause, ErrTimeout) {
		return cause
	}
	return ctx.Err()
}

// exchange sends one request and calls visit for each message of the answer
// until its end. The payload is valid during the call only. It returns
// ErrInterrupted when the kernel says that the dump is not of one state, the
// kernel's errno as syscall.Errno, and the first error of visit. When ctx ends,
// the socket is closed.
func (c *conn) exchange(ctx context.Context, req request, visit func(*nlattr.Message) error) (err error) {
	if err := ended(ctx); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.t == nil {
		if c.t, err = c.dial(); err != nil {
			return err
		}
	}
	done, err := c.ask(ctx, req, visit)
	if !done {
		_ = c.t.Close()
		c.t = nil
		if why := ended(ctx); why != nil {
			return why
		}
	}
	return err
}

// ask returns true once the answer was read to its end.
func (c *conn) ask(ctx context.Context, req request, visit func(*nlattr.Message) error) (bool, error) {
	m := netlink.Message{Header: netlink.Header{Type: netlink.HeaderType(req.typ), Flags: netlink.Request}}
	if req.dump {
		m.Header.Flags |= netlink.Dump
	}
	c.out = append(netfilter.AppendGenMsg(c.out[:0], netfilter.GenMsg{Family: req.family}), req.attrs...)
	m.Data = c.out
	sent, err := c.t.Send(ctx, m)
	if err != nil {
		return false, err
	}
	c.answer = answer{seq: sent.Header.Sequence, dump: req.dump, visit: visit}
	for !c.answer.done {
		b, err := c.t.Receive(ctx)
		if errors.Is(err, unix.ENOBUFS) {
			return false, ErrOverrun
		}
		if err != nil {
			return false, err
		}
		c.bytes.Add(uint64(len(b)))
		it := nlattr.Messages(b)
		n := uint64(0)
		for it.Next() && !c.answer.done {
			n++
			c.answer.add(it.Message())
		}
		c.messages.Add(n)
		if it.Err() != nil {
			return false, it.Err()
		}
	}
	return true, c.answer.err
}

// answer collects what the messages of one answer say.
type answer struct {
	seq   uint32
	dump  bool
	visit func(*nlattr.Message) error
	done  bool
	err   error // the first
}

func (a *answer) add(m *nlattr.Message) {
	if m.Seq != a.seq {
		return
	}
	// NLMSG_DONE too carries the flag, when the change came after the last object.
	if m.Flags&nlattr.FlagDumpIntr != 0 {
		a.fail(ErrInterrupted)
	}
	switch m.Type {
	case nlattr.TypeError, nlattr.TypeDone:
		a.done = true
		errno, err := m.Errno()
		if errno != 0 {
			err = syscall.Errno(errno)
		}
		a.fail(err)
	case nlattr.TypeOverrun:
		a.fail(ErrOverrun)
	case nlattr.TypeNoop:
	default:
		if a.err == nil {
			a.fail(a.visit(m))
		}
		a.done = !a.dump
	}
}

func (a *answer) fail(err error) {
	if a.err == nil {
		a.err = err
	}
}

// close closes the socket; a later exchange would open another.
func (c *conn) close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.t == nil {
		return nil
	}
	err := c.t.Close()
	c.t = nil
	return err
}

// meaning wraps the error of an exchange with what was done, and gives the
// errnos a caller decides by their meaning.
func meaning(op string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return &CapabilityError{Op: op, Cap: "CAP_NET_ADMIN", Err: err}
	case errors.Is(err, unix.EPROTONOSUPPORT), errors.Is(err, unix.EAFNOSUPPORT),
		errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOENT):
		return fmt.Errorf("%s: %w: %w", op, ErrAbsent, err)
	}
	return fmt.Errorf("%s: %w", op, err)
}
