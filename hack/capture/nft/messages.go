// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"strconv"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/svcscope/svcscope/hack/capture/scene"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/nftables"
	"github.com/svcscope/svcscope/pkg/netfilter/nlattr"
)

const (
	nftSubsys = unix.NFNL_SUBSYS_NFTABLES << 8
	ctSubsys  = unix.NFNL_SUBSYS_CTNETLINK << 8
)

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
		if sets, err = scene.Ask(c, nftSubsys|k.typ, netfilter.FamilyUnspec, nil); err != nil {
			return err
		}
		if err := scene.Write(dir, k.file, sets); err != nil {
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
		es, err := scene.Ask(c, nftSubsys|unix.NFT_MSG_GETSETELEM, s.Family, attrs)
		if err != nil {
			return err
		}
		elements = append(elements, es...)
	}
	return scene.Write(dir, "elements.bin", elements)
}

// captureConntrack stores statistics with something in them.
func captureConntrack() error {
	for i := range 3 {
		args := []string{
			"conntrack", "-I", "-p", "tcp", "-s", "192.0.2.1", "-d", "192.0.2.2",
			"--sport", strconv.Itoa(1000 + i), "--dport", "80", "--state", "ESTABLISHED", "-t", "600",
		}
		if _, err := scene.Tool("", args...); err != nil {
			return err
		}
	}
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return err
	}
	defer c.Close()
	msgs, err := scene.Ask(c, ctSubsys|4, netfilter.FamilyUnspec, nil) // IPCTNL_MSG_CT_GET_STATS_CPU
	if err != nil {
		return err
	}
	if err := scene.Write(conntrackDir, "stats_cpu.bin", msgs); err != nil {
		return err
	}
	if err := captureGlobalStats(); err != nil {
		return err
	}
	if err := writeOracles(conntrackDir, map[string][]string{
		"stats.txt": {"conntrack", "-S"}, "count.txt": {"conntrack", "-C"},
	}); err != nil {
		return err
	}
	if err := captureFlows(c); err != nil {
		return err
	}
	return writeOracles(conntrackDir, map[string][]string{
		"flows.txt":  {"conntrack", "-L", "-f", "ipv4", "-o", "extended"},
		"flows6.txt": {"conntrack", "-L", "-f", "ipv6", "-o", "extended"},
	})
}

// captureGlobalStats asks over a socket of its own: the kernel marks the one
// message of the answer as one of several and sends no end, for which
// netlink.Conn would wait.
func captureGlobalStats() error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	m := netlink.Message{Header: netlink.Header{
		Length: nlattr.HeaderLen + netfilter.GenMsgLen,
		Type:   ctSubsys | 5, // IPCTNL_MSG_CT_GET_STATS
		Flags:  netlink.Request,
	}}
	m.Data = netfilter.AppendGenMsg(nil, netfilter.GenMsg{})
	req, err := m.MarshalBinary()
	if err != nil {
		return err
	}
	if err := unix.Sendto(fd, req, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	buf := make([]byte, 4096)
	n, _, err := unix.Recvfrom(fd, buf, 0)
	if err != nil {
		return err
	}
	clear(buf[8:16]) // sequence and port
	return os.WriteFile(filepath.Join(conntrackDir, "stats.bin"), buf[:n], 0o644)
}
