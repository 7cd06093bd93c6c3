// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/svcscope/svcscope/pkg/internal/kernelrules"
	"github.com/svcscope/svcscope/pkg/internal/kerneltest"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/nftables"
	"github.com/svcscope/svcscope/pkg/ruleset"
)

// TestSamplingsLeaveNothingBehind samples a node with rules in both backends
// 1,000 times, with SVCSCOPE_LONG=1 10,000 times, while Services change: memory,
// goroutines and open files do not grow. A listener leaves now and then, and joins
// again.
func TestSamplingsLeaveNothingBehind(t *testing.T) {
	for name, maxRules := range map[string]int{"listening": DefaultConfig().MaxRules, "looking": 0} {
		t.Run(name, func(t *testing.T) { samplesLeaveNothingBehind(t, maxRules) })
	}
}

func samplesLeaveNothingBehind(t *testing.T, maxRules int) {
	samplings := 1000
	if os.Getenv("SVCSCOPE_LONG") == "1" {
		samplings = 10000
	}
	kerneltest.Run(t, func(t *testing.T) {
		m := kernelrules.Many{Family: netfilter.IPv4, Services: 5}
		for _, backend := range []string{"nft", "legacy"} {
			kerneltest.Exec(t, string(m.All()), "iptables-"+backend+"-restore")
		}
		w := newFakeWatcher()
		w.catalog, w.state = m.Catalog(-1, 0), apiState{Synced: true, Current: true}
		cfg := testConfig()
		cfg.Kube, cfg.MaxRules = KubeAlways, maxRules
		s := newSampler(cfg, thisHost(), newKube(cfg, func() (watcher, error) { return w, nil }))
		defer s.close()
		if err := s.kube.check(); err != nil {
			t.Fatal(err)
		}
		joined := 0
		sample := func(n int) {
			for i := range n {
				if i%200 == 100 && s.nft.notices.listener != nil {
					joined++
					s.leave(0, false)
				}
				if i%50 == 0 {
					endpoints := kernelrules.EndpointsEach - i/50%2
					for _, backend := range []string{"nft", "legacy"} {
						kerneltest.Exec(t, string(m.Sync(0, endpoints)), "iptables-"+backend+"-restore", "-w", "5", "--noflush")
					}
					w.mu.Lock()
					w.catalog = m.Catalog(0, endpoints)
					w.mu.Unlock()
				}
				s.flows.read(t.Context(), s.flowInputs(), time.Now())
				s.pass(t.Context())
			}
		}
		sample(100)
		heap, goroutines, files := heapMiB(), runtime.NumGoroutine(), openFiles(t)
		sample(samplings)
		if grown := heapMiB() - heap; grown > 0.5 {
			t.Errorf("heap grew by %.2f MiB from %.2f MiB in %d samplings", grown, heap, samplings)
		}
		if got := runtime.NumGoroutine(); got > goroutines {
			t.Errorf("%d goroutines, want at most %d", got, goroutines)
		}
		if got := openFiles(t); got != files {
			t.Errorf("%d open files, want %d", got, files)
		}
		if want := samplings / 200; maxRules > 0 && joined < want {
			t.Errorf("it listened %d times, want %d", joined, want)
		}
		for _, c := range s.latest.Load().Self.Collectors {
			if !c.Success {
				t.Errorf("collector %+v", c)
			}
		}
	})
}

// TestRulesWrittenAnewAreThoseInTheKernel: after syncs that write what stood
// before under other handles, and in another order, what is kept of the rules
// is what a first reading finds.
func TestRulesWrittenAnewAreThoseInTheKernel(t *testing.T) {
	kerneltest.Run(t, func(t *testing.T) {
		m := kernelrules.Many{Family: netfilter.IPv4, Services: 4}
		kerneltest.Exec(t, string(m.All()), "iptables-nft-restore")
		b := newNFTablesBackend(thisHost().nftables, nil)
		defer b.close()
		read := func() {
			t.Helper()
			if _, err := b.read(t.Context()); err != nil {
				t.Fatal(err)
			}
			fresh, _ := kernelrules.NFT(t, m.Family, func(_ nftables.Table, chains []nftables.Chain) (some []nftables.Chain) {
				for _, c := range chains {
					if !strings.HasPrefix(c.Name, "KUBE-SEP-") {
						some = append(some, c)
					}
				}
				return some
			})
			options := cmp.Options{
				cmpopts.IgnoreUnexported(ruleset.Table{}, ruleset.Chain{}), cmpopts.EquateComparable(netip.Addr{}, netip.AddrPort{}, netip.Prefix{}), cmpopts.EquateEmpty(),
			}
			if d := cmp.Diff(fresh, b.mirrors[m.Family].Ruleset(), options); d != "" {
				t.Errorf("(-first reading +kept):\n%s", d)
			}
		}
		read()
		for _, endpoints := range []int{2, 3, 3} {
			text := reordered(string(m.Sync(1, endpoints)))
			kerneltest.Exec(t, text, "iptables-nft-restore", "-w", "5", "--noflush")
			read()
		}
	})
}

// reordered has the dispatch rules backwards, as kube-proxy's order is another
// one at each sync.
func reordered(sync string) string {
	var before, rules, after []string
	for line := range strings.Lines(sync) {
		switch {
		case strings.HasPrefix(line, "-A KUBE-SERVICES") && strings.Contains(line, "cluster IP"):
			rules = append([]string{line}, rules...)
		case len(rules) == 0:
			before = append(before, line)
		default:
			after = append(after, line)
		}
	}
	return strings.Join(before, "") + strings.Join(rules, "") + strings.Join(after, "")
}
