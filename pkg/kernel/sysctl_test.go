// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestReadSysctls(t *testing.T) {
	root := t.TempDir()
	for name, text := range map[string]string{
		"net/ipv4/ip_forward":                "1\n",
		"net/ipv4/ip_local_port_range":       "32768\t60999\n",
		"net/ipv4/ip_local_reserved_ports":   "\n",
		"net/netfilter/nf_conntrack_count":   "7\n", // changes all the time
		"net/bridge/bridge-nf-call-iptables": "0\n",
	} {
		path := filepath.Join(root, "proc/sys", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// One that cannot be read.
	if err := os.MkdirAll(filepath.Join(root, "proc/sys/net/netfilter/nf_conntrack_max"), 0o700); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"net.ipv4.ip_forward": "1", "net.ipv4.ip_local_port_range": "32768 60999", "net.ipv4.ip_local_reserved_ports": "",
		"net.bridge.bridge-nf-call-iptables": "0",
	}
	if d := cmp.Diff(want, readSysctls(root)); d != "" {
		t.Errorf("values (-want +got):\n%s", d)
	}
}

// TestSysctlsOfThisKernel: a name that no kernel has would be left out without a word.
func TestSysctlsOfThisKernel(t *testing.T) {
	if !slices.IsSorted(serviceSysctls()) {
		t.Error("names are not sorted")
	}
	got := ServiceSysctls()
	for _, name := range serviceSysctls() {
		// Of modules that need not be there.
		if strings.Contains(name, ".bridge.") || strings.Contains(name, ".vs.") || strings.Contains(name, ".netfilter.") {
			continue
		}
		if _, err := os.Stat("/proc/sys/" + strings.ReplaceAll(name, ".", "/")); err != nil && strings.Contains(name, "ipv6") {
			continue // a kernel without IPv6
		}
		if _, ok := got[name]; !ok {
			t.Errorf("%s has no value", name)
		}
	}
}
