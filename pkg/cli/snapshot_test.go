// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/svcscope/svcscope/pkg/agent"
	"github.com/svcscope/svcscope/pkg/capture"
	"github.com/svcscope/svcscope/pkg/correlate"
	"github.com/svcscope/svcscope/pkg/internal/iptsave"
	"github.com/svcscope/svcscope/pkg/kubeproxy"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/ruleset"
	"github.com/svcscope/svcscope/pkg/service"
)

var (
	webPort     = service.PortName{Name: service.Name{Namespace: "default", Name: "web"}, Port: "http", Protocol: service.TCP}
	webEndpoint = netip.MustParseAddrPort("10.244.2.5:8080")
)

// nodeAnswer is what a reading of the whole node gives.
func nodeAnswer(kind string, c agent.Config) (*capture.Node, error) {
	if kind == "denied" {
		_, err := kernelAnswer(kind, c)
		return nil, err
	}
	svc, sep := kubeproxy.ServiceChain(webPort), kubeproxy.EndpointChain(webPort, webEndpoint)
	set, err := iptsave.Parse(netfilter.IPv4, ruleset.NFT, `*nat
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:KUBE-SERVICES - [0:0]
:`+svc+` - [0:0]
:`+sep+` - [0:0]
[3:180] -A PREROUTING -j KUBE-SERVICES
[3:180] -A KUBE-SERVICES -d 10.96.0.10/32 -p tcp -m comment --comment "default/web:http cluster IP" -m tcp --dport 80 -j `+svc+`
[3:180] -A `+svc+` -m comment --comment "default/web:http -> 10.244.2.5:8080" -j `+sep+`
[0:0] -A `+sep+` -s 10.244.2.5/32 -m comment --comment "default/web:http" -j KUBE-MARK-MASQ
[3:180] -A `+sep+` -p tcp -m comment --comment "default/web:http" -m tcp -j DNAT --to-destination 10.244.2.5:8080
COMMIT
`)
	if err != nil {
		return nil, err
	}
	n := &capture.Node{
		Name: c.NodeName, Time: time.Date(2026, 3, 1, 12, 0, 7, 0, time.FixedZone("", -3600)), Kernel: "6.18.0",
		Rules: []capture.Rules{{Set: set}}, Sysctls: map[string]string{"net.ipv4.ip_forward": "1"},
		Flows: []capture.FlowTally{{Protocol: 6, To: netip.MustParseAddrPort("10.96.0.10:80"), From: webEndpoint, Entries: 3}},
	}
	if kind == "half" {
		n.Unread = map[ruleset.Backend]string{ruleset.Legacy: "needs CAP_NET_ADMIN: operation not permitted"}
	}
	if c.Kube != agent.KubeNever {
		n.Catalog = &service.Catalog{
			Synced: true, Node: service.Node{Name: c.NodeName},
			Services: []*service.Service{{
				Name: webPort.Name, Type: "ClusterIP", ClusterIPs: []netip.Addr{netip.MustParseAddr("10.96.0.10")},
				Ports: []service.Port{{Name: "http", Protocol: service.TCP, Port: 80}},
			}},
			Endpoints: map[service.PortName][]service.Endpoint{webPort: {{Addr: webEndpoint, Ready: true, Serving: true, NodeName: "node-b"}}},
		}
	}
	return n, nil
}

// scriptFile writes a snapshot in which something is another thing than in one that is
// there.
func scriptFile(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: file EDIT FROM TO")
	}
	s, err := capture.Read(strings.NewReader(ts.ReadFile(args[1])))
	ts.Check(err)
	ts.Check(editSnapshot(s, args[0]))
	var b bytes.Buffer
	ts.Check(capture.Write(&b, s))
	ts.Check(os.WriteFile(ts.MkAbs(args[2]), b.Bytes(), 0o600))
}

