// SPDX-License-Identifier: Apache-2.0

// Command xtables makes the fixtures of pkg/netfilter/xtables: for each scene
// it loads rules with iptables-legacy-restore in namespaces of its own, sends
// some packets, and stores what the kernel answers to IPT_SO_GET_INFO and
// IPT_SO_GET_ENTRIES beside what iptables-legacy-save -c prints. It shares no
// code with the reader that the fixtures test.
//
//	go run ./hack/capture/xtables -out pkg/netfilter/xtables/testdata
package main

import (
	"embed"
	"encoding/binary"
	"flag"
	"fmt"
	"log"
	"net"
	"os"
	"path/filepath"
	"strings"
	"unsafe"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/svcscope/svcscope/hack/capture/scene"
)

//go:embed scenes
var scenes embed.FS

// family is what differs between the two.
type family struct {
	name, tool    string // "ipv4", "iptables"
	domain, level int
	names         string // file with the tables' names
	addresses     []string
	route         string // to lo: where the Services' addresses are
	packets       []string
}

func families() []family {
	return []family{{
		name: "ipv4", tool: "iptables-legacy", domain: unix.AF_INET, level: unix.IPPROTO_IP,
		names: "/proc/thread-self/net/ip_tables_names", route: "10.96.0.0/16",
		addresses: []string{"10.244.0.5/32", "10.244.0.6/32", "10.244.0.7/32", "10.244.0.8/32", "10.9.9.9/32"},
		packets: []string{
			"udp 10.96.0.2:53", "tcp 10.96.0.10:80", "tcp 10.96.0.11:443", "tcp 10.96.0.20:80",
			"tcp 10.9.9.9:30080", "tcp 10.9.9.9:30081", "tcp 127.0.0.1:30080",
		},
	}, {
		name: "ipv6", tool: "ip6tables-legacy", domain: unix.AF_INET6, level: unix.IPPROTO_IPV6,
		names: "/proc/thread-self/net/ip6_tables_names", route: "fd00:96::/64",
		addresses: []string{"fd00:244::5/128", "fd00:244::6/128", "fd00:244::7/128", "fd00:244::8/128", "fd00:9::9/128"},
		packets: []string{
			"udp [fd00:96::2]:53", "tcp [fd00:96::a]:80", "tcp [fd00:96::b]:443", "tcp [fd00:96::14]:80",
			"tcp [fd00:9::9]:30080", "tcp [fd00:9::9]:30081",
		},
	}}
}

func main() {
	log.SetFlags(0)
	out := flag.String("out", "pkg/netfilter/xtables/testdata", "folder for the fixtures")
	flag.Parse()
	err := scene.Run([]string{"kube-proxy", "plain", "unknown"}, func(name string) error { return capture(name, *out) })
	if err != nil {
		log.Fatal(err)
	}
}

func capture(name, out string) error {
	if err := prepare(); err != nil {
		return err
	}
	for _, f := range families() {
		if err := build(f, name); err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
		if err := store(f, filepath.Join(out, name, f.name)); err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
	}
	return nil
}

// prepare makes what the rules of all scenes refer to.
func prepare() error {
	if err := unix.Mount("tmpfs", "/run", "tmpfs", 0, ""); err != nil { // the lock file
		return fmt.Errorf("mount /run: %w", err)
	}
	for _, argv := range [][]string{
		{"ip", "link", "set", "lo", "up"},
		{"ipset", "create", "svcscope-hosts", "hash:ip"},
		{"ipset", "create", "svcscope-hosts6", "hash:ip", "family", "inet6"},
	} {
		if _, err := scene.Tool("", argv...); err != nil {
			return err
		}
	}
	for _, name := range []string{"ct_state_invalid_dropped_pkts", "localhost_nps_accepted_pkts"} {
		if err := addAcct(name); err != nil {
			return fmt.Errorf("make nfacct object %s: %w", name, err)
		}
	}
	return nil
}

// addAcct sends NFNL_MSG_ACCT_NEW, nfnetlink_acct.h.
func addAcct(name string) error {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	attrs, err := netlink.MarshalAttributes([]netlink.Attribute{{Type: 1, Data: append([]byte(name), 0)}})
	if err != nil {
		return err
	}
	_, err = c.Execute(netlink.Message{
		Header: netlink.Header{
			Type:  netlink.HeaderType(unix.NFNL_SUBSYS_ACCT) << 8,
			Flags: netlink.Request | netlink.Create | netlink.Acknowledge,
		},
		Data: append(make([]byte, 4), attrs...), // struct nfgenmsg
	})
	return err
}

// build loads the rules and lets some packets be counted.
func build(f family, name string) error {
	rules, err := scenes.ReadFile("scenes/" + name + "." + f.name + ".rules")
	if err != nil {
		return err
	}
	if _, err := scene.Tool(string(rules), f.tool+"-restore"); err != nil {
		return err
	}
	for _, a := range f.addresses {
		if _, err := scene.Tool("", "ip", "address", "add", a, "dev", "lo"); err != nil {
			return err
		}
	}
	if _, err := scene.Tool("", "ip", "route", "add", f.route, "dev", "lo"); err != nil {
		return err
	}
	for _, p := range f.packets {
		network, address, _ := strings.Cut(p, " ")
		c, err := (&net.Dialer{Timeout: 200e6}).Dial(network, address)
		if err != nil {
			continue // nobody listens: the rules have counted
		}
		_, _ = c.Write([]byte("svcscope"))
		_ = c.Close()
	}
	return nil
}

// store writes every table's two answers, and the oracle's text.
func store(f family, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	text, err := scene.Tool("", f.tool+"-save", "-c")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "save.txt"), []byte(text), 0o644); err != nil {
		return err
	}
	names, err := os.ReadFile(f.names)
	if err != nil {
		return err
	}
	fd, err := unix.Socket(f.domain, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	for table := range strings.FieldsSeq(string(names)) {
		info := make([]byte, 84) // struct ipt_getinfo
		copy(info, table)
		if err := getsockopt(fd, f.level, 64, info); err != nil {
			return fmt.Errorf("get info of %s: %w", table, err)
		}
		size := binary.NativeEndian.Uint32(info[80:])
		entries := make([]byte, 40+size) // struct ipt_get_entries
		copy(entries, table)
		binary.NativeEndian.PutUint32(entries[32:], size)
		if err := getsockopt(fd, f.level, 65, entries); err != nil {
			return fmt.Errorf("get entries of %s: %w", table, err)
		}
		for suffix, b := range map[string][]byte{".info": info, ".bin": entries} {
			if err := os.WriteFile(filepath.Join(dir, table+suffix), b, 0o644); err != nil {
				return err
			}
		}
	}
	return nil
}

func getsockopt(fd, level, name int, b []byte) error {
	n := uint32(len(b))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(name),
		uintptr(unsafe.Pointer(&b[0])), uintptr(unsafe.Pointer(&n)), 0)
	if errno != 0 {
		return errno
	}
	return nil
}
