// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"bufio"
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
