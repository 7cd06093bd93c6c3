// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"bufio"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// HasVirtualServers reports whether IPVS has any in the calling thread's network
// namespace: /proc/thread-self/net/ip_vs lists them by protocol. Asking by netlink would load the
// module where it is not there.
func HasVirtualServers() bool {
	f, err := os.Open("/proc/thread-self/net/ip_vs")
	if err != nil {
		return false
	}
	defer f.Close()
	return listsVirtualServers(f)
}

// listsVirtualServers reads the text of /proc/net/ip_vs (ip_vs_info_seq_show in
// net/netfilter/ipvs/ip_vs_ctl.c).
func listsVirtualServers(f io.Reader) bool {
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		switch word, _, _ := strings.Cut(lines.Text(), " "); word {
		case "TCP", "UDP", "SCTP":
			return true
		}
	}
	return false
}

// Release is `uname -r`; empty where the kernel does not tell.
func Release() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}
