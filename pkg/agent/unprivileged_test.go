// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/svcscope/svcscope/pkg/internal/kerneltest"
	"github.com/svcscope/svcscope/pkg/kernel"
)

// unprivileged samples this kernel twice with the API's picture of web, and
// checks what an agent without any capability shows. unread are the sources of
// rules that it may not read.
func unprivileged(t *testing.T, f family, unread ...string) {
	t.Helper()
	w := newFakeWatcher()
	w.catalog, w.state = f.catalog(), apiState{Synced: true, Current: true}
	l := &logs{}
	cfg := testConfig()
	cfg.Kube, cfg.Logger = KubeAlways, slog.New(slog.NewTextHandler(l, nil))
	s := newSampler(cfg, thisHost(), newKube(cfg, func() (watcher, error) { return w, nil }))
	defer s.close()
	if err := s.kube.check(); err != nil {
		t.Fatal(err)
	}
	s.introduce()
	for range 3 {
		s.pass(t.Context())
	}
	m := page(t, s)
	expectUncounted(t, m, unread...)
	if got := m.sum("svcscope_service_endpoints", "source=api"); got != 2 || m.sum("svcscope_service_endpoints") != 2 {
		t.Errorf("endpoints %v, want the API's 2 alone", m["svcscope_service_endpoints"])
	}
	if m.sum("svcscope_kube_synced") != 1 {
		t.Error("the API is not synced")
	}
	for _, p := range s.latest.Load().Services {
		if !p.Uncounted || p.KernelCount != -1 {
			t.Errorf("%v: counted, or with endpoints in the kernel: %+v", p.Port, p)
		}
	}
	for _, c := range append(unread, "conntrack") {
		if n := l.count(`level=WARN msg="source cannot be read" source=` + c); n != 1 {
			t.Errorf("%d warnings about %s, want one:\n%s", n, c, l.b.String())
		}
	}
	if l.count("level=ERROR") != 0 || l.count(capabilityRemedy) != len(unread)+1 || l.count("cap_net_admin=false") != 1 {
		t.Errorf("the log has errors, or does not say what is missing:\n%s", l.b.String())
	}
	if got := ask(newHealth(s), "/readyz", "127.0.0.1:1"); got.Code != http.StatusOK ||
		!strings.HasPrefix(got.Body.String(), "ready, without rules: they cannot be read without CAP_NET_ADMIN\n") {
		t.Errorf("readyz: %d %s", got.Code, got.Body)
	}
}

// expectUncounted checks the metrics of an agent without any capability.
func expectUncounted(t *testing.T, m scrape, unread ...string) {
	t.Helper()
	for _, name := range []string{"entries", "entries_peak", "entries_limit", "buckets"} {
		if m["svcscope_conntrack_"+name] == nil {
			t.Errorf("conntrack_%s is missing", name)
		}
	}
	limit, err := os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_max")
	if err != nil {
		t.Fatal(err)
	}
	if got := m.sum("svcscope_conntrack_entries_limit"); fmt.Sprintf("%.0f\n", got) != string(limit) {
		t.Errorf("limit %v, want %s", got, limit)
	}
	for _, name := range unread {
		if m["svcscope_collector_success"] == nil || m.sum("svcscope_collector_success", "collector="+name) != 0 {
			t.Errorf("collector_success of %s is not 0: %v", name, m["svcscope_collector_success"])
		}
	}
	for _, name := range []string{
		"service_connections_total", "service_rejected_packets_total", "service_rules", "service_endpoint_connections_total",
		"rules", "chains", "dispatch_rules", "conntrack_drop_total",
	} {
		if m["svcscope_"+name] != nil {
			t.Errorf("svcscope_%s is shown that nobody counted: %v", name, m["svcscope_"+name])
		}
	}
	if m.sum("svcscope_node_info", "proxy_mode=unknown") != 1 || m.sum("svcscope_counting_method", "method=none") != 2 {
		t.Errorf("mode %v, method %v; want unknown and none", m["svcscope_node_info"], m["svcscope_counting_method"])
	}
}

func TestWithoutCapabilities(t *testing.T) {
	eachScene(t, func(t *testing.T, backend string, f family) {
		kerneltest.DropCapabilities(t)
		unprivileged(t, f, map[string][]string{"nft": {"nftables"}, "legacy": {"nftables", "legacy"}}[backend]...)
	})
}

// TestAsAnOrdinaryUser samples as a user who is not root, in a network
// namespace of its own where root starts the test.
func TestAsAnOrdinaryUser(t *testing.T) {
	kerneltest.Need(t, kerneltest.Feature{Name: "conntrack", Probe: func() error {
		_, err := os.Stat("/proc/sys/net/netfilter/nf_conntrack_count")
		return err
	}})
	if os.Geteuid() != 0 {
		unread := []string{"nftables"}
		if _, err := os.ReadFile("/proc/self/net/ip_tables_names"); errors.Is(err, os.ErrPermission) { // else absent
			unread = append(unread, "legacy")
		}
		unprivileged(t, ipv4(), unread...)
		return
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	binary, err := os.Open(exe) // the folder is not for others; the file is
	if err != nil {
		t.Fatal(err)
	}
	defer binary.Close()
	cmd := exec.CommandContext(t.Context(), "/proc/self/fd/3", "-test.run=^TestAsAnOrdinaryUser$", "-test.v")
	cmd.Dir, cmd.ExtraFiles = "/", []*os.File{binary}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNET, Credential: &syscall.Credential{Uid: 65534, Gid: 65534},
	}
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS: TestAsAnOrdinaryUser ") {
		t.Errorf("%v\n%s", err, out)
	}
}

// processEnv is set in the process that TestAProcessWithoutCapabilities starts.
const processEnv = "SVCSCOPE_TEST_AGENT"

