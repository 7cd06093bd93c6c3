// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"
	"unsafe"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// noticesGroup is NFNLGRP_NFTABLES, include/uapi/linux/netfilter/nfnetlink.h.
const noticesGroup = 7

// noticeSocket is one that is read from, as a member of a group, or as the reader of
// one of NFLOG.
type noticeSocket struct {
	conn *netlink.Conn
	raw  syscall.RawConn
}

// dialNotices raises the buffer before it joins, so that it is there for the
// first message. The kernel doubles what it is asked for (net/core/sock.c).
func dialNotices(buffer int) (noticeTransport, error) {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, err
	}
	s := &noticeSocket{conn: c}
	if s.raw, err = c.SyscallConn(); err == nil {
		err = c.SetReadBuffer(buffer / 2)
	}
	if err == nil {
		err = c.JoinGroup(noticesGroup)
	}
	if err != nil {
		_ = c.Close()
		return nil, err
	}
	return s, nil
}

// until calls read; a Receive that it waits in ends with os.ErrDeadlineExceeded when
// ctx does.
func until(ctx context.Context, t noticeTransport, read func() error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	passed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		_ = t.SetDeadline(time.Unix(1, 0))
		close(passed)
	})
	defer func() {
		if !stop() {
			<-passed
			_ = t.SetDeadline(time.Time{})
		}
	}()
	return read()
}

// Receive reads the next datagram that the kernel sent.
func (s *noticeSocket) Receive(buf []byte, wait bool) (int, error) { return receive(s.raw, buf, wait) }

// receive reads the next datagram that the kernel sent. Where none is there it
// waits, or returns EAGAIN.
func receive(raw syscall.RawConn, buf []byte, wait bool) (int, error) {
	for {
		var (
			n    int
			from unix.Sockaddr
			err  error
		)
		waited := raw.Read(func(fd uintptr) bool {
			n, _, _, from, err = unix.Recvmsg(int(fd), buf, nil, unix.MSG_TRUNC|unix.MSG_DONTWAIT)
			return (!wait || !errors.Is(err, unix.EAGAIN)) && !errors.Is(err, unix.EINTR)
		})
		switch sa, ok := from.(*unix.SockaddrNetlink); {
		case waited != nil:
			return 0, waited
		case err != nil:
			return 0, err
		case n > len(buf):
			return 0, fmt.Errorf("netlink message of %d bytes in a buffer of %d", n, len(buf))
		case ok && sa.Pid == 0:
			return n, nil
		}
	}
}

// SetDeadline ends a Receive that waits, and those after it until it is taken
// back with the zero time.
func (s *noticeSocket) SetDeadline(t time.Time) error { return s.conn.SetDeadline(t) }

// Close closes the socket, which leaves the group; a Receive that waits ends.
func (s *noticeSocket) Close() error { return s.conn.Close() }

// socketMemory is what this package reads of SO_MEMINFO,
// include/uapi/linux/sock_diag.h.
type socketMemory struct {
	used  uint32 // bytes of what waits, with overhead: SK_MEMINFO_RMEM_ALLOC
	limit uint32 // what may wait: SK_MEMINFO_RCVBUF
	drops uint32 // datagrams lost, modulo 2^32: SK_MEMINFO_DROPS
}

// Memory reads SO_MEMINFO.
func (s *noticeSocket) Memory() (socketMemory, error) {
	var (
		v     [unix.SK_MEMINFO_VARS]uint32
		errno syscall.Errno
	)
	err := s.raw.Control(func(fd uintptr) {
		size := uint32(unsafe.Sizeof(v))
		_, _, errno = unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_MEMINFO,
			uintptr(unsafe.Pointer(&v)), uintptr(unsafe.Pointer(&size)), 0)
	})
	if err == nil && errno != 0 {
		err = errno
	}
	return socketMemory{used: v[unix.SK_MEMINFO_RMEM_ALLOC], limit: v[unix.SK_MEMINFO_RCVBUF], drops: v[unix.SK_MEMINFO_DROPS]}, err
}
