// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"

	nfloglib "github.com/florianl/go-nflog/v2"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/nlattr"
)

// include/uapi/linux/netfilter/nfnetlink_log.h. Of the commands there is BIND alone:
// PF_BIND and PF_UNBIND would switch the logger of a whole family, which is
// not one process's; and a group is let go with its socket.
const (
	configureLog = unix.NFNL_SUBSYS_ULOG<<8 | 1 // NFULNL_MSG_CONFIG

	logConfigCommand   = 1 // NFULA_CFG_CMD: struct nfulnl_msg_config_cmd
	logConfigMode      = 2 // NFULA_CFG_MODE: struct nfulnl_msg_config_mode
	logConfigBuffer    = 3 // NFULA_CFG_NLBUFSIZ, be32
	logConfigTimeout   = 4 // NFULA_CFG_TIMEOUT, be32, of 10 ms
	logConfigThreshold = 5 // NFULA_CFG_QTHRESH, be32
	logConfigFlags     = 6 // NFULA_CFG_FLAGS, be16

	logBind       = 1 // NFULNL_CFG_CMD_BIND
	logCopyPacket = 2 // NFULNL_COPY_PACKET
)

// How packets of a group come.
const (
	logCopied    = 64 // bytes of each, from its network header on: up to its ports
	logBuffer    = 128 << 10
	logTimeout   = 10 // a tenth of a second, for which a few wait for more
	logThreshold = 64 // so many come at once
)

// openLogSocket binds a group. A group's flags are its sequence numbers, and the
// packets' entries of connection tracking where the kernel has them: then flows is
// true. What has come before the kernel's answer is in early.
func openLogSocket(group uint16, buffer int) (t noticeTransport, early [][]byte, flows bool, err error) {
	l, err := nfloglib.Open(&nfloglib.Config{})
	if err != nil {
		return nil, nil, false, err
	}
	s := &noticeSocket{conn: l.Con}
	defer func() {
		if err != nil {
			_ = s.Close()
		}
	}()
	if s.raw, err = l.Con.SyscallConn(); err != nil {
		return nil, nil, false, err
	}
	if err = l.Con.SetReadBuffer(buffer / 2); err != nil {
		return nil, nil, false, err
	}
	// The kernel would load the module of such entries for the asking.
	if flows = !running.loadable(ctnetlinkModule); flows {
		early, err = s.bindLog(group, nfloglib.FlagSeq|nfloglib.FlagConntrack)
		if errors.Is(err, unix.EOPNOTSUPP) {
			flows = false
		}
	}
	if !flows {
		early, err = s.bindLog(group, nfloglib.FlagSeq)
	}
	return s, early, flows, err
}

// bindLog binds and configures a group, both in one message: hardly a packet comes
// in another shape. It returns what came before the answer.
func (s *noticeSocket) bindLog(group, flags uint16) (early [][]byte, err error) {
	m, err := s.conn.Send(netlink.Message{
		Header: netlink.Header{Type: configureLog, Flags: netlink.Request | netlink.Acknowledge},
		Data:   logConfig(group, flags),
	})
	if err != nil {
		return nil, err
	}
	for {
		buf := make([]byte, logReceiveSize)
		n, err := s.Receive(buf, true)
		if err != nil {
			return nil, err
		}
		for it := nlattr.Messages(buf[:n]); it.Next(); {
			answer := it.Message()
			if answer.Type != nlattr.TypeError || answer.Seq != m.Header.Sequence {
				continue
			}
			errno, err := answer.Errno()
			if err == nil && errno != 0 {
				err = unix.Errno(errno)
			}
			return early, err
		}
		early = append(early, buf[:n])
	}
}

// logConfig is the payload of NFULNL_MSG_CONFIG.
func logConfig(group, flags uint16) []byte {
	b := netfilter.AppendGenMsg(nil, netfilter.GenMsg{ResID: group})
	b = nlattr.Append(b, logConfigCommand, []byte{logBind})
	mode := append(binary.BigEndian.AppendUint32(nil, logCopied), logCopyPacket, 0)
	b = nlattr.Append(b, logConfigMode, mode)
	b = nlattr.AppendUint32(b, logConfigBuffer, logBuffer)
	b = nlattr.AppendUint32(b, logConfigTimeout, logTimeout)
	b = nlattr.AppendUint32(b, logConfigThreshold, logThreshold)
	return nlattr.Append(b, logConfigFlags, binary.BigEndian.AppendUint16(nil, flags))
}

// logRefusal tells why a bind was refused: EPERM is what the kernel says of a group
// that another port holds, and of a process without the capability.
func logRefusal(op string, group uint16, err error) error {
	if !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EBUSY) {
		return meaning(op, err)
	}
	if held := heldLogGroup(group, err); held != nil {
		return fmt.Errorf("%s: %w", op, held)
	}
	return meaning(op, err)
}

// heldLogGroup is the holder of a group as an error; nil where there is none.
func heldLogGroup(group uint16, err error) *LogGroupHeldError {
	all, _ := LogGroups()
	for _, g := range all {
		if g.Group == group {
			return &LogGroupHeldError{LogGroup: g, Err: err}
		}
	}
	return nil
}
