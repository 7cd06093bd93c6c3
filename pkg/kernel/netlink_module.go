// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"bufio"
	"bytes"
	"os"
	"path/filepath"
	"sync"
)

// Modules that netlink requests ask for.
const (
	nftablesModule  = "nf_tables"
	ctnetlinkModule = "nf_conntrack_netlink"
	nflogModule     = "nfnetlink_log"
	nfacctModule    = "nfnetlink_acct"
)

// modules tells which subsystems the kernel has without loading a module.
type modules struct {
	root string // "/" but in tests
	// builtIn says which modules are part of the kernel itself; true for all
	// where that cannot be told. It takes 0.1 s the first time.
	builtIn func() map[string]bool
}

func newModules(root string) *modules {
	return &modules{root: root, builtIn: sync.OnceValue(func() map[string]bool { return findBuiltIn(root) })}
}

// running is the kernel below this process. What is built in stays the same
// as long as it runs.
var running = newModules("/")

// loadable answers whether asking a netlink subsystem would load its module
// into the kernel: nfnetlink_rcv_msg requests it when it is not there
// (net/netfilter/nfnetlink.c), and a reader must not change the node.
//
// A kernel without /proc/modules cannot load any. Of a kernel that can, a
// loaded module is a folder in /sys/module, which is looked for at each call.
func (m *modules) loadable(module string) bool {
	if _, err := os.Stat(filepath.Join(m.root, "proc/modules")); err != nil {
		return false
	}
	if _, err := os.Stat(filepath.Join(m.root, "sys/module", module)); err == nil {
		return false
	}
	return !m.builtIn()[module]
}

// findBuiltIn looks for a function of each module in /proc/kallsyms, where
// those of loaded modules have the module's name in brackets. (Addresses are
// hidden there, names are not.) Where that file cannot be read, the question
// is left to the kernel: every module counts as built in.
func findBuiltIn(root string) map[string]bool {
	functions := map[string][]byte{
		nftablesModule: []byte(" nf_tables_getgen"), ctnetlinkModule: []byte(" ctnetlink_stat_ct_cpu"),
		nflogModule: []byte(" nfulnl_log_packet"), nfacctModule: []byte(" nfnl_acct_update"),
	}
	all := map[string]bool{nftablesModule: true, ctnetlinkModule: true, nflogModule: true, nfacctModule: true}
	f, err := os.Open(filepath.Join(root, "proc/kallsyms"))
	if err != nil {
		return all
	}
	defer f.Close()
	found := map[string]bool{}
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		line := lines.Bytes()
		for module, function := range functions {
			if bytes.Contains(line, function) && !bytes.Contains(line, []byte("[")) {
				found[module] = true
			}
		}
	}
	if lines.Err() != nil {
		return all
	}
	return found
}
