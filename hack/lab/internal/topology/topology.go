// SPDX-License-Identifier: Apache-2.0

// Package topology makes the lab's links, addresses and routes:
//
//	lan (bridge lan0, 192.168.50.1) ── node1 ── bridge cni0 ── pod1 … podN
//	                                ├─ control (etcd, kube-apiserver)
//	                                └─ client
//
// Everybody on the LAN reaches pods and Services through node1.
package topology

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/svcscope/svcscope/hack/lab/internal/nsexec"
)

// Addresses of the lab. A second node would be 192.168.50.12 with pods in
// 10.244.2.0/24.
const (
	Control4 = "192.168.50.2"
	Control6 = "fd00:192:168:50::2"

	ServiceCIDR4 = "10.96.0.0/16"
	ServiceCIDR6 = "fd00:10:96::/112"
	PodCIDR4     = "10.244.0.0/16"
	PodCIDR6     = "fd00:10:244::/48"

	// External4 and External6 are led to the node, for external IPs and
	// those of load balancers. They are ranges for documentation.
	External4 = "198.51.100.0/24"
	External6 = "2001:db8::/64"

	lanPrefix4 = "192.168.50."
	lanPrefix6 = "fd00:192:168:50::"

	// ClientAddresses is how many addresses the client has in each family.
	ClientAddresses = 4
	// MaxPods is how many pods a node has room for.
	MaxPods = 200
)

// Node is one node's place in the address plan. Number is 1 for node1.
type Node struct{ Number int }

// Name returns the node's name, which is its namespace's too.
func (n Node) Name() string { return fmt.Sprintf("node%d", n.Number) }

// IPv4 returns the node's address on the LAN.
func (n Node) IPv4() string { return fmt.Sprintf("%s%d", lanPrefix4, 10+n.Number) }

// IPv6 returns the node's address on the LAN.
func (n Node) IPv6() string { return fmt.Sprintf("%s%d", lanPrefix6, 10+n.Number) }

// PodCIDRs returns the ranges of the node's pods.
func (n Node) PodCIDRs() []string {
	return []string{fmt.Sprintf("10.244.%d.0/24", n.Number), fmt.Sprintf("fd00:10:244:%d::/64", n.Number)}
}

// PodIPv4 returns the address of the node's pod i, counted from 1.
func (n Node) PodIPv4(i int) string { return fmt.Sprintf("10.244.%d.%d", n.Number, 10+i) }

// PodIPv6 returns the address of the node's pod i, counted from 1. Its last
// group reads like the last byte of the IPv4 address.
func (n Node) PodIPv6(i int) string { return fmt.Sprintf("fd00:10:244:%d::%d", n.Number, 10+i) }

// ClientIPv4 and ClientIPv6 return the client's address i, counted from 0.
func ClientIPv4(i int) string { return fmt.Sprintf("%s%d", lanPrefix4, 100+i) }

// ClientIPv6 is described at ClientIPv4.
func ClientIPv6(i int) string { return fmt.Sprintf("%s%d", lanPrefix6, 100+i) }

// PodName returns the name of pod i, counted from 1.
func PodName(i int) string { return fmt.Sprintf("pod%d", i) }

// Build makes the network in the calling process's network namespace, which
// becomes the LAN. It returns facts that limit the lab on this kernel.
func Build(node Node, pods int) (warnings []string, err error) {
	if pods > MaxPods {
		return nil, fmt.Errorf("%d pods: a node has room for %d", pods, MaxPods)
	}
	if err := lan(); err != nil {
		return nil, err
	}
	if err := member("control", []string{Control4}, []string{Control6}); err != nil {
		return nil, err
	}
	var c4, c6 []string
	for i := range ClientAddresses {
		c4, c6 = append(c4, ClientIPv4(i)), append(c6, ClientIPv6(i))
	}
	if err := member("client", c4, c6); err != nil {
		return nil, err
	}
	if err := member(node.Name(), []string{node.IPv4()}, []string{node.IPv6()}); err != nil {
		return nil, err
	}
	if warnings, err = nodeInside(node); err != nil {
		return nil, err
	}
	for i := range pods {
		if err := pod(node, i+1); err != nil {
			return nil, err
		}
	}
	return warnings, routes(node)
}

func lan() error {
	if err := sysctls("", "net.ipv6.conf.all.accept_dad=0", "net.ipv6.conf.default.accept_dad=0"); err != nil {
		return err
	}
	return ip("", `
		link set lo up
		link add lan0 type bridge
		addr add `+lanPrefix4+`1/24 dev lan0
		addr add `+lanPrefix6+`1/64 dev lan0 nodad
		link set lan0 up`)
}

