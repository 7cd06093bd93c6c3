// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/svcscope/svcscope/pkg/netfilter/nlattr"
)

// socket is the transport to the kernel. It sends and receives by itself:
// netlink.Conn starts a goroutine for each request, copies every message and
// hides the flags of NLMSG_DONE.
type socket struct {
	*netlink.Conn
	raw syscall.RawConn
	seq uint32
}

// Send sends one request and returns it with its sequence number. It is the
// only way to the kernel, and lets only requests pass that change nothing.
func (s *socket) Send(m netlink.Message) (netlink.Message, error) {
	if !requestType(m.Header.Type).harmless() || m.Header.Flags&^(netlink.Request|netlink.Dump) != 0 {
		return m, fmt.Errorf("send request %#x with flags %#x: %w", uint16(m.Header.Type), uint16(m.Header.Flags), errRefused)
	}
	s.seq++
	m.Header.Sequence = s.seq
	m.Header.Length = uint32((nlattr.HeaderLen + len(m.Data) + 3) &^ 3)
	b, err := m.MarshalBinary()
	if err != nil {
		return m, err
	}
	wait := s.raw.Write(func(fd uintptr) bool {
		err = unix.Sendto(int(fd), b, unix.MSG_DONTWAIT, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
		return !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR)
	})
	return m, errors.Join(wait, err)
}

func dialNetfilter() (transport, error) {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, err
	}
	raw, err := c.SyscallConn()
	if err != nil {
		_ = c.Close()
		return nil, err
	}
	return &socket{Conn: c, raw: raw}, nil
}

// Receive reads the next datagram that the kernel sent; those of other
// processes are dropped.
func (s *socket) Receive(buf []byte) (int, error) { return receive(s.raw, buf, true) }

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
