// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"bufio"
	"bytes"
	"os"
	"path/filepath"
)

// loadable answers whether asking a netlink subsystem could load a module
// into the kernel: nfnetlink_rcv_msg requests the subsystem's module when it
// is not there (net/netfilter/nfnetlink.c), and a reader must not change the
// node. root is "/" but in tests.
//
// A kernel without /proc/modules cannot load any. Of a kernel that can, a
// loaded module is a folder in /sys/module, and one that is built in has its
// functions in /proc/kallsyms (their addresses are hidden, not their names).
// Where that file cannot be read, the question is left to the kernel.
func loadable(root, module, function string) bool {
	if _, err := os.Stat(filepath.Join(root, "proc/modules")); err != nil {
		return false
	}
	if _, err := os.Stat(filepath.Join(root, "sys/module", module)); err == nil {
		return false
	}
	f, err := os.Open(filepath.Join(root, "proc/kallsyms"))
	if err != nil {
		return false
	}
	defer f.Close()
	want := []byte(" " + function)
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if bytes.Contains(lines.Bytes(), want) {
			return false
		}
	}
	return lines.Err() == nil
}
