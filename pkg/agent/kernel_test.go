// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/svcscope/svcscope/pkg/internal/kerneltest"
)

const metricsURL = "http://127.0.0.1:10988/metrics"

// eachScene runs a test in namespaces of its own for both backends and
// families.
func eachScene(t *testing.T, fn func(t *testing.T, backend string, f family)) {
	for _, backend := range []string{"nft", "legacy"} {
		for _, f := range []family{ipv4(), ipv6()} {
			t.Run(backend+" "+f.name, func(t *testing.T) {
				kerneltest.Run(t, func(t *testing.T) {
					f.load(t, backend)
					fn(t, backend, f)
				})
			})
		}
	}
}

// check compares what the metrics say of web with what happened.
func check(t *testing.T, s scrape, f family, cluster, external int) {
	t.Helper()
	web := []string{"service_name=web", "service_namespace=shop", "port_name=http", "protocol=TCP", "ip_family=" + f.name}
	const connections = "svcscope_service_connections_total"
	if got := s.sum(connections, append(web, "via=cluster")...); got != float64(cluster) {
		t.Errorf("via cluster: %v, want %d", got, cluster)
	}
	if got := s.sum(connections, append(web, "via=external")...); got != float64(external) {
		t.Errorf("via external: %v, want %d", got, external)
	}
	if got := s.sum("svcscope_service_endpoint_connections_total", web...); got != float64(cluster+external) {
		t.Errorf("endpoints sum to %v, want %d", got, cluster+external)
	}
}

func TestTotalsAreWhatHappened(t *testing.T) {
	eachScene(t, func(t *testing.T, backend string, f family) {
		f.serve(t)
		connect(t, f.cluster(), 7) // before the agent: not its business
		s := newTestSampler(testConfig())
		start(t, s)
		check(t, get(t), f, 0, 0)

		connect(t, f.cluster(), 53)
		connect(t, f.external(), 31)
		for range 3 {
			if c, err := net.DialTimeout("tcp", fmt.Sprintf("[%s]:%d", f.ghost, vipPort), 5*time.Second); err == nil {
				_ = c.Close()
				t.Fatal("a Service without endpoints answers")
			}
		}
		passes(t, s, 2)
		m := get(t)
		check(t, m, f, 53, 31)
		want := f.refused(t, backend)
		if got := m.sum("svcscope_service_rejected_packets_total", "service_name=ghost", "reason=no_endpoints"); got != want || want < 3 {
			t.Errorf("refused: %v, want %v as the rule counts", got, want)
		}
		if got := m.sum("svcscope_node_info", "proxy_mode=iptables", "backend="+backend); got != 1 {
			t.Errorf("node_info: no iptables in %s: %v", backend, m["svcscope_node_info"])
		}
		if got := m.sum("svcscope_collector_success"); got != 4 {
			t.Errorf("%v sources were read, want 4: %v", got, m["svcscope_collector_success"])
		}

		// The Service itself is rewritten: its counters start anew.
		f.restore(t, backend, f.chains())
		connect(t, f.cluster(), 5)
		connect(t, f.external(), 4)
		passes(t, s, 2)
		check(t, get(t), f, 58, 35)
		if got := m.sum("svcscope_service_endpoints", "source=kernel", "service_name=web"); got != 2 {
			t.Errorf("endpoints in the kernel: %v, want 2", got)
		}
		if code, body := text(t, "http://127.0.0.1:10989/readyz"); code != 200 || !strings.HasPrefix(body, "ready\n") {
			t.Errorf("readyz: %d %s", code, body)
		}
	})
}

// refused is what the rule of ghost has counted, by iptables-save.
func (f *family) refused(t *testing.T, backend string) float64 {
	t.Helper()
	for line := range strings.Lines(kerneltest.Exec(t, "", f.iptables+"-"+backend+"-save", "-c", "-t", "filter")) {
		var packets, bytes float64
		if strings.Contains(line, "has no endpoints") {
			if _, err := fmt.Sscanf(line, "[%f:%f]", &packets, &bytes); err != nil {
				t.Fatal(err)
			}
			return packets
		}
	}
	t.Fatal("no rule for ghost")
	return 0
}

func TestTotalsStandWhileOtherServicesChange(t *testing.T) {
	eachScene(t, func(t *testing.T, backend string, f family) {
		f.serve(t)
		s := newTestSampler(testConfig())
		start(t, s)
		stop, done := make(chan struct{}), make(chan int)
		go func() { // kube-proxy with a restless cluster
			n := 0
			for ; ; n++ {
				select {
				case <-stop:
					done <- n
					return
				default:
				}
				extra := fmt.Sprintf("-A KUBE-SERVICES -m comment --comment \"shop/other%d cluster IP\" -m tcp -p tcp -d %s --dport 81 -j RETURN\n", n, f.vip)
				f.restore(t, backend, f.rules(extra))
			}
		}()
		for range 40 {
			connect(t, f.cluster(), 5)
			connect(t, f.external(), 3)
		}
		close(stop)
		t.Logf("%d rewrites", <-done)
		passes(t, s, 3)
		m := get(t)
		check(t, m, f, 200, 120)
		if got := m.sum("svcscope_ruleset_changes_total", "backend="+backend); got < 1 {
			t.Errorf("changes: %v", got)
		}
	})
}

