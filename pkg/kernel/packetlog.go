// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/svcscope/svcscope/pkg/netfilter/nflog"
	"github.com/svcscope/svcscope/pkg/netfilter/nlattr"
)

// DefaultPacketLogBuffer is PacketLogConfig.ReceiveBuffer where it is 0.
const DefaultPacketLogBuffer = 8 << 20

// logReceiveSize is larger than any datagram of logThreshold packets.
const logReceiveSize = logBuffer + 4<<10

// PacketLogConfig says how packets are received; the zero value is right outside of
// tests.
type PacketLogConfig struct {
	// ReceiveBuffer is how many bytes may wait, as in NoticesConfig; 0 is
	// DefaultPacketLogBuffer.
	ReceiveBuffer int
}

// PacketLog receives the packets that rules log to one group of nfnetlink_log
// (NFLOG; nft's log group) in the network namespace it was opened in. While it is
// open the group is nobody else's; the kernel lets it go with the socket, also
// when the process is killed.
type PacketLog struct {
	t     noticeTransport
	flows bool

	closed atomic.Bool
	count  struct{ received, lost, undecoded atomic.Uint64 }

	// What follows is Next's.
	buf    []byte
	early  [][]byte
	next   uint32 // the sequence number of the packet that is to come
	packet nflog.Packet
}

// PacketLogStats counts the packets of a group since it was bound. Received and Lost
// together are all that were logged, but for those that were lost after the last one that came,
// and those that the kernel had no memory for: these have no number.
type PacketLogStats struct {
	Received  uint64 // with Undecoded
	Lost      uint64 // gaps between sequence numbers
	Undecoded uint64 // of no known shape, and left out
}

// OpenPacketLog binds a group that nobody holds. Errors:
//
//   - *LogGroupHeldError: somebody does. Nothing is changed.
//   - one that wraps ErrAbsent, where the kernel would have to load the module of
//     nfnetlink_log for that: no rule logs to a group there.
//   - *CapabilityError without CAP_NET_ADMIN.
func OpenPacketLog(group uint16, cfg PacketLogConfig) (*PacketLog, error) {
	op := fmt.Sprintf("bind NFLOG group %d", group)
	if running.loadable(nflogModule) {
		return nil, fmt.Errorf("%s: %w: its module is not loaded", op, ErrAbsent)
	}
	if held := heldLogGroup(group, nil); held != nil {
		return nil, fmt.Errorf("%s: %w", op, held)
	}
	t, early, flows, err := openLogSocket(group, cmp.Or(cfg.ReceiveBuffer, DefaultPacketLogBuffer))
	if err != nil {
		return nil, logRefusal(op, group, err)
	}
	return &PacketLog{t: t, flows: flows, early: early, buf: make([]byte, logReceiveSize)}, nil
}

// HasFlows reports whether the kernel tells a packet's entry of connection tracking
// (CONFIG_NETFILTER_NETLINK_GLUE_CT).
func (l *PacketLog) HasFlows() bool { return l.flows }

// Stats may be called beside Next.
func (l *PacketLog) Stats() PacketLogStats {
	return PacketLogStats{Received: l.count.received.Load(), Lost: l.count.lost.Load(), Undecoded: l.count.undecoded.Load()}
}

// Close lets the group go. A Next that waits returns os.ErrClosed. Closing again does
// nothing.
func (l *PacketLog) Close() error {
	if l.closed.Swap(true) {
		return nil
	}
	return l.t.Close()
}

// Next waits for packets and calls visit for each that has come; the packet and its
// memory are valid during the call only. One goroutine at a time may call it. What is
// lost is counted and no error. It returns ctx's error at once when that ends,
// os.ErrClosed after Close, and any other error of the socket.
func (l *PacketLog) Next(ctx context.Context, visit func(*nflog.Packet)) error {
	err := until(ctx, l.t, func() error { return l.read(visit) })
	switch {
	case err == nil:
		return nil
	case l.closed.Load():
		err = os.ErrClosed
	case ctx.Err() != nil && errors.Is(err, os.ErrDeadlineExceeded):
		err = ctx.Err()
	}
	return fmt.Errorf("read logged packets: %w", err)
}

// read visits the packets of one datagram.
func (l *PacketLog) read(visit func(*nflog.Packet)) error {
	if len(l.early) > 0 {
		b := l.early[0]
		l.early = l.early[1:]
		l.datagram(b, visit)
		return nil
	}
	for {
		n, err := l.t.Receive(l.buf, true)
		if errors.Is(err, unix.ENOBUFS) {
			continue // the next sequence number tells how many
		}
		if err != nil {
			return err
		}
		l.datagram(l.buf[:n], visit)
		return nil
	}
}

func (l *PacketLog) datagram(b []byte, visit func(*nflog.Packet)) {
	var n PacketLogStats
	it := nlattr.Messages(b)
	for it.Next() {
		m := it.Message()
		if m.Type != nflog.MessagePacket {
			continue
		}
		n.Received++
		if err := l.packet.Decode(m.Payload); err != nil {
			n.Undecoded++
			l.next++ // it had a number, too
			continue
		}
		if l.packet.HasSeq {
			n.Lost += uint64(l.packet.Seq - l.next) // which starts over at 2^32
			l.next = l.packet.Seq + 1
		}
		visit(&l.packet)
	}
	if it.Err() != nil { // what is left cannot be told apart
		n.Undecoded++
	}
	l.count.received.Add(n.Received)
	l.count.lost.Add(n.Lost)
	l.count.undecoded.Add(n.Undecoded)
}
