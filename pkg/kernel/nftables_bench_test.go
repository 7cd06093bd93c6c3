// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"strings"
	"testing"

	"github.com/svcscope/svcscope/pkg/internal/kerneltest"
	"github.com/svcscope/svcscope/pkg/netfilter/nftables"
)

// loadServices makes the nat rules of n Services with three endpoints each, as
// kube-proxy writes them. Without the initial user namespace's capabilities
// a transaction is limited by the send buffer, so that it takes several.
func loadServices(b *testing.B, n int) {
	b.Helper()
	kerneltest.Exec(b, "*nat\n:KUBE-SERVICES - [0:0]\n:KUBE-MARK-MASQ - [0:0]\n"+
		"-A PREROUTING -j KUBE-SERVICES\n-A OUTPUT -j KUBE-SERVICES\n"+
		"-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000\nCOMMIT\n", "iptables-nft-restore")
	const step = 20
	for i := 0; i < n; i += step {
		kerneltest.Exec(b, services(i, min(i+step, n)), "iptables-nft-restore", "--noflush")
	}
}

// services returns the rules of some Services. Chains have real names: those of iptables-nft-save
// go through a hash table that numbers in sequence spoil.
func services(first, end int) string {
	var chains, rules strings.Builder
	chains.WriteString("*nat\n")
	for i := first; i < end; i++ {
		svc := "KUBE-SVC-" + hash(fmt.Sprint("svc", i))
		fmt.Fprintf(&chains, ":%s - [0:0]\n", svc)
		fmt.Fprintf(&rules, "-A KUBE-SERVICES -d 10.96.%d.%d/32 -p tcp -m comment --comment \"ns/svc%d cluster IP\" -m tcp --dport 80 -j %s\n",
			i/250, i%250+1, i, svc)
		for e := range 3 {
			sep := "KUBE-SEP-" + hash(fmt.Sprint("sep", i, e))
			addr := fmt.Sprintf("10.%d.%d.%d", 128+e, i/250, i%250+1)
			fmt.Fprintf(&chains, ":%s - [0:0]\n", sep)
			fmt.Fprintf(&rules, "-A %s -m comment --comment \"ns/svc%d -> %s:80\" -m statistic --mode random --probability 0.5 -j %s\n", svc, i, addr, sep)
			fmt.Fprintf(&rules, "-A %s -s %s/32 -m comment --comment ns/svc%d -j KUBE-MARK-MASQ\n", sep, addr, i)
			fmt.Fprintf(&rules, "-A %s -p tcp -m comment --comment ns/svc%d -m tcp -j DNAT --to-destination %s:80\n", sep, i, addr)
		}
	}
	return chains.String() + rules.String() + "COMMIT\n"
}

func hash(s string) string {
	sum := sha256.Sum256([]byte(s))
	return base32.StdEncoding.EncodeToString(sum[:])[:16]
}

// BenchmarkReadNFTables reads the rules of 10 and 1,000 Services from the
// kernel: all of them, those of the Services without their endpoints, and
// beside them what iptables-nft-save takes.
func BenchmarkReadNFTables(b *testing.B) {
	withoutSEP := func(_ nftables.Table, chains []nftables.Chain) (out []nftables.Chain) {
		for _, c := range chains {
			if !strings.HasPrefix(c.Name, "KUBE-SEP-") {
				out = append(out, c)
			}
		}
		return out
	}
	for _, n := range []int{10, 1000} {
		for name, sel := range map[string]Selector{"all": nil, "without-endpoints": withoutSEP} {
			b.Run(fmt.Sprint(name, "/", n), func(b *testing.B) {
				b.ReportAllocs()
				kerneltest.RunB(b, func(b *testing.B) {
					loadServices(b, n)
					r, err := OpenNFTables()
					if err != nil {
						b.Fatal(err)
					}
					defer r.Close()
					for b.Loop() {
						if _, err := r.Read(b.Context(), sel); err != nil {
							b.Fatal(err)
						}
					}
				})
			})
		}
		b.Run(fmt.Sprint("iptables-nft-save/", n), func(b *testing.B) {
			kerneltest.RunB(b, func(b *testing.B) {
				loadServices(b, n)
				for b.Loop() {
					kerneltest.Exec(b, "", "iptables-nft-save", "-c")
				}
			})
		})
	}
}

// BenchmarkConntrackCount is what the agent does every second.
func BenchmarkConntrackCount(b *testing.B) {
	c, err := OpenConntrack()
	if err != nil {
		b.Skip(err)
	}
	defer c.Close()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Count(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}