func TestOneReadingGivesTheRulesCounters(t *testing.T) {
	eachScene(t, func(t *testing.T, _ string, f family) {
		f.serve(t)
		connect(t, f.cluster(), 6)
		connect(t, f.external(), 2)
		cfg := DefaultConfig()
		cfg.Kube = KubeNever
		s, err := ReadOnce(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range s.Services {
			if p.Port == webPort && (p.Cluster != 6 || p.External != 2 || !p.SinceRule || p.KernelCount != 2) {
				t.Errorf("%+v, want 6 and 2 since the rules, 2 endpoints", p)
			}
		}
		if len(s.Services) != 2 {
			t.Errorf("%d Services, want web and ghost", len(s.Services))
		}
	})
}

func TestNetAdminIsEnough(t *testing.T) {
	eachScene(t, func(t *testing.T, _ string, f family) {
		f.serve(t)
		kerneltest.DropCapabilities(t, unix.CAP_NET_ADMIN)
		s := newTestSampler(testConfig())
		defer s.close()
		s.pass(t.Context())
		connect(t, f.cluster(), 9)
		s.pass(t.Context())
		m := page(t, s)
		check(t, m, f, 9, 0)
		if got := m.sum("svcscope_collector_success"); got != 4 {
			t.Errorf("%v sources were read, want 4: %v", got, m["svcscope_collector_success"])
		}
	})
}

func TestUnknownMatchesHinderNothing(t *testing.T) {
	eachScene(t, func(t *testing.T, backend string, f family) {
		f.serve(t)
		var b strings.Builder
		b.WriteString("*filter\n:OTHER - [0:0]\n")
		for range 200 {
			b.WriteString("-A OTHER -m string --algo bm --string x -m time --timestart 01:00 --timestop 02:00 -m hashlimit --hashlimit-upto 5/sec --hashlimit-name h -j ACCEPT\n")
		}
		b.WriteString("COMMIT\n")
		f.restore(t, backend, b.String())
		s := newTestSampler(testConfig())
		start(t, s)
		connect(t, f.cluster(), 8)
		passes(t, s, 2)
		m := get(t)
		check(t, m, f, 8, 0)
		if got := m.sum("svcscope_undecoded_total"); got < 200 {
			t.Errorf("undecoded: %v", got)
		}
	})
}

func TestForeignTablesAndNoRules(t *testing.T) {
	kerneltest.Run(t, func(t *testing.T) {
		kerneltest.Exec(t, "table inet other {\n chain c {\n type filter hook input priority 0\n meta nfproto ipv4 ct state new counter accept\n }\n}\n"+
			"table ip kube-proxy {\n chain services { }\n}\n", "nft", "-f", "-")
		s := newTestSampler(testConfig())
		defer s.close()
		s.pass(t.Context())
		if got := s.latest.Load(); got.Node.ProxyMode != "nftables" || got.Counting[0].Method != "none" {
			t.Errorf("node %+v counting %+v, want nftables and none", got.Node, got.Counting)
		}
	})
}

func TestNodeWithoutRules(t *testing.T) {
	kerneltest.Run(t, func(t *testing.T) {
		s := newTestSampler(testConfig())
		defer s.close()
		s.pass(t.Context())
		got := s.latest.Load()
		if got.Node.ProxyMode != "none" || len(got.Services) != 0 {
			t.Errorf("node %+v, %d Services", got.Node, len(got.Services))
		}
		for _, c := range got.Self.Collectors {
			if !c.Success {
				t.Errorf("%s: %s", c.Name, c.Err)
			}
		}
		// Reading has created no legacy table.
		var names []string
		r, err := s.host.legacy()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		for _, f := range families() {
			n, _ := r.Tables(t.Context(), f)
			names = append(names, n...)
		}
		if len(names) != 0 {
			t.Errorf("legacy tables %v exist now", names)
		}
	})
}

// TestSamplingLeavesNothingOpen counts descriptors and goroutines over many
// samplings, and after the agent has ended.
func TestSamplingLeavesNothingOpen(t *testing.T) {
	kerneltest.Run(t, func(t *testing.T) {
		f := ipv4()
		f.load(t, "legacy")
		f.restore(t, "nft", f.chains())
		before, descriptors := runtime.NumGoroutine(), openFiles(t)
		ctx, cancel := context.WithCancel(t.Context())
		s := newTestSampler(testConfig())
		done := make(chan error, 1)
		go func() { done <- run(ctx, s) }()
		for s.latest.Load() == nil {
			time.Sleep(time.Millisecond)
		}
		passes(t, s, 3)
		goroutines, files := runtime.NumGoroutine(), openFiles(t)
		passes(t, s, 50)
		if n, m := runtime.NumGoroutine(), openFiles(t); n > goroutines || m > files {
			t.Errorf("after 50 samplings %d goroutines and %d files, %d and %d before", n, m, goroutines, files)
		}
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > before && time.Now().Before(deadline); {
			time.Sleep(time.Millisecond) // for the runtime's own bookkeeping
		}
		if n, m := runtime.NumGoroutine(), openFiles(t); n > before || m > descriptors {
			t.Errorf("after the end %d goroutines and %d files, %d and %d before", n, m, before, descriptors)
		}
	})
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
