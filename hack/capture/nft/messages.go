// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"strconv"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/nftables"
	"github.com/svcscope/svcscope/pkg/netfilter/nlattr"
)

const (
	nftSubsys = unix.NFNL_SUBSYS_NFTABLES << 8
	ctSubsys  = unix.NFNL_SUBSYS_CTNETLINK << 8
)

// ask returns the answer's messages. Sequence and port change from run to
// run and are zeroed.
func ask(c *netlink.Conn, typ int, family netfilter.Family, attrs []byte) ([]netlink.Message, error) {
	m := netlink.Message{Header: netlink.Header{Type: netlink.HeaderType(typ), Flags: netlink.Request}}
	if typ != nftSubsys|unix.NFT_MSG_GETGEN && typ != ctSubsys|5 {
		m.Header.Flags |= netlink.Dump
	}
	m.Data = append(netfilter.AppendGenMsg(nil, netfilter.GenMsg{Family: family}), attrs...)
	msgs, err := c.Execute(m)
	for i := range msgs {
		msgs[i].Header.Sequence, msgs[i].Header.PID = 0, 0
	}
	return msgs, err
}

func write(dir, name string, msgs []netlink.Message) error {
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

// captureMessages stores all of the namespace's nf_tables messages.
func captureMessages(dir string) error {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return err
	}
	defer c.Close()
	kinds := []struct {
		file string
		typ  int
	}{
		{"gen.bin", unix.NFT_MSG_GETGEN},
		{"tables.bin", unix.NFT_MSG_GETTABLE},
		{"chains.bin", unix.NFT_MSG_GETCHAIN},
		{"rules.bin", unix.NFT_MSG_GETRULE},
		{"sets.bin", unix.NFT_MSG_GETSET},
	}
	var sets []netlink.Message
	for _, k := range kinds {
		if sets, err = ask(c, nftSubsys|k.typ, netfilter.FamilyUnspec, nil); err != nil {
			return err
		}
		if err := write(dir, k.file, sets); err != nil {
			return err
		}
	}
	var elements []netlink.Message
	for _, m := range sets {
		s, err := nftables.DecodeSet(m.Data)
		if err != nil {
			return err
		}
		attrs := nlattr.AppendString(nil, unix.NFTA_SET_ELEM_LIST_TABLE, s.Table)
		attrs = nlattr.AppendString(attrs, unix.NFTA_SET_ELEM_LIST_SET, s.Name)
		es, err := ask(c, nftSubsys|unix.NFT_MSG_GETSETELEM, s.Family, attrs)
		if err != nil {
			return err
		}
		elements = append(elements, es...)
	}
	return write(dir, "elements.bin", elements)
}

// captureConntrack stores statistics with something in them.
func captureConntrack() error {
	for i := range 3 {
		args := []string{"conntrack", "-I", "-p", "tcp", "-s", "192.0.2.1", "-d", "192.0.2.2",
			"--sport", strconv.Itoa(1000 + i), "--dport", "80", "--state", "ESTABLISHED", "-t", "600"}
		if _, err := tool("", args...); err != nil {
			return err
		}
	}
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return err
	}
	defer c.Close()
	for file, typ := range map[string]int{"stats_cpu.bin": 4, "stats.bin": 5} { // IPCTNL_MSG_CT_GET_STATS_CPU, _STATS
		msgs, err := ask(c, ctSubsys|typ, netfilter.FamilyUnspec, nil)
		if err != nil {
			return err
		}
		if err := write(conntrackDir, file, msgs); err != nil {
			return err
		}
	}
	return writeOracles(conntrackDir, map[string][]string{
		"stats.txt": {"conntrack", "-S"}, "count.txt": {"conntrack", "-C"},
	})
}
