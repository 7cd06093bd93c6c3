// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strconv"

	"golang.org/x/sys/unix"
)

// Of linux/netfilter/nfnetlink_log.h.
const (
	logPacket, logConfig = unix.NFNL_SUBSYS_ULOG << 8, unix.NFNL_SUBSYS_ULOG<<8 | 1

	logCfgCommand, logCfgMode, logCfgThreshold = 1, 2, 5
	logCmdBind, logCopyPacket                  = 1, 2
)

// holdArg makes this test binary call holdMain.
const holdArg = "__hold"

// holdMain is `GROUP`: it reads a group of NFLOG as another program would that does so,
// until SIGTERM, and then says how many packets have come.
func holdMain(args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("want a group, not %q", args)
	}
	group, err := strconv.ParseUint(args[0], 10, 16)
	if err != nil {
		return err
	}
	nl, err := openNetlink()
	if err != nil {
		return err
	}
	defer unix.Close(nl.fd)
	head := binary.BigEndian.AppendUint16([]byte{unix.AF_UNSPEC, unix.NFNETLINK_V0}, uint16(group))
	be32 := binary.BigEndian.AppendUint32
	err = nl.request(messageOf(head, logConfig, unix.NLM_F_ACK,
		attr(logCfgCommand, []byte{logCmdBind}), attr(logCfgMode, append(be32(nil, 64), logCopyPacket, 0)), attr(logCfgThreshold, be32(nil, 1))))
	if err != nil {
		return fmt.Errorf("bind group %d: %w", group, err)
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, unix.SIGTERM)
	fmt.Println("holding")
	n, err := nl.countPackets(stop)
	if err == nil {
		fmt.Println(n, "packets")
	}
	return err
}

// countPackets reads until there is nothing more after stop.
func (s *netlinkSocket) countPackets(stop <-chan os.Signal) (n int, err error) {
	if err := unix.SetsockoptTimeval(s.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 100000}); err != nil {
		return 0, err
	}
	buf := make([]byte, 1<<20)
	for stopped := false; ; {
		select {
		case <-stop:
			stopped = true
		default:
		}
		size, _, err := unix.Recvfrom(s.fd, buf, 0)
		switch {
		case errors.Is(err, unix.EAGAIN) && stopped:
			return n, nil
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return n, fmt.Errorf("receive from netlink: %w", err)
		}
		for b := buf[:size]; len(b) >= unix.NLMSG_HDRLEN; {
			if binary.NativeEndian.Uint16(b[4:]) == logPacket {
				n++
			}
			length := int(binary.NativeEndian.Uint32(b)+3) &^ 3
			if length < unix.NLMSG_HDRLEN {
				return n, errors.New("a message of netlink without a length")
			}
			b = b[min(length, len(b)):]
		}
	}
}
