// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"fmt"
	"syscall"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// socket is the transport to the kernel. It reads datagrams itself, because
// netlink.Conn copies every message and hides the flags of NLMSG_DONE.
type socket struct {
	*netlink.Conn
	raw syscall.RawConn
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
func (s *socket) Receive(buf []byte) (int, error) {
	for {
		var (
			n    int
			from unix.Sockaddr
			err  error
		)
		wait := s.raw.Read(func(fd uintptr) bool {
			n, _, _, from, err = unix.Recvmsg(int(fd), buf, nil, unix.MSG_TRUNC|unix.MSG_DONTWAIT)
			return err != unix.EAGAIN && err != unix.EINTR
		})
		switch sa, ok := from.(*unix.SockaddrNetlink); {
		case wait != nil:
			return 0, wait
		case err != nil:
			return 0, err
		case n > len(buf):
			return 0, fmt.Errorf("netlink message of %d bytes in a buffer of %d", n, len(buf))
		case ok && sa.Pid == 0:
			return n, nil
		}
	}
}
