// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"slices"
	"testing"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/svcscope/svcscope/pkg/internal/kerneltest"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/nlattr"
)

// TestPacketQueues lists the queues that a process reads, as long as it does.
func TestPacketQueues(t *testing.T) {
	kerneltest.Run(t, func(t *testing.T) {
		expect := func(want ...uint16) {
			t.Helper()
			if got, err := PacketQueues(); err != nil || !slices.Equal(got, want) {
				t.Errorf("got %v, %v, want %v", got, err, want)
			}
		}
		expect()
		c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		const configure, command, bind = 3<<8 | 2, 1, 1 // NFQNL_MSG_CONFIG, NFQA_CFG_CMD, NFQNL_CFG_CMD_BIND
		data := netfilter.AppendGenMsg(nil, netfilter.GenMsg{ResID: 100})
		data = nlattr.Append(data, command, []byte{bind, 0, 0, unix.AF_INET})
		m := netlink.Message{Header: netlink.Header{Type: configure, Flags: netlink.Request | netlink.Acknowledge}, Data: data}
		if _, err := c.Execute(m); err != nil {
			t.Fatal(err)
		}
		expect(100)
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		expect()
	})
}