// TestAProcessWithoutCapabilities runs the whole agent as a process of its
// own, with UID 0 and nothing else, and asks it over its sockets.
func TestAProcessWithoutCapabilities(t *testing.T) {
	if os.Getenv(processEnv) != "" {
		ctx, cancel := context.WithCancel(t.Context())
		go func() { // until the test ends
			_, _ = io.Copy(io.Discard, os.Stdin)
			cancel()
		}()
		cfg := DefaultConfig()
		cfg.NodeName, cfg.Interval, cfg.Logger = "node-a", time.Second, slog.New(slog.NewTextHandler(os.Stderr, nil))
		cfg.WebConfigFile, cfg.Kubeconfig, cfg.StartJitter = os.Getenv(processEnv+"_WEB"), os.Getenv(processEnv+"_API"), 0
		if cfg.Kubeconfig == "" {
			cfg.Kube = KubeNever
		}
		if group := os.Getenv(processEnv + "_GROUP"); group != "" {
			cfg.NFLOGGroup = group
		}
		if err := Run(ctx, cfg); err != nil {
			t.Fatal(err)
		}
		return
	}
	kerneltest.Run(t, func(t *testing.T) {
		f := ipv4()
		f.load(t, "legacy")
		f.restore(t, "nft", f.chains())
		kerneltest.DropCapabilities(t)
		log, ended := startProcess(t)
		awaitReady(t, "ready, without rules", "nftables: ", "legacy: ", "needs CAP_NET_ADMIN")
		expectUncounted(t, get(t), "nftables", "legacy")
		ended()
		for _, words := range []string{"cap_net_admin=false", "uid=0", "level=WARN", capabilityRemedy} {
			if log.count(words) == 0 {
				t.Errorf("the log does not say %q:\n%s", words, log.b.String())
			}
		}
	})
}

// awaitReady waits until the agent at the default address is ready and its
// /readyz says all the words.
func awaitReady(t *testing.T, words ...string) {
	t.Helper()
	said := "nothing"
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		resp, err := http.Get("http://127.0.0.1:10989/readyz")
		if err != nil {
			continue
		}
		b, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		said = fmt.Sprintf("%s\n%s", resp.Status, b)
		missing := slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(said, w) })
		if err == nil && resp.StatusCode == http.StatusOK && !missing {
			return
		}
	}
	t.Fatalf("readyz is not 200 with %q in it: %s", words, said)
}

// startProcess starts this test binary as an agent with the privileges of the
// calling thread, under a tracer if one is given. ended ends it and waits.
func startProcess(t *testing.T, tracer ...string) (log *logs, ended func()) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	log = &logs{}
	line := append(tracer, exe, "-test.run=^TestAProcessWithoutCapabilities$", "-test.timeout=2m")
	cmd := exec.CommandContext(t.Context(), line[0], line[1:]...)
	cmd.Env = append(os.Environ(), processEnv+"=1")
	cmd.Stdout, cmd.Stderr = log, log
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = stdin.Close() }) // where the test fails before ended
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return log, func() {
		_ = stdin.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("agent: %v\n%s", err, log.b.String())
		}
	}
}

// TestOnlyALackOfTheCapabilityMakesReady: whoever has it and is refused waits
// for a remedy.
func TestOnlyALackOfTheCapabilityMakesReady(t *testing.T) {
	refused := &kernel.CapabilityError{Op: "read table nat (IPv4)", Cap: "CAP_NET_ADMIN", Err: unix.EPERM}
	other := errors.New("table nat: damaged")
	tests := []struct {
		name     string
		err      error
		netAdmin bool
		unknown  error // of the capability
		want     int
	}{
		{"without", refused, false, nil, http.StatusOK},
		{"without, in both families", errors.Join(refused, refused), false, nil, http.StatusOK},
		{"without, wrapped", fmt.Errorf("read: %w", refused), false, nil, http.StatusOK},
		{"refused though it has it", refused, true, nil, http.StatusServiceUnavailable},
		{"not known whether it has it", refused, false, other, http.StatusServiceUnavailable},
		{"another failure", other, false, nil, http.StatusServiceUnavailable},
		{"another failure too", errors.Join(refused, other), false, nil, http.StatusServiceUnavailable},
	}
	for _, tt := range tests {
		l := &logs{}
		s := fakeSampler(&fakeBackend{answers: []answer{{err: tt.err}}}, nil, l)
		for _, src := range s.sources {
			src.backend = &fakeBackend{answers: []answer{{err: tt.err}}}
			src.netAdmin = func() (bool, error) { return tt.netAdmin, tt.unknown }
		}
		s.pass(t.Context())
		if got := ask(newHealth(s), "/readyz", "127.0.0.1:1"); got.Code != tt.want {
			t.Errorf("%s: %d, want %d:\n%s", tt.name, got.Code, tt.want, got.Body)
		}
		if denied := tt.want == http.StatusOK; (l.count(capabilityRemedy) == 2) != denied || (l.count("level=ERROR") == 0) != denied {
			t.Errorf("%s: logged as:\n%s", tt.name, l.b.String())
		}
	}
	// One source that fails for another reason is enough.
	s := fakeSampler(&fakeBackend{answers: []answer{{err: refused}}}, nil, nil)
	s.sources[0].backend = &fakeBackend{answers: []answer{{err: other}}}
	for _, src := range s.sources {
		src.netAdmin = func() (bool, error) { return false, nil }
	}
	s.pass(t.Context())
	if got := ask(newHealth(s), "/readyz", "127.0.0.1:1"); got.Code != http.StatusServiceUnavailable {
		t.Errorf("one refused, one damaged: %d, want 503:\n%s", got.Code, got.Body)
	}
}
