// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/svcscope/svcscope/pkg/agent"
	"github.com/svcscope/svcscope/pkg/capture"
	"github.com/svcscope/svcscope/pkg/correlate"
	"github.com/svcscope/svcscope/pkg/drift"
	"github.com/svcscope/svcscope/pkg/kernel"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/service"
)

var update = flag.Bool("update", false, "write the scripts' expected output")

// TestScript drives the command line by testdata/script/*.txtar. Besides
// testscript's own commands the scripts have
//
//	svcscope ARG...          the command line, in this process
//	status N ARG...          the same, which must exit with N
//	agent STATUS FILE [NAME=FILE...]
//	                         an agent at the default address that answers so, and
//	                         with other files for some reports
//	file EDIT FROM TO        writes a snapshot like another one (editSnapshot)
//
// `svcscope agent` prints its configuration and ends. $PROGRAM is argv[0], $KERNEL what a
// direct reading finds (kernelAnswer; captured is what the real kube-proxy wrote), $TERMINAL tells that stdout is one.
func TestScript(t *testing.T) {
	node := capturedNode(t)
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", "script"),
		UpdateScripts:       *update,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(e *testscript.Env) error {
			report, err := os.ReadFile(filepath.Join("testdata", "report.json"))
			if err != nil {
				return err
			}
			e.Values[fakeKey{}] = &fakeAgent{}
			e.Values[nodeKey{}] = node
			e.Setenv("PROGRAM", "/usr/bin/svcscope")
			e.Setenv("KERNEL", "ok")
			return os.WriteFile(filepath.Join(e.WorkDir, "report.json"), report, 0o600)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"svcscope": scriptSvcscope,
			"status":   scriptStatus,
			"agent":    scriptAgent,
			"file":     scriptFile,
		},
	})
}

type (
	fakeKey struct{}
	nodeKey struct{}
)

// fakeAgent is who listens on the default address: nobody while empty.
type fakeAgent struct{ address string }

func scriptSvcscope(ts *testscript.TestScript, neg bool, args []string) {
	if code := runScript(ts, args); (code != exitOK) != neg {
		ts.Fatalf("exit status %d", code)
	}
}

func scriptStatus(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: status N ARG...")
	}
	if code := runScript(ts, args[1:]); strconv.Itoa(code) != args[0] {
		ts.Fatalf("exit status %d, want %s", code, args[0])
	}
}

func scriptAgent(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: agent STATUS FILE [NAME=FILE...]")
	}
	status, err := strconv.Atoi(args[0])
	ts.Check(err)
	body := ts.ReadFile(args[1])
	special := make(map[string]string)
	for _, arg := range args[2:] {
		name, file, _ := strings.Cut(arg, "=")
		special["/api/v1/"+name] = ts.ReadFile(file)
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !slices.Contains([]string{"/api/v1/services", "/api/v1/conntrack", "/api/v1/drops", "/api/v1/drift", "/api/v1/history"}, r.URL.Path) {
			http.NotFound(w, r)
			return
		}
		w.WriteHeader(status)
		text := body
		if other, ok := special[r.URL.Path]; ok {
			text = other
		}
		_, _ = w.Write([]byte(text))
	}))
	ts.Defer(srv.Close)
	ts.Value(fakeKey{}).(*fakeAgent).address = srv.Listener.Addr().String()
}

