// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"unsafe"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/svcscope/svcscope/pkg/netfilter/nlattr"
)

// atOnce is how many datagrams one system call takes: the answer of a short
// chain is two, its rules and the end of the dump.
const atOnce = 2

// socket is the transport to the kernel. The kernel answers while it is asked,
// so that Receive finds the answer there. The runtime's poller therefore does
// not know the socket: it would be woken for each datagram, in another thread.
type socket struct {
	fd  int
	seq uint32
	out []byte // the last request
	to  unix.SockaddrNetlink

	heads    [atOnce]messageHead
	vectors  [atOnce]unix.Iovec
	from     [atOnce]unix.RawSockaddrNetlink
	bufs     [atOnce][]byte
	next, at int // of the datagrams received, which is the next and how many there are
}

// messageHead is struct mmsghdr, include/linux/socket.h.
type messageHead struct {
	unix.Msghdr
	len uint32
}

func dialNetfilter() (transport, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		_ = unix.Close(fd)
		return nil, os.NewSyscallError("bind", err)
	}
	s := &socket{fd: fd, to: unix.SockaddrNetlink{Family: unix.AF_NETLINK}}
	for i := range s.heads {
		s.bufs[i] = make([]byte, receiveSize)
		s.vectors[i].Base = &s.bufs[i][0]
		s.vectors[i].SetLen(receiveSize)
		s.heads[i].Name = (*byte)(unsafe.Pointer(&s.from[i]))
		s.heads[i].Iov = &s.vectors[i]
		s.heads[i].SetIovlen(1)
	}
	return s, nil
}

// Send sends one request and returns it with its sequence number. It is the
// only way of readers to the kernel, and lets only requests pass that change nothing.
func (s *socket) Send(ctx context.Context, m netlink.Message) (netlink.Message, error) {
	if !requestType(m.Header.Type).harmless() || m.Header.Flags&^(netlink.Request|netlink.Dump) != 0 {
		return m, fmt.Errorf("send request %#x with flags %#x: %w", uint16(m.Header.Type), uint16(m.Header.Flags), errRefused)
	}
	s.seq++
	m.Header.Sequence = s.seq
	m.Header.Length = uint32((nlattr.HeaderLen + len(m.Data) + 3) &^ 3)
	// struct nlmsghdr, include/uapi/linux/netlink.h
	b := binary.NativeEndian.AppendUint32(s.out[:0], m.Header.Length)
	b = binary.NativeEndian.AppendUint16(b, uint16(m.Header.Type))
	b = binary.NativeEndian.AppendUint16(b, uint16(m.Header.Flags))
	b = binary.NativeEndian.AppendUint32(b, m.Header.Sequence)
	b = binary.NativeEndian.AppendUint32(b, m.Header.PID)
	b = append(b, m.Data...)
	for len(b) < int(m.Header.Length) {
		b = append(b, 0)
	}
	s.out = b
	for {
		err := unix.Sendto(s.fd, b, unix.MSG_DONTWAIT, &s.to)
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
			return m, err
		}
		if err := s.wait(ctx, unix.POLLOUT); err != nil {
			return m, err
		}
	}
}

// Receive returns the next datagram that the kernel sent, valid until the next
// call; those of other processes are dropped.
func (s *socket) Receive(ctx context.Context) ([]byte, error) {
	for {
		for s.next < s.at {
			i := s.next
			s.next++
			n := int(s.heads[i].len)
			if s.from[i].Family != unix.AF_NETLINK || s.from[i].Pid != 0 {
				continue
			}
			if n > len(s.bufs[i]) {
				return nil, fmt.Errorf("netlink message of %d bytes in a buffer of %d", n, len(s.bufs[i]))
			}
			return s.bufs[i][:n], nil
		}
		if ctx.Err() != nil {
			return nil, os.ErrDeadlineExceeded
		}
		if err := s.fill(ctx); err != nil {
			return nil, err
		}
	}
}

// fill takes what is there, and waits where nothing is.
func (s *socket) fill(ctx context.Context) error {
	for {
		for i := range s.heads {
			s.heads[i].Namelen, s.heads[i].Flags = unix.SizeofSockaddrNetlink, 0
		}
		n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, uintptr(s.fd), uintptr(unsafe.Pointer(&s.heads)), atOnce,
			unix.MSG_TRUNC|unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case 0:
			s.next, s.at = 0, int(n)
			return nil
		case unix.EAGAIN, unix.EINTR:
		default:
			return errno
		}
		if err := s.wait(ctx, unix.POLLIN); err != nil {
			return err
		}
	}
}

// wait returns when the socket may be ready, and os.ErrDeadlineExceeded once
// ctx has ended.
func (s *socket) wait(ctx context.Context, events int16) error {
	const look = 20 // ms; the kernel answers at once, so that nobody waits for this
	if ctx.Err() != nil {
		return os.ErrDeadlineExceeded
	}
	_, err := unix.Poll([]unix.PollFd{{Fd: int32(s.fd), Events: events}}, look)
	if errors.Is(err, unix.EINTR) {
		return nil
	}
	return err
}

// Close closes the socket. Nothing else may be under way.
func (s *socket) Close() error { return unix.Close(s.fd) }