// editSnapshot makes a snapshot of another node.
func editSnapshot(s *capture.Snapshot, edit string) error {
	nat := s.Node.Rules[0].Set.Table("nat")
	switch edit {
	case "node": // only another one
		s.Node.Name = "node-2"
	case "broken":
		s.Node.Name, s.Node.Kernel, s.Node.Sysctls = "node-2", "5.15.0", map[string]string{"net.ipv4.ip_forward": "0"}
		nat.Chain("OUTPUT").Base.Policy = ruleset.Drop
		nat.Chain("KUBE-SERVICES").Rules = nil
		return nil
	case "noapi":
		s.Node.Catalog = nil
	case "nftables":
		s.Node.Rules[0].NFTablesMode = true
	case "noreports":
		s.Reports, s.Unreported = nil, map[string]string{"drops": "503 Service Unavailable"}
	default:
		return errors.New("no such edit")
	}
	return nil
}

// events is a report of drops, at times that depend on the zone.
const events = `{"node":"node-a","time":"2026-03-01T12:00:00Z","source":"agent","kube":{"enabled":true,"synced":true},"collectors":[],
"rules":[{"reason":"no_endpoints","hook":"OUTPUT","owner":"kube-proxy","packets":3,"since":"2026-03-01T11:00:00Z"}],
"events":[{"time":"2026-03-01T11:59:58.5Z","source":"nflog","hook":"FORWARD","refused":true,"reason":"policy","owner":"calico",
"protocol":"TCP","from":"10.244.1.7:40001","to":"10.244.2.5:8080"}],"groups":[],"policies":[],"witnessed":[]}`

// drifts is a report of drift: how old it is depends on the time.
const drifts = `{"node":"test-host","time":"2026-03-01T13:00:00Z","source":"agent","kube":{"enabled":true,"synced":true},"collectors":[],
"kubeProxy":[{"ipFamily":"IPv4","pendingSince":"2026-03-01T12:30:00Z"}],"pending":[],
"items":[{"namespace":"default","name":"web","portName":"http","protocol":"TCP","ipFamily":"IPv4","kind":"missing_endpoint",
"detail":"10.244.2.5:8080","since":"2026-03-01T12:00:00Z","remedy":"restart kube-proxy"}]}`

// changes is a report of all changes of rules.
const changes = `{"node":"test-host","time":"2026-03-01T13:00:00Z","source":"agent","kube":{"enabled":true,"synced":true},"collectors":[],
"items":[{"time":"2026-03-01T12:00:00Z","namespace":"default","name":"web","portName":"http","protocol":"TCP","ipFamily":"IPv4","backend":"nft","what":"made"},
{"time":"2026-03-01T12:30:00Z","namespace":"shop","name":"web","portName":"http","protocol":"TCP","ipFamily":"IPv4","backend":"nft","what":"rules"}]}`

