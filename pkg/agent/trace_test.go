// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/svcscope/svcscope/pkg/internal/kerneltest"
)

// loading are the system calls of the C library when it starts a test binary;
// the product is linked without it. Clocks are read without a call on most
// machines.
const loading = "clock_gettime access brk clone3 execve faccessat mprotect rseq set_robust_list set_tid_address readlink"

// documentedCalls reads the system calls that docs/privileges.md lists.
func documentedCalls(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "privileges.md"))
	if err != nil {
		t.Fatal(err)
	}
	var calls []string
	for line := range strings.Lines(string(text)) {
		if quoted, ok := strings.CutPrefix(line, "> "); ok {
			calls = append(calls, strings.Fields(quoted)...)
		}
	}
	return calls
}

// TestSystemCalls follows the whole agent with strace: it makes the calls that
// docs/privileges.md lists and no others, opens files to read only, has
// sockets of three kinds, sets no option but TCP's and those of the sockets that
// listen, sends nothing by the one that listens to commits, and by that of a group of
// NFLOG what binds the group.
func TestSystemCalls(t *testing.T) {
	strace := kerneltest.NeedTool(t, "strace")
	kerneltest.Run(t, func(t *testing.T) {
		kerneltest.Need(t, kerneltest.Feature{Name: "ptrace", Probe: func() error {
			_, err := kerneltest.TryExec(t, "", strace, "-o", os.DevNull, "true")
			return err
		}})
		dir, ours := t.TempDir(), newAuthority(t)
		ours.install(t, dir)
		write(t, dir, "web.yml", []byte(withTLS+withPassword))
		t.Setenv(processEnv+"_WEB", filepath.Join(dir, "web.yml"))
		t.Setenv(processEnv+"_API", emptyAPI(t, dir))
		t.Setenv(processEnv+"_GROUP", "100")
		for _, backend := range []string{"nft", "legacy"} {
			for _, f := range []family{ipv4(), ipv6()} {
				f.restore(t, backend, f.chains())
				f.restore(t, backend, f.rules(""))
			}
		}
		f := ipv4()
		f.restore(t, "nft", "*filter\n-A OUTPUT -p udp -m udp --dport 9 -j NFLOG --nflog-group 100\nCOMMIT\n")
		// The agent does not make the lock file.
		if _, err := os.Stat(DefaultConfig().LockFile); err != nil {
			t.Fatal(err)
		}
		kerneltest.DropCapabilities(t, unix.CAP_NET_ADMIN)
		trace := filepath.Join(dir, "trace")
		log, ended := startProcess(t, strace, "-f", "-qq", "-o", trace)
		awaitReady(t, "nftables: ok", "legacy: ok", "conntrack: ok", "kube: ok")
		log.await(t, "listening to changes of rules")
		log.await(t, "NFLOG group is read")
		send(t, &family{node: netip.MustParseAddr("127.0.0.9")}, 9, 1) // an event, with an interface
		for _, path := range []string{"/metrics", "/api/v1/services", "/api/v1/drops"} {
			trust := &tls.Config{RootCAs: ours.pool()}
			if code, _, err := visit(t, "https://127.0.0.1:10988"+path, trust, "prometheus", "fakepassword"); code != 200 {
				t.Errorf("%s: %d, %v\n%s", path, code, err, log.b.String())
			}
		}
		ended()
		checkTrace(t, trace)
	})
}

// emptyAPI serves an API that has the node and nothing else; it returns a
// kubeconfig for it.
func emptyAPI(t *testing.T, dir string) string {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/v1/services", follow("v1", "Service", ""))
	mux.HandleFunc("GET /apis/discovery.k8s.io/v1/endpointslices", follow("discovery.k8s.io/v1", "EndpointSlice", ""))
	mux.HandleFunc("GET /api/v1/nodes", follow("v1", "Node", `{"kind":"Node","apiVersion":"v1","metadata":{"name":"node-a","resourceVersion":"1"}}`))
	srv := httptest.NewTLSServer(mux)
	t.Cleanup(srv.Close)
	write(t, dir, "kubeconfig", fmt.Appendf(nil, `{"apiVersion": "v1", "kind": "Config", "current-context": "a",
"clusters": [{"name": "a", "cluster": {"server": %q, "insecure-skip-tls-verify": true}}],
"contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}], "users": [{"name": "a", "user": {"token": "x"}}]}`, srv.URL))
	return filepath.Join(dir, "kubeconfig")
}

