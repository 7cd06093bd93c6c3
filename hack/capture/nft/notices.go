// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/svcscope/svcscope/hack/capture/scene"
	"github.com/svcscope/svcscope/pkg/netfilter/nftables"
)

const noticesGroup = 7 // NFNLGRP_NFTABLES

const noticesRules = `*filter
:KUBE-SERVICES - [0:0]
:KUBE-SVC-NOTICES - [0:0]
-A OUTPUT -d 127.0.0.9/32 -p udp -m comment --comment "ns/svc cluster IP" -j KUBE-SERVICES
-A KUBE-SERVICES -m comment --comment "ns/svc -> 127.0.0.9:9" -m statistic --mode random --probability 1.0 -j KUBE-SVC-NOTICES
COMMIT
`

const noticesChain = `*filter
:KUBE-SERVICES - [0:0]
-A KUBE-SERVICES -m comment --comment "ns/svc -> 127.0.0.9:9" -j KUBE-SVC-NOTICES
COMMIT
`

const noticesNative = `table inet tool {
	set s { type ipv4_addr; elements = { 192.0.2.1 } }
	counter c { }
	chain main { type filter hook output priority 10; ip daddr @s counter name "c"; counter drop; }
}
`

// captureNotices stores what the kernel tells of some transactions, and what
// `nft monitor` printed of them.
func captureNotices() error {
	dir := filepath.Join(nftablesDir, "notices")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if _, err := scene.Tool("", "ip", "link", "set", "lo", "up"); err != nil {
		return err
	}
	monitor := exec.Command("nft", "-a", "monitor")
	out, err := os.Create(filepath.Join(dir, "monitor.txt"))
	if err != nil {
		return err
	}
	defer out.Close()
	monitor.Stdout = out
	monitor.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := monitor.Start(); err != nil {
		return err
	}
	err = captureCommits(dir)
	return errors.Join(err, monitor.Process.Kill(), ignoreKill(monitor.Wait()))
}

func ignoreKill(err error) error {
	if _, ok := errors.AsType[*exec.ExitError](err); ok {
		return nil
	}
	return err
}

func captureCommits(dir string) error {
	if err := await("nft monitor", listens); err != nil {
		return err
	}
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err == nil {
		defer c.Close()
		err = c.JoinGroup(noticesGroup)
	}
	if err == nil {
		err = commits()
	}
	if err != nil {
		return err
	}
	var msgs []netlink.Message
	last := ""
	for end := false; !end; {
		got, err := c.Receive()
		if err != nil {
			return err
		}
		for _, m := range got {
			m.Header.Sequence, m.Header.PID = 0, 0
			msgs = append(msgs, m)
			if m.Header.Type != nftSubsys|unix.NFT_MSG_NEWGEN {
				continue
			}
			g, err := nftables.DecodeGen(m.Data)
			if err != nil {
				return err
			}
			last = fmt.Sprintf("# new generation %d by ", g.ID)
			end = g.ID == 1+commitsMade
		}
	}
	if err := scene.Write(dir, "notices.bin", msgs); err != nil {
		return err
	}
	return await("its last line", func() bool {
		text, err := os.ReadFile(filepath.Join(dir, "monitor.txt"))
		return err == nil && bytes.Contains(text, []byte(last))
	})
}

// listens tells whether a socket has joined the group.
func listens() bool {
	sockets, err := os.ReadFile("/proc/thread-self/net/netlink")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(sockets)) {
		var (
			address, protocol, port string
			groups                  uint32
		)
		if _, err := fmt.Sscanf(line, "%s %s %s %x", &address, &protocol, &port, &groups); err == nil && groups>>(noticesGroup-1)&1 == 1 {
			return true
		}
	}
	return false
}

// commitsMade is how many commits makes; the first generation is 1.
const commitsMade = 10

// commits makes each kind of notice; rules have counted when they are deleted.
func commits() error {
	steps := []struct {
		stdin string
		tool  []string
	}{
		{noticesRules, []string{"iptables-nft-restore"}},
		{noticesChain, []string{"iptables-nft-restore", "--noflush"}},
		{"", []string{"iptables-nft", "-Z"}},
		{"", []string{"iptables-nft", "-R", "KUBE-SERVICES", "1", "-j", "KUBE-SVC-NOTICES"}},
		{"", []string{"iptables-nft", "-F", "KUBE-SERVICES"}},
		{"", []string{"iptables-nft", "-X", "KUBE-SVC-NOTICES"}},
		{strings.ReplaceAll(noticesRules, "-A OUTPUT", "[40:1320] -A OUTPUT"), []string{"iptables-nft-restore", "--counters"}},
		{noticesNative, []string{"nft", "-f", "-"}},
		{"", []string{"nft", "delete", "table", "ip", "filter"}},
		{"", []string{"nft", "flush", "ruleset"}},
	}
	for _, s := range steps {
		if _, err := scene.Tool(s.stdin, s.tool...); err != nil {
			return err
		}
		if err := traffic(); err != nil {
			return err
		}
	}
	return nil
}

// traffic sends datagrams that nobody receives.
func traffic() error {
	for range 3 {
		c, err := net.Dial("udp4", "127.0.0.9:9")
		if err != nil {
			return err
		}
		_, err = c.Write([]byte("hello"))
		if err := errors.Join(err, c.Close()); err != nil && !errors.Is(err, unix.EPERM) { // the rule that drops
			return err
		}
	}
	return nil
}

// await polls until there is what it waits for.
func await(what string, there func() bool) error {
	for begin := time.Now(); time.Since(begin) < 10*time.Second; time.Sleep(10 * time.Millisecond) {
		if there() {
			return nil
		}
	}
	return fmt.Errorf("waited in vain for %s", what)
}