// TestReplay: what a command prints of a snapshot is byte for byte what it printed on
// the node at that time, in all formats.
func TestReplay(t *testing.T) {
	report, err := os.ReadFile(filepath.Join("testdata", "report.json"))
	if err != nil {
		t.Fatal(err)
	}
	conntrack, err := json.Marshal(func() correlate.ConntrackReport {
		s, err := kernelAnswer("ok", agent.Config{NodeName: "node-a", ConntrackInterval: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		r := correlate.NewConntrackReport(s)
		r.Source, r.Losses = correlate.SourceAgent, &correlate.LossesReport{Since: s.Time.Add(-time.Hour), Packets: map[string]uint64{"clash": 4}}
		return r
	}())
	if err != nil {
		t.Fatal(err)
	}
	documents := map[string]string{
		"/api/v1/services": string(report), "/api/v1/conntrack": string(conntrack), "/api/v1/drops": events, "/api/v1/drift": drifts,
		"/api/v1/history": changes,
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if documents[r.URL.Path] == "" {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write([]byte(documents[r.URL.Path]))
	}))
	defer srv.Close()
	at := time.Date(2026, 3, 1, 12, 0, 7, 0, time.FixedZone("", -3600))
	live := func(args ...string) (string, string, int) {
		return replayed(t, at, append(args, "--agent", srv.URL)...)
	}
	file := filepath.Join(t.TempDir(), "node.tgz")
	out, _, code := live("snapshot")
	if code != exitOK {
		t.Fatalf("snapshot: exit status %d", code)
	}
	if err := os.WriteFile(file, []byte(out), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, command := range [][]string{{"services"}, {"services", "-n", "default"}, {"services", "web"}, {"conntrack"}, {"drops"}, {"drops", "-n", "shop"}, {"drift"},
		{"explain", "web"}, {"explain", "default/web:80", "--history", "--commands"}} {
		for _, format := range []string{"table", "wide", "json", "yaml"} {
			args := append(append([]string{}, command...), "-o", format)
			want, _, wantCode := live(args...)
			// Later, and elsewhere.
			got, said, gotCode := replayed(t, at.Add(1000*time.Hour).UTC(), append(args, "--from", file)...)
			if got != want || gotCode != wantCode || want == "" && format != "table" {
				t.Errorf("%q: exit status %d and %d; live:\n%s\nreplayed:\n%s", args, wantCode, gotCode, want, got)
			}
			if !strings.HasPrefix(said, "source: snapshot "+file+" of node test-host, read 2026-03-01T12:00:07-01:00\n") {
				t.Errorf("%q says %q", args, said)
			}
		}
	}
	if got, _, _ := replayed(t, at.Add(time.Hour), "drift", "--from", file); !strings.Contains(got, "60m ") {
		t.Errorf("drift is not as old as it was:\n%s", got)
	}
	got, _, _ := replayed(t, at, "explain", "web", "--history", "--from", file)
	if !strings.Contains(got, "\n2026-03-01 12:00:00  http  IPv4    nft      unknown  chains made\n") || strings.Contains(got, "12:30:00") {
		t.Errorf("another history:\n%s", got)
	}
	if got, _, _ := replayed(t, at, "drops", "--from", file); !strings.Contains(got, "10:59:58.500  FORWARD") {
		t.Errorf("the time is not that of the node's zone:\n%s", got)
	}
}

// replayed runs a command at a time.
func replayed(t *testing.T, now time.Time, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out, said bytes.Buffer
	e := testEnv("svcscope")
	e.stdout, e.stderr, e.now = &out, &said, func() time.Time { return now }
	e.readNode = func(_ context.Context, c agent.Config) (*capture.Node, error) { return nodeAnswer("ok", c) }
	code = run(t.Context(), e, args)
	return out.String(), said.String(), code
}

// TestReadNodeFromSnapshot: what takes a whole node takes it from a file as well, and the
// time with it.
func TestReadNodeFromSnapshot(t *testing.T) {
	n, err := nodeAnswer("ok", agent.Config{NodeName: "node-a"})
	if err != nil {
		t.Fatal(err)
	}
	var file, said bytes.Buffer
	if err := capture.Write(&file, &capture.Snapshot{Node: n}); err != nil {
		t.Fatal(err)
	}
	e := testEnv("svcscope")
	e.stdin, e.stderr = &file, &said
	for range 2 { // the second time without reading: standard input is at its end
		got, err := readNode(t.Context(), e, sourceOptions{from: standardInput})
		if err != nil || got.Name != "node-a" || got.Catalog == nil || len(got.Rules) != 1 || !e.now().Equal(n.Time) {
			t.Fatalf("%+v, %v, at %v", got, err, e.now())
		}
	}
	if want := "source: snapshot on standard input of node node-a, read 2026-03-01T12:00:07-01:00\n"; said.String() != want {
		t.Errorf("it says %q, want %q", said.String(), want)
	}
}

// TestPrintable: a file of somebody else does not control the terminal, and what is a
// node's own text stays.
func TestPrintable(t *testing.T) {
	for text, want := range map[string]string{
		"shop/web → 10.0.0.1:80\n\tnext": "shop/web → 10.0.0.1:80\n\tnext", "\x1b[2Jgone\r": "\ufffd[2Jgone\ufffd", "\u009b2J": "\ufffd2J",
	} {
		if got := printable(text); got != want {
			t.Errorf("%q became %q", text, got)
		}
		b, err := json.Marshal(map[string]string{"a": text, `q"\`: `\u001b "quoted" <>`})
		if err != nil {
			t.Fatal(err)
		}
		var got map[string]string
		if err := json.Unmarshal(printableJSON(b), &got); err != nil || got["a"] != want || got[`q"\`] != `\u001b "quoted" <>` {
			t.Errorf("%s became %q, %v", b, got, err)
		}
	}
	for _, damaged := range []string{`\`, `"\u1`, `"\`, "\xff\xc2"} {
		if got := printableJSON([]byte(damaged)); json.Valid(got) {
			t.Errorf("%q became %q", damaged, got)
		}
	}
}