// member makes a namespace on the LAN. The first address of each family is
// the one it speaks from.
func member(name string, ipv4, ipv6 []string) error {
	if err := namespace(name); err != nil {
		return err
	}
	err := ip("", `
		link add lan-`+name+` type veth peer name eth0 netns `+name+`
		link set lan-`+name+` master lan0 up`)
	if err != nil {
		return err
	}
	var b strings.Builder
	for _, a := range ipv4 {
		fmt.Fprintf(&b, "addr add %s/24 dev eth0\n", a)
	}
	for i, a := range ipv6 {
		// The kernel prefers the address that was added last; a lifetime
		// of 0 marks the others as not to be chosen by themselves.
		life := ""
		if i > 0 {
			life = " preferred_lft 0"
		}
		fmt.Fprintf(&b, "addr add %s/64 dev eth0 nodad%s\n", a, life)
	}
	return ip(name, b.String()+`
		link set eth0 up
		route add default via `+lanPrefix4+`1
		route add default via `+lanPrefix6+`1`)
}

func namespace(name string) error {
	if err := ip("", "netns add "+name); err != nil {
		return err
	}
	if err := sysctls(name, "net.ipv6.conf.all.accept_dad=0", "net.ipv6.conf.default.accept_dad=0"); err != nil {
		return err
	}
	return ip(name, "link set lo up")
}

// nodeInside makes what a kubelet and a bridge CNI plugin make on a node.
func nodeInside(node Node) (warnings []string, err error) {
	err = ip(node.Name(), fmt.Sprintf(`
		link add cni0 type bridge
		addr add 10.244.%[1]d.1/24 dev cni0
		addr add fd00:10:244:%[1]d::1/64 dev cni0 nodad
		link set cni0 up`, node.Number))
	if err != nil {
		return nil, err
	}
	// Without a limit on ICMP errors every refused connection is told so
	// at once, and sends no SYN again that would be counted too.
	err = sysctls(node.Name(), "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1",
		"net.ipv4.icmp_ratemask=0", "net.ipv6.icmp.ratelimit=0")
	if err != nil {
		return nil, err
	}
	for _, s := range []string{"net.bridge.bridge-nf-call-iptables=1", "net.bridge.bridge-nf-call-ip6tables=1"} {
		if err := sysctls(node.Name(), s); errors.Is(err, os.ErrNotExist) {
			warnings = append(warnings, "no "+s+" (modprobe br_netfilter): pods do not reach each other through a Service")
		} else if err != nil {
			return nil, err
		}
	}
	return warnings, nil
}

func pod(node Node, i int) error {
	name := PodName(i)
	if err := namespace(name); err != nil {
		return err
	}
	err := ip(node.Name(), `
		link add veth-`+name+` type veth peer name eth0 netns `+name+`
		link set veth-`+name+` master cni0 up
		link set veth-`+name+` type bridge_slave hairpin on`)
	if err != nil {
		return err
	}
	return ip(name, fmt.Sprintf(`
		addr add %s/24 dev eth0
		addr add %s/64 dev eth0 nodad
		link set eth0 up
		route add default via 10.244.%[3]d.1
		route add default via fd00:10:244:%[3]d::1`, node.PodIPv4(i), node.PodIPv6(i), node.Number))
}

// routes leads the LAN's traffic for pods and Services to the node.
func routes(node Node) error {
	var b strings.Builder
	for _, cidr := range append(node.PodCIDRs(), ServiceCIDR4, ServiceCIDR6, External4, External6) {
		via := node.IPv4()
		if strings.Contains(cidr, ":") {
			via = node.IPv6()
		}
		fmt.Fprintf(&b, "route add %s via %s\n", cidr, via)
	}
	for _, ns := range []string{"", "control", "client"} {
		if err := ip(ns, b.String()); err != nil {
			return err
		}
	}
	return nil
}

// ip runs a batch of iproute2 commands in a namespace, "" for the caller's.
func ip(netns, batch string) error {
	args := []string{"-batch", "-"}
	if netns != "" {
		args = []string{"-netns", netns, "-batch", "-"}
	}
	lines := strings.FieldsFunc(batch, func(r rune) bool { return r == '\n' })
	for i := range lines {
		lines[i] = strings.TrimSpace(lines[i])
	}
	cmd := exec.Command("ip", args...)
	cmd.Stdin = strings.NewReader(strings.Join(lines, "\n") + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("ip %s: %w: %s\nof:\n%s", strings.Join(args, " "), err, bytes.TrimSpace(out), strings.Join(lines, "\n"))
	}
	return nil
}

// sysctls writes name=value pairs in a namespace, "" for the caller's.
func sysctls(netns string, pairs ...string) error {
	write := func() error {
		for _, p := range pairs {
			name, value, _ := strings.Cut(p, "=")
			path := filepath.Join("/proc/sys", strings.ReplaceAll(name, ".", "/"))
			if err := os.WriteFile(path, []byte(value), 0); err != nil {
				return fmt.Errorf("sysctl %s in %q: %w", p, netns, err)
			}
		}
		return nil
	}
	if netns == "" {
		return write()
	}
	return nsexec.Do(netns, write)
}
