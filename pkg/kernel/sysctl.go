// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"path/filepath"
	"strings"
)

// serviceSysctls are the network sysctls that decide on what becomes of packets to
// Services, and of the entries of their connections.
func serviceSysctls() []string {
	return []string{
		"net.bridge.bridge-nf-call-ip6tables", "net.bridge.bridge-nf-call-iptables",
		"net.ipv4.conf.all.arp_announce", "net.ipv4.conf.all.arp_ignore",
		"net.ipv4.conf.all.route_localnet", "net.ipv4.conf.all.rp_filter", "net.ipv4.conf.default.rp_filter",
		"net.ipv4.ip_forward", "net.ipv4.ip_local_port_range", "net.ipv4.ip_local_reserved_ports", "net.ipv4.ip_nonlocal_bind",
		"net.ipv4.vs.conn_reuse_mode", "net.ipv4.vs.conntrack", "net.ipv4.vs.expire_nodest_conn",
		"net.ipv6.conf.all.disable_ipv6", "net.ipv6.conf.all.forwarding",
		"net.netfilter.nf_conntrack_buckets", "net.netfilter.nf_conntrack_max",
		"net.netfilter.nf_conntrack_tcp_be_liberal", "net.netfilter.nf_conntrack_tcp_loose",
		"net.netfilter.nf_conntrack_tcp_timeout_close_wait", "net.netfilter.nf_conntrack_tcp_timeout_established",
		"net.netfilter.nf_conntrack_tcp_timeout_time_wait",
		"net.netfilter.nf_conntrack_udp_timeout", "net.netfilter.nf_conntrack_udp_timeout_stream",
	}
}

// ServiceSysctls returns the values of the sysctls that decide on Services, in the
// calling thread's network namespace, by their names with dots. Those that the kernel
// does not have, as a module is not loaded, and those that cannot be read are left out.
func ServiceSysctls() map[string]string { return readSysctls("/") }

func readSysctls(root string) map[string]string {
	values := make(map[string]string)
	for _, name := range serviceSysctls() {
		b, err := readFile(filepath.Join(root, "proc/sys", strings.ReplaceAll(name, ".", "/")))
		if err == nil {
			values[name] = strings.Join(strings.Fields(string(b)), " ")
		}
	}
	return values
}
