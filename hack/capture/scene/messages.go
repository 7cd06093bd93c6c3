// SPDX-License-Identifier: Apache-2.0

package scene

import (
	"os"
	"path/filepath"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/svcscope/svcscope/pkg/netfilter"
)

// Ask returns the messages of the answer to a request of type typ for a family's
// objects. Sequence and port change from run to run and are zeroed.
func Ask(c *netlink.Conn, typ int, family netfilter.Family, attrs []byte) ([]netlink.Message, error) {
	m := netlink.Message{Header: netlink.Header{Type: netlink.HeaderType(typ), Flags: netlink.Request}}
	if typ != unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETGEN {
		m.Header.Flags |= netlink.Dump
	}
	m.Data = append(netfilter.AppendGenMsg(nil, netfilter.GenMsg{Family: family}), attrs...)
	msgs, err := c.Execute(m)
	for i := range msgs {
		msgs[i].Header.Sequence, msgs[i].Header.PID = 0, 0
	}
	return msgs, err
}

// Write stores messages one after the other.
func Write(dir, name string, msgs []netlink.Message) error {
	var b []byte
	for _, m := range msgs {
		one, err := m.MarshalBinary()
		if err != nil {
			return err
		}
		b = append(b, one...)
	}
	return os.WriteFile(filepath.Join(dir, name), b, 0o644)
}
