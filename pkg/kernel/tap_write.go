// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"cmp"
	"context"
	"errors"
	"syscall"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/nftables"
	"github.com/svcscope/svcscope/pkg/netfilter/nlattr"
)

// tapType is a message that changes the table of a Tap, the only one that this package
// writes. These constants are the only values.
type tapType uint16

// include/uapi/linux/netfilter/nf_tables.h
const (
	newTapTable tapType = unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_NEWTABLE
	newTapChain tapType = unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_NEWCHAIN
	newTapRule  tapType = unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_NEWRULE
	newTapSet   tapType = unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_NEWSET
	newTapElem  tapType = unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_NEWSETELEM
	delTapElem  tapType = unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_DELSETELEM
)

// include/uapi/linux/netfilter/nfnetlink.h
const (
	batchBegin = unix.NFNL_MSG_BATCH_BEGIN
	batchEnd   = unix.NFNL_MSG_BATCH_END
)

// tapObject makes the payload of a message.
type tapObject interface{ Append([]byte) []byte }

// tapBatch is one transaction.
type tapBatch struct{ messages []netlink.Message }

// add adds a message; the kernel does all of them, or none.
func (b *tapBatch) add(typ tapType, o tapObject) {
	flags := netlink.Request
	if typ != delTapElem {
		flags |= netlink.Create
	}
	switch typ {
	case newTapRule:
		flags |= netlink.Append
	case newTapTable: // none of somebody else's
		flags |= netlink.Excl
	case delTapElem: // with what it has counted
		flags |= netlink.Echo
	}
	b.put(typ, flags, o)
}

// drop deletes elements that count nothing, of which the kernel need not tell.
func (b *tapBatch) drop(o tapObject) { b.put(delTapElem, netlink.Request, o) }

func (b *tapBatch) put(typ tapType, flags netlink.HeaderFlags, o tapObject) {
	b.messages = append(b.messages, netlink.Message{Header: netlink.Header{Type: netlink.HeaderType(typ), Flags: flags}, Data: o.Append(nil)})
}

// tapEchoBuffer holds what the kernel tells of tapAtOnce elements in two sets.
const tapEchoBuffer = 4 << 20

// tapSendBuffer holds one transaction.
const tapSendBuffer = 1 << 20

// tapWriter is the socket that owns the table.
type tapWriter struct{ s *noticeSocket }

func dialTap() (tapWriter, error) {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return tapWriter{}, err
	}
	s := &noticeSocket{conn: c}
	if s.raw, err = c.SyscallConn(); err == nil {
		err = c.SetReadBuffer(tapEchoBuffer / 2) // the kernel takes twice of what it is asked for
	}
	if err == nil {
		err = c.SetWriteBuffer(tapSendBuffer / 2)
	}
	if err != nil {
		_ = c.Close()
		return tapWriter{}, err
	}
	return tapWriter{s}, nil
}

// Close ends the table with the socket.
func (w tapWriter) Close() error { return w.s.Close() }

// commit sends one transaction and waits for what the kernel says of it. It returns the
// first error, as syscall.Errno. gone is called with elements that were deleted.
func (w tapWriter) commit(ctx context.Context, b *tapBatch, gone func(*nftables.Elements)) error {
	if len(b.messages) == 0 {
		return nil
	}
	edge := netfilter.AppendGenMsg(nil, netfilter.GenMsg{ResID: unix.NFNL_SUBSYS_NFTABLES})
	last := len(b.messages) - 1
	b.messages[last].Header.Flags |= netlink.Acknowledge // an error is told of any
	all := append([]netlink.Message{{Header: netlink.Header{Type: batchBegin, Flags: netlink.Request}, Data: edge}}, b.messages...)
	all = append(all, netlink.Message{Header: netlink.Header{Type: batchEnd, Flags: netlink.Request}, Data: edge})
	if err := ctx.Err(); err != nil {
		return err
	}
	sent, err := w.s.conn.SendMessages(all)
	if err != nil {
		return err
	}
	return w.answers(sent[0].Header.Sequence, sent[last+1].Header.Sequence, gone)
}

// errNoAnswer says that the kernel did not say what became of a transaction.
var errNoAnswer = errors.New("the kernel has not answered a transaction")

// answers reads what the kernel has said of the messages from a sequence number on, all
// of which is there when they were sent. Where it refuses all of it, it says so of the first
// one alone, else of each that fails, and of the last one in any case.
func (w tapWriter) answers(from, last uint32, gone func(*nftables.Elements)) (first error) {
	buf := make([]byte, receiveSize)
	done := false
	for {
		n, err := w.s.Receive(buf, false)
		switch {
		case errors.Is(err, unix.EAGAIN) && (done || first != nil):
			return first
		case errors.Is(err, unix.EAGAIN):
			return errNoAnswer
		case err != nil:
			return err
		}
		for it := nlattr.Messages(buf[:n]); it.Next(); {
			m := it.Message()
			if tapType(m.Type) == delTapElem {
				es, err := nftables.DecodeElements(m.Payload)
				if err == nil {
					gone(&es)
				}
				first = cmp.Or(first, err)
				continue
			}
			if m.Type != nlattr.TypeError || int32(m.Seq-from) < 0 {
				continue
			}
			errno, err := m.Errno()
			if err == nil && errno != 0 {
				err = syscall.Errno(errno)
			}
			if first == nil {
				first = err
			}
			done = done || m.Seq == last
		}
	}
}
