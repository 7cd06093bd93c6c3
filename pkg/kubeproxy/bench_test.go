// SPDX-License-Identifier: Apache-2.0

package kubeproxy_test

import (
	"fmt"
	"net/netip"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/svcscope/svcscope/pkg/internal/iptsave"
	"github.com/svcscope/svcscope/pkg/internal/kerneltest"
	"github.com/svcscope/svcscope/pkg/kernel"
	"github.com/svcscope/svcscope/pkg/kubeproxy"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/xtables"
	"github.com/svcscope/svcscope/pkg/ruleset"
	"github.com/svcscope/svcscope/pkg/service"
)

const endpointsEach = 3

const head = "*nat\n:KUBE-SERVICES - [0:0]\n:KUBE-MARK-MASQ - [0:0]\n" +
	"-A PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\nCOMMIT\n"

// services writes the nat rules of Services from first to last-1 with three
// endpoints each, 11 rules a Service, as kube-proxy writes them for
// iptables-restore --noflush.
func services(first, last int) string {
	var chains, rules strings.Builder
	add := func(format string, args ...any) { fmt.Fprintf(&rules, format+"\n", args...) }
	for i := first; i < last; i++ {
		p := portNumber(i)
		svc := kubeproxy.ServiceChain(p)
		vip := netip.AddrFrom4([4]byte{10, 96, byte(i >> 8), byte(i)})
		fmt.Fprintf(&chains, ":%s - [0:0]\n", svc)
		add("-A KUBE-SERVICES -m comment --comment \"%s cluster IP\" -m tcp -p tcp -d %s --dport 80 -j %s", p, vip, svc)
		add("-A %s -m comment --comment \"%s cluster IP\" -m tcp -p tcp -d %s --dport 80 ! -s 10.244.0.0/16 -j KUBE-MARK-MASQ", svc, p, vip)
		for e := range endpointsEach {
			ep := endpointNumber(i, e)
			sep := kubeproxy.EndpointChain(p, ep)
			share := ""
			if left := endpointsEach - e; left > 1 {
				share = fmt.Sprintf("-m statistic --mode random --probability %0.10f ", 1/float64(left))
			}
			fmt.Fprintf(&chains, ":%s - [0:0]\n", sep)
			add("-A %s -m comment --comment \"%s -> %s\" %s-j %s", svc, p, ep, share, sep)
			add("-A %s -m comment --comment %s -s %s -j KUBE-MARK-MASQ", sep, p, ep.Addr())
			add("-A %s -m comment --comment %s -m tcp -p tcp -j DNAT --to-destination %s", sep, p, ep)
		}
	}
	return "*nat\n" + chains.String() + rules.String() + "COMMIT\n"
}

func portNumber(i int) service.PortName {
	return service.PortName{Name: service.Name{Namespace: "bench", Name: "svc-" + strconv.Itoa(i)}, Port: "http", Protocol: service.TCP}
}

func endpointNumber(i, e int) netip.AddrPort {
	n := i*endpointsEach + e
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(100 + n>>16), byte(n >> 8), byte(n)}), 8080)
}

// check fails unless the view has all that services wrote.
func check(tb testing.TB, v *kubeproxy.View, n int) {
	tb.Helper()
	if len(v.Ports) != n || v.DispatchRules != n || !v.Recognised() {
		tb.Fatalf("ports %d, dispatch rules %d, recognised %v; want %d", len(v.Ports), v.DispatchRules, v.Recognised(), n)
	}
	p := portNumber(n - 1)
	got := v.Ports[kubeproxy.Hash(p)]
	if got == nil || got.Name != p || len(got.Endpoints) != endpointsEach || got.Endpoints[2].Addr != endpointNumber(n-1, 2) {
		tb.Fatalf("last port: got %+v", got)
	}
}

// retained measures how much memory what make returns takes.
func retained(b *testing.B, make func() *ruleset.Ruleset) {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.GC() // what the first has freed is swept
	runtime.ReadMemStats(&before)
	rs := make()
	runtime.GC()
	runtime.ReadMemStats(&after)
	b.ReportMetric(float64(int64(after.HeapAlloc-before.HeapAlloc))/(1<<20), "MiB-kept")
	runtime.KeepAlive(rs)
}

func BenchmarkFromLegacy(b *testing.B) {
	for _, n := range []int{1000, 10000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			kerneltest.RunB(b, func(b *testing.B) {
				kerneltest.Exec(b, head+services(0, n), "iptables-legacy-restore", "--noflush")
				r, err := kernel.OpenLegacy(kernel.LegacyConfig{})
				if err != nil {
					b.Fatal(err)
				}
				defer func() { _ = r.Close() }()
				err = r.Read(b.Context(), netfilter.IPv4, "nat", func(t *xtables.Table) error {
					convert := func() *ruleset.Ruleset {
						all := ruleset.NewXTables(netfilter.IPv4)
						if _, err := all.Update(t); err != nil {
							b.Fatal(err)
						}
						return all.Ruleset()
					}
					check(b, kubeproxy.NewView(convert()), n)
					b.ReportAllocs()
					for b.Loop() {
						convert()
					}
					retained(b, convert)
					runtime.KeepAlive(t)
					return nil
				})
				if err != nil {
					b.Fatal(err)
				}
			})
		})
	}
}

func BenchmarkFromNFTables(b *testing.B) {
	for _, n := range []int{1000, 10000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			kerneltest.RunB(b, func(b *testing.B) {
				kerneltest.Exec(b, head, "iptables-nft-restore")
				const batch = 20 // one message's limit without CAP_NET_ADMIN outside
				for i := 0; i < n; i += batch {
					kerneltest.Exec(b, services(i, i+batch), "iptables-nft-restore", "--noflush")
				}
				r, err := kernel.OpenNFTables()
				if err != nil {
					b.Fatal(err)
				}
				defer func() { _ = r.Close() }()
				reading, err := r.Read(b.Context(), nil)
				if err != nil {
					b.Fatal(err)
				}
				convert := func() *ruleset.Ruleset {
					rs, _ := ruleset.FromNFTables(netfilter.IPv4, &reading.Ruleset)
					return rs
				}
				check(b, kubeproxy.NewView(convert()), n)
				b.ReportAllocs()
				for b.Loop() {
					convert()
				}
				retained(b, convert)
				runtime.KeepAlive(reading)
			})
		})
	}
}

func BenchmarkNewView(b *testing.B) {
	for _, n := range []int{1000, 10000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			text := strings.Replace(head, "COMMIT\n", strings.TrimPrefix(services(0, n), "*nat\n"), 1)
			rs, err := iptsave.Parse(netfilter.IPv4, ruleset.Legacy, text)
			if err != nil {
				b.Fatal(err)
			}
			check(b, kubeproxy.NewView(rs), n)
			b.ReportAllocs()
			for b.Loop() {
				kubeproxy.NewView(rs)
			}
		})
	}
}