func runScript(ts *testscript.TestScript, args []string) int {
	fake := ts.Value(fakeKey{}).(*fakeAgent)
	transport := &http.Transport{DialContext: fake.dial}
	defer transport.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	e := testEnv(ts.Getenv("PROGRAM"))
	e.stdout, e.stderr = ts.Stdout(), ts.Stderr()
	e.client = &http.Client{Transport: transport}
	e.getenv = ts.Getenv
	e.terminal = func() bool { return ts.Getenv("TERMINAL") != "" }
	e.readNode = func(_ context.Context, c agent.Config) (*capture.Node, error) {
		if kind, ok := strings.CutPrefix(ts.Getenv("KERNEL"), "captured"); ok {
			return capturedAnswer(ts.Value(nodeKey{}).(*capture.Node), kind, c)
		}
		return nodeAnswer(ts.Getenv("KERNEL"), c)
	}
	looks := 0
	e.readOnce = func(_ context.Context, c agent.Config) (*correlate.Snapshot, error) {
		looks++
		if ts.Getenv("KERNEL") == "drift" {
			return driftAnswer(looks, c), nil
		}
		return kernelAnswer(ts.Getenv("KERNEL"), c)
	}
	e.sleep = func(_ context.Context, d time.Duration) error {
		slept := e.now().Add(d - 7*time.Second) // the first look was 7 seconds ago
		e.now = func() time.Time { return slept }
		return nil
	}
	e.watchFlows = func(_ context.Context, c agent.Config, w agent.FlowWatch) error { return watchAnswer(c, w) }
	e.watchDrops = func(_ context.Context, c agent.Config, w agent.DropWatch) error { return dropsAnswer(c, w) }
	e.runAgent = func(_ context.Context, c agent.Config) error {
		c.Logger.Debug("config read")
		c.Logger = nil
		fmt.Fprintf(e.stdout, "%s\n", strings.ReplaceAll(fmt.Sprintf("%+v", c), " ", "\n"))
		return nil
	}
	return run(ctx, e, args)
}

// dial stands for the network: whatever the host has on the default port,
// only the fake agent is reached there.
func (f *fakeAgent) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if address != strings.TrimPrefix(defaultAgent, "http://") {
		return nil, &net.OpError{Op: "dial", Net: network, Err: errors.New("no route to " + address)}
	}
	if f.address == "" {
		return nil, &net.OpError{Op: "dial", Net: network, Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	}
	var d net.Dialer
	return d.DialContext(ctx, network, f.address)
}

func testEnv(program string) *env {
	return &env{
		program:  program,
		stdin:    strings.NewReader(""),
		terminal: func() bool { return false },
		getenv:   func(string) string { return "" },
		hostname: func() (string, error) { return "test-host", nil },
		now:      func() time.Time { return time.Date(2026, 3, 1, 12, 0, 7, 0, time.UTC) },
		client:   http.DefaultClient,
	}
}

// watchAnswer is what happens to web while it is watched.
func watchAnswer(c agent.Config, w agent.FlowWatch) error {
	if w.Service.Name != "web" || w.Port != "" && w.Port != "http" || c.NodeName != "test-host" {
		return agent.ErrNoService
	}
	w.Started()
	f := agent.WatchedFlow{
		Time: time.Date(2026, 3, 1, 12, 0, 0, 123e6, time.Local), Change: "new",
		Port:   service.PortName{Name: w.Service, Port: "http", Protocol: service.TCP},
		Client: netip.MustParseAddrPort("10.244.1.7:40001"), Frontend: netip.MustParseAddrPort("10.96.0.10:80"),
		Endpoint: netip.MustParseAddrPort("10.244.2.5:8080"), Node: "node-b", Source: netip.MustParseAddrPort("192.168.50.1:61234"),
	}
	w.Visit(&f)
	f.Change = "established"
	w.Visit(&f)
	w.Lost(kernel.ErrOverrun)
	f.Change, f.Node, f.Source, f.Stale = "ended", "", netip.AddrPort{}, true
	w.Visit(&f)
	return nil
}

// driftAnswer is what differs at a look: an endpoint lacks at both of them, and another one
// is too much at each, of which the first one goes.
func driftAnswer(look int, c agent.Config) *correlate.Snapshot {
	web := service.PortName{Name: service.Name{Namespace: "default", Name: "web"}, Port: "http", Protocol: service.TCP}
	differs := func(kind drift.Kind, detail string) drift.Difference {
		return drift.Difference{Port: web, Family: netfilter.IPv4, Backend: "nft", Kind: kind, Detail: detail, InFlight: true}
	}
	return &correlate.Snapshot{
		Time: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), Node: correlate.NodeInfo{Name: c.NodeName, ProxyMode: "iptables"},
		Kube: correlate.KubeState{Enabled: true, Synced: true},
		Drift: &correlate.Drift{Pending: []drift.Difference{
			differs(drift.MissingEndpoint, "10.244.1.5:8080"), differs(drift.ExtraEndpoint, fmt.Sprintf("10.244.1.%d:8080", look)),
		}},
	}
}

