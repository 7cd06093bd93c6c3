// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/svcscope/svcscope/pkg/internal/kerneltest"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/xtables"
)

// loadRules makes a nat table of about n rules, as kube-proxy writes them for
// Services of one endpoint.
func loadRules(b *testing.B, n int) {
	b.Helper()
	needLegacy(b, "iptables-legacy")
	var chains, rules strings.Builder
	for i := range max(1, n/5) {
		fmt.Fprintf(&chains, ":KUBE-SVC-%016d - [0:0]\n:KUBE-SEP-%016d - [0:0]\n", i, i)
		spn, vip, ep := fmt.Sprintf("ns/svc-%d:http", i), fmt.Sprintf("10.%d.%d.%d", 96+i>>16, i>>8&255, i&255), fmt.Sprintf("10.%d.%d.%d", 244+i>>16, i>>8&255, i&255)
		fmt.Fprintf(&rules, `-A PREROUTING -m comment --comment "%s cluster IP" -m tcp -p tcp -d %s --dport 80 -j KUBE-SVC-%016d
-A KUBE-SVC-%016d -m comment --comment "%s cluster IP" -m tcp -p tcp -d %s --dport 80 ! -s 10.0.0.0/8 -j MARK --or-mark 0x4000
-A KUBE-SVC-%016d -m comment --comment "%s -> %s:80" -j KUBE-SEP-%016d
-A KUBE-SEP-%016d -m comment --comment "%s" -s %s -j MARK --or-mark 0x4000
-A KUBE-SEP-%016d -m comment --comment "%s" -m tcp -p tcp -j DNAT --to-destination %s:80
`, spn, vip, i, i, spn, vip, i, spn, ep, i, i, spn, ep, i, spn, ep)
	}
	kerneltest.Exec(b, "*nat\n"+chains.String()+rules.String()+"COMMIT\n", "iptables-legacy-restore")
}

func BenchmarkLegacyRead(b *testing.B) {
	for _, n := range []int{10, 1000, 50000} {
		b.Run(fmt.Sprintf("rules=%d", n), func(b *testing.B) {
			kerneltest.RunB(b, func(b *testing.B) {
				loadRules(b, n)
				r := openLegacy(b)
				b.ReportAllocs()
				packets := uint64(0)
				for b.Loop() {
					err := r.Read(b.Context(), netfilter.IPv4, "nat", func(t *xtables.Table) error {
						return t.Walk(func(c *xtables.Chain) error {
							c.Counters(func(_ int, n netfilter.Counter) { packets += n.Packets })
							return nil
						})
					})
					if err != nil {
						b.Fatal(err)
					}
				}
			})
		})
	}
}

// BenchmarkLegacyBareGetEntries is the system call alone: what BenchmarkLegacyRead
// is measured by.
func BenchmarkLegacyBareGetEntries(b *testing.B) {
	for _, n := range []int{10, 1000, 50000} {
		b.Run(fmt.Sprintf("rules=%d", n), func(b *testing.B) {
			kerneltest.RunB(b, func(b *testing.B) {
				loadRules(b, n)
				r := openLegacy(b)
				info, err := r.info(unix.IPPROTO_IP, "nat")
				if err != nil {
					b.Fatal(err)
				}
				buf, err := r.buf.grow(xtables.EntriesHeader + int(info.Size))
				if err != nil {
					b.Fatal(err)
				}
				b.ReportAllocs()
				for b.Loop() {
					xtables.AppendEntriesRequest(buf[:0], "nat", info.Size)
					if _, err := r.getsockopt(unix.IPPROTO_IP, soGetEntries, buf); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(info.Size), "table-bytes")
			})
		})
	}
}