// follow answers lists and watches of a kind of which there is one item, or
// none, and where nothing happens: a watch stands until the client goes.
func follow(version, kind, item string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		q := r.URL.Query()
		if q.Get("watch") == "" {
			fmt.Fprintf(w, `{"kind":"%sList","apiVersion":%q,"metadata":{"resourceVersion":"1"},"items":[%s]}`, kind, version, item)
			return
		}
		if q.Get("sendInitialEvents") == "true" { // a list as the beginning of a watch
			if item != "" {
				fmt.Fprintf(w, `{"type":"ADDED","object":%s}`, item)
			}
			fmt.Fprintf(w, `{"type":"BOOKMARK","object":{"kind":%q,"apiVersion":%q,"metadata":`+
				`{"resourceVersion":"1","annotations":{"k8s.io/initial-events-end":"true"}}}}`, kind, version)
		}
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}
}

var (
	callName = regexp.MustCompile(`^\d+ +([a-z0-9_]+)\(`)
	sockets  = regexp.MustCompile(`socket\((AF_NETLINK, SOCK_RAW\b.*, NETLINK_(NETFILTER|ROUTE)|AF_INET6?, SOCK_DGRAM|AF_INET6?, SOCK_STREAM)\b`)
	options  = regexp.MustCompile(`setsockopt\(\d+, (SOL_SOCKET|SOL_TCP|SOL_IPV6, IPV6_V6ONLY|SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, \[7\])`)
	joins    = regexp.MustCompile(`setsockopt\((\d+), SOL_NETLINK, NETLINK_ADD_MEMBERSHIP`)
	binds    = regexp.MustCompile(`sendmsg\(.*(NFNL_SUBSYS_ULOG<<8\|NFULNL_MSG_CONFIG|0x401\b)`)
	sends    = regexp.MustCompile(`(?:sendto|sendmsg|write|close)\((\d+)\b`)
	writes   = regexp.MustCompile(`O_(WRONLY|RDWR|CREAT|TRUNC|APPEND)`)
)

// checkTrace holds every line against what docs/privileges.md says.
func checkTrace(t *testing.T, path string) {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	allowed := append(documentedCalls(t), strings.Fields(loading)...)
	seen := map[string]int{}
	listens := "" // the descriptor of the socket that has joined the group
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := lines.Text()
		m := callName.FindStringSubmatch(line)
		if m == nil {
			continue // the rest of an interrupted line, or the end of a thread
		}
		call := m[1]
		seen[call]++
		unexpected := !slices.Contains(allowed, call) ||
			call == "execve" && seen[call] > 1 ||
			call == "openat" && writes.MatchString(line) ||
			call == "socket" && !sockets.MatchString(line) ||
			call == "sendmsg" && !binds.MatchString(line) ||
			call == "setsockopt" && !options.MatchString(line)
		if m := joins.FindStringSubmatch(line); m != nil {
			listens = m[1]
			seen["join"]++
		}
		if m := sends.FindStringSubmatch(line); m != nil && m[1] == listens {
			unexpected = unexpected || call != "close"
			listens = ""
		}
		if unexpected {
			t.Errorf("docs/privileges.md does not have: %.200s", line)
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	for _, call := range []string{"socket", "sendto", "recvmsg", "getsockopt", "openat", "accept4", "join", "inotify_add_watch", "sendmsg"} {
		if seen[call] == 0 {
			t.Errorf("no %s in the trace: %v", call, seen)
		}
	}
}
