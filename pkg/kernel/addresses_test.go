// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/svcscope/svcscope/pkg/internal/kerneltest"
)

func TestLocalAddressesOfFiles(t *testing.T) {
	dir := t.TempDir()
	if got, err := localAddresses(dir); err != nil || len(got) != 0 {
		t.Errorf("without files: %v, %v", got, err)
	}
	writeFile(t, filepath.Join(dir, "fib_trie"), `Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     +-- 10.244.1.0/24 2 0 2
        |-- 10.244.1.0
           /24 link UNICAST
        |-- 10.244.1.1
           /32 host LOCAL
        |-- 10.244.1.255
           /32 link BROADCAST
     |-- nonsense
        /32 host LOCAL
Local:
        |-- 10.244.1.1
           /32 host LOCAL
        |-- 127.0.0.1
           /32 host LOCAL
`)
	writeFile(t, filepath.Join(dir, "if_inet6"), "fd000010024400010000000000000001 05 40 00 80   cni0\nzz 01\n00000000000000000000000000000001 01 80 10 80       lo\n")
	got, err := localAddresses(dir)
	if d := cmp.Diff("[10.244.1.1 127.0.0.1 ::1 fd00:10:244:1::1]", fmt.Sprint(got)); d != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, d)
	}
}

func TestLocalAddressesOfTheKernel(t *testing.T) {
	kerneltest.Run(t, func(t *testing.T) {
		kerneltest.Exec(t, "", "ip", "link", "add", "d0", "type", "veth", "peer", "name", "d1")
		kerneltest.Exec(t, "", "ip", "addr", "add", "192.0.2.7/24", "dev", "d0")
		kerneltest.Exec(t, "", "ip", "addr", "add", "2001:db8::7/64", "dev", "d0", "nodad")
		kerneltest.Exec(t, "", "ip", "link", "set", "d0", "up")
		got, err := LocalAddresses()
		have := map[string]bool{}
		for _, a := range got {
			have[a.String()] = true
		}
		if err != nil || !have["192.0.2.7"] || !have["2001:db8::7"] || !have["127.0.0.1"] || !have["::1"] || have["192.0.2.0"] || have["192.0.2.255"] {
			t.Errorf("%v, %v", got, err)
		}
	})
}