// kernelAnswer is what a reading without an agent gives.
func kernelAnswer(kind string, c agent.Config) (*correlate.Snapshot, error) {
	s := &correlate.Snapshot{
		Time: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC),
		Node: correlate.NodeInfo{Name: c.NodeName}, NoGroups: correlate.NoEventsOneLook,
		LogGroups: []correlate.LogGroup{
			{Group: 5, State: correlate.LogGroupHeld, Passed: true, Holder: 4242, Rules: 1, Err: "NFLOG group 5 is held by netlink port 4242"},
			{Group: 100, State: correlate.LogGroupFree, Passed: true, Rules: 2, Err: "nobody reads NFLOG group 100"},
		},
		Kube: correlate.KubeState{Enabled: c.Kube != agent.KubeNever},
	}
	if c.ConntrackInterval != 0 && kind != "norules" {
		s.Conntrack = &correlate.Conntrack{Entries: 1200, Peak: 1200, Limit: 262144, Buckets: 32768}
		s.Flows = &correlate.Flows{
			Time: s.Time, Entries: 1200, Owners: [correlate.NumOwners]uint64{900, 10, 90, 100, 60, 40},
			States: []correlate.StateEntries{{Protocol: "tcp", State: "established", Entries: 1100}, {Protocol: "udp", State: "unreplied", Entries: 100}},
			Services: []correlate.ServiceFlows{
				{Port: service.PortName{Name: service.Name{Namespace: "default", Name: "web"}, Port: "http", Protocol: service.TCP}, Family: netfilter.IPv4, Replied: 800, Closing: 100, Stale: 7},
			},
		}
	}
	switch kind {
	case "denied":
		return nil, &kernel.CapabilityError{Op: "list chains of table nat (IPv4)", Cap: "CAP_NET_ADMIN", Err: syscall.EPERM}
	case "empty":
		return s, nil
	case "unprivileged":
		s.Self.Collectors = []correlate.CollectorState{
			{Name: "nftables", Err: "open nf_tables: needs CAP_NET_ADMIN: operation not permitted"},
			{Name: "legacy", Success: true},
		}
		return s, nil
	case "norules":
		s.Node.ProxyMode = "none"
		return s, nil
	case "nonames":
		s.Node.ProxyMode = "ipvs"
		return s, nil
	case "garbled":
		s.Self.Collectors = []correlate.CollectorState{{Name: "legacy", Err: "read table nat: ipt_entry at offset 336: need 112 bytes, have 40"}}
		return s, nil
	}
	web := correlate.ServicePort{
		Port: service.PortName{
			Name: service.Name{Namespace: "default", Name: "web"}, Port: "http", Protocol: service.TCP,
		},
		Family: netfilter.IPv4, Cluster: 500, External: 20, APICount: -1, KernelCount: 2, SinceRule: true,
		Rules: map[string]int{"nat": 11},
	}
	web6 := web
	web6.Family, web6.ClusterIP, web6.Number = netfilter.IPv6, netip.MustParseAddr("fd00:10:96::5"), 80
	s.Services = []*correlate.ServicePort{&web, &web6}
	switch kind {
	case "nftables":
		s.Node.ProxyMode = "nftables"
		for i := range s.Services {
			s.Services[i].Uncounted = true
		}
	case "half": // IPv6's rules could not be read
		s.Node.ProxyMode = "iptables"
		s.Services[1].Uncounted, s.Services[1].KernelCount = true, -1
		s.Self.Collectors = []correlate.CollectorState{
			{Name: "nftables", Err: "list chains (IPv6): needs CAP_NET_ADMIN: operation not permitted"},
		}
	case "other": // rules of nobody, and Services from the API
		s.Node.ProxyMode, s.Kube.Synced = "none", true
	}
	return s, nil
}
