// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/svcscope/svcscope/pkg/internal/kerneltest"
)

func TestLocalAddressesOfFiles(t *testing.T) {
	dir := t.TempDir()
	if got, err := localAddresses(dir); err != nil || len(got.Own)+len(got.Routed) != 0 {
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
        |-- 10.244.1.7
           /32 link UNICAST
        |-- 10.244.1.8
           /32 universe UNICAST
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
	zero, one := strings.Repeat("0", 32), strings.Repeat("0", 31)+"1"
	var routes strings.Builder
	for _, r := range []struct{ dst, bits, via, flags string }{
		{one, "80", zero, "80200001"},                                // ::1
		{"fd000010024400010000000000000001", "80", zero, "80200001"}, // the node's own
		{"fd000010024400010000000000000007", "80", zero, "00000001"}, // a pod
		{"fd000010024400010000000000000008", "80", one, "00000003"},  // by a gateway
		{"fd000010024400010000000000000009", "80", zero, "00200200"}, // refused
		{"fd000010024400010000000000000000", "40", zero, "00000001"},
		{"fd000010024400010000000000000000", "80", zero, "00300001"}, // anycast
		{"fe800000000000000000000000000007", "80", zero, "00000001"},
		{"zz", "80", zero, "00000001"},
	} {
		fmt.Fprintf(&routes, "%s %s %s 00 %s 00000400 00000001 00000000 %s     eth0\n", r.dst, r.bits, zero, r.via, r.flags)
	}
	writeFile(t, filepath.Join(dir, "ipv6_route"), routes.String())
	got, err := localAddresses(dir)
	if d := cmp.Diff("{Own:[10.244.1.1 127.0.0.1 ::1 fd00:10:244:1::1] Routed:[10.244.1.7 fd00:10:244:1::7]}", fmt.Sprintf("%+v", got)); d != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, d)
	}
}

func TestLocalAddressesOfTheKernel(t *testing.T) {
	kerneltest.Run(t, func(t *testing.T) {
		kerneltest.Exec(t, "", "ip", "link", "add", "d0", "type", "veth", "peer", "name", "d1")
		kerneltest.Exec(t, "", "ip", "addr", "add", "192.0.2.7/24", "dev", "d0")
		kerneltest.Exec(t, "", "ip", "addr", "add", "2001:db8::7/64", "dev", "d0", "nodad")
		kerneltest.Exec(t, "", "ip", "link", "set", "d0", "up")
		kerneltest.Exec(t, "", "ip", "link", "set", "d1", "up")
		// As Calico and others lead to a pod.
		kerneltest.Exec(t, "", "ip", "route", "add", "198.51.100.7/32", "dev", "d0", "scope", "link")
		kerneltest.Exec(t, "", "ip", "-6", "route", "add", "2001:db8:1::7/128", "dev", "d0")
		kerneltest.Exec(t, "", "ip", "route", "add", "198.51.100.8/32", "via", "192.0.2.9")
		kerneltest.Exec(t, "", "ip", "-6", "route", "add", "2001:db8:1::8/128", "via", "2001:db8::9")
		got, err := LocalAddresses()
		have := map[string]bool{}
		for _, a := range got.Own {
			have[a.String()] = true
		}
		if err != nil || !have["192.0.2.7"] || !have["2001:db8::7"] || !have["127.0.0.1"] || !have["::1"] || have["192.0.2.0"] || have["192.0.2.255"] {
			t.Errorf("%v, %v", got, err)
		}
		if d := cmp.Diff("[198.51.100.7 2001:db8:1::7]", fmt.Sprint(got.Routed)); d != "" {
			t.Errorf("routed (-want +got):\n%s", d)
		}
	})
}
