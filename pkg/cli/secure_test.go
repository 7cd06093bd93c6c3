// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/svcscope/svcscope/pkg/internal/kerneltest"
)

// TestCommandsAndASecuredAgent runs the real agent with TLS and a password, in
// namespaces of its own, and asks it as somebody in its container does.
func TestCommandsAndASecuredAgent(t *testing.T) {
	tests := []struct {
		name   string
		config string
		agent  string // $SVCSCOPE_AGENT
		trust  bool
		want   string // how standard error begins
	}{
		{"TLS", withTLS, "", false, "source: this node's kernel (agent at http://127.0.0.1:10988: it wants TLS)"},
		{
			"TLS that is not trusted", withTLS, "https://127.0.0.1:10988", false,
			"source: this node's kernel (agent at https://127.0.0.1:10988: its certificate is not trusted here: x509: ",
		},
		{"TLS that is trusted", withTLS, "https://127.0.0.1:10988", true, "source: agent at https://127.0.0.1:10988, node worker-1, "},
		{
			"a client certificate", withTLS + "  client_auth_type: RequireAnyClientCert\n", "https://127.0.0.1:10988", true,
			"source: this node's kernel (agent at https://127.0.0.1:10988: ",
		},
		{"a password", withPassword, "", false, "source: this node's kernel (agent at http://127.0.0.1:10988: it wants a password)"},
		{
			"the password", withPassword, "http://prometheus:fakepassword@127.0.0.1:10988", false,
			"source: agent at http://prometheus:xxxxx@127.0.0.1:10988, node worker-1, ",
		},
		{
			"both", withTLS + withPassword, "https://prometheus:fakepassword@127.0.0.1:10988", true,
			"source: agent at https://prometheus:xxxxx@127.0.0.1:10988, node worker-1, ",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			kerneltest.Run(t, func(t *testing.T) {
				dir := t.TempDir()
				authority := writeCertificate(t, dir)
				if tt.trust {
					t.Setenv("SSL_CERT_FILE", authority) // before the first use in this process
				}
				t.Setenv(agentEnv, tt.agent)
				writeFile(t, filepath.Join(dir, "web.yml"), []byte(tt.config))
				startAgent(t, "--web.config.file", filepath.Join(dir, "web.yml"))
				var stdout, stderr bytes.Buffer
				if code := Run([]string{"services", "--kube=never"}, &stdout, &stderr); code != exitOK {
					t.Errorf("exit status %d", code)
				}
				if got := stderr.String(); !strings.HasPrefix(got, tt.want) || strings.Contains(got, "fakepassword") {
					t.Errorf("standard error %q, want it to begin with %q and to keep the password", got, tt.want)
				}
			})
		})
	}
}

// TestWishForAClientCertificate: TLS 1.3 tells it after the handshake, when a
// client may be writing and see a broken pipe instead.
func TestWishForAClientCertificate(t *testing.T) {
	srv := httptest.NewUnstartedServer(nil)
	srv.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	defer srv.Close()
	c, err := tls.Dial("tcp", srv.Listener.Addr().String(), srv.Client().Transport.(*http.Transport).TLSClientConfig)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, err = c.Read(make([]byte, 1))
	if got := tlsCause(err); !errors.Is(got, errClient) {
		t.Errorf("got %v of %v, want %v", got, err, errClient)
	}
}

const (
	withTLS      = "tls_server_config:\n  cert_file: tls.crt\n  key_file: tls.key\n"
	withPassword = "basic_auth_users:\n  prometheus: $2y$10$QOauhQNbBCuQDKes6eFzPeMqBSjb7Mr5DUmpZ/VcEd00UAV/LDeSi\n"
)

// writeCertificate writes the certificate for 127.0.0.1 of net/http/httptest,
// its own authority, with its key into dir, and returns the first's path.
func writeCertificate(t *testing.T, dir string) string {
	t.Helper()
	srv := httptest.NewTLSServer(nil)
	defer srv.Close()
	pair := srv.TLS.Certificates[0]
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(dir, "tls.key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}))
	path := filepath.Join(dir, "tls.crt")
	writeFile(t, path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Certificate[0]}))
	return path
}

func writeFile(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// startAgent runs the real agent until the test ends, and returns when it is
// ready.
func startAgent(t *testing.T, args ...string) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var log bytes.Buffer
	e := newEnv(&log, &log)
	status := make(chan int, 1)
	go func() {
		status <- run(ctx, e, append([]string{"agent", "--kube=never", "--node-name=worker-1"}, args...))
	}()
	t.Cleanup(func() {
		cancel()
		if code := <-status; code != exitOK {
			t.Errorf("agent: exit status %d:\n%s", code, &log)
		}
	})
	await(t, "http://127.0.0.1:10989/readyz", status)
}

// TestAgentWithItsPortsTaken: one line, and nothing about usage.
func TestAgentWithItsPortsTaken(t *testing.T) {
	kerneltest.Run(t, func(t *testing.T) {
		for address, want := range map[string]string{
			"127.0.0.1:10988": "svcscope: listen on 127.0.0.1:10988: port 10988 is in use on this node; " +
				"choose another with --web.listen-address (Helm: service.port)",
			"127.0.0.1:10989": "svcscope: listen on 127.0.0.1:10989: port 10989 is in use on this node; " +
				"choose another with --web.health-address (Helm: healthPort)",
		} {
			l, err := net.Listen("tcp", address)
			if err != nil {
				t.Fatal(err)
			}
			var stdout, stderr bytes.Buffer
			code := Run([]string{"agent", "--kube=never", "--node-name=worker-1"}, &stdout, &stderr)
			_, said, _ := strings.Cut(stderr.String(), "\nsvcscope: ") // after the log
			if code != exitError || "svcscope: "+said != want+"\n" || stdout.Len() > 0 {
				t.Errorf("exit status %d\n%s%s\nwant %d and at last\n%s", code, &stdout, &stderr, exitError, want)
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// TestCommandWithoutTheCapability: what is missing, and how to get it.
func TestCommandWithoutTheCapability(t *testing.T) {
	kerneltest.Run(t, func(t *testing.T) {
		kerneltest.DropCapabilities(t)
		var stdout, stderr bytes.Buffer
		code := Run([]string{"services", "--agent=none", "--kube=never"}, &stdout, &stderr)
		if code != exitError || stdout.Len() > 0 {
			t.Errorf("exit status %d and %q, want %d", code, &stdout, exitError)
		}
		for _, words := range []string{
			"needs CAP_NET_ADMIN", "\nsvcscope: list services: unknown, as rules could not be read\n",
			"\n  run svcscope as root (UID 0 with CAP_NET_ADMIN) in the node's network namespace\n",
		} {
			if !strings.Contains(stderr.String(), words) {
				t.Errorf("standard error lacks %q:\n%s", words, &stderr)
			}
		}
	})
}

// TestLimitsAreTheEnvironments: a container's limits reach the runtime by
// GOMEMLIMIT and GOMAXPROCS, and nothing here sets others.
func TestLimitsAreTheEnvironments(t *testing.T) {
	t.Setenv("GOMEMLIMIT", "345MiB") // of the process that Run starts
	t.Setenv("GOMAXPROCS", "3")
	kerneltest.Run(t, func(t *testing.T) {
		startAgent(t, "--interval=1s")
		if got := debug.SetMemoryLimit(-1); got != 345<<20 {
			t.Errorf("memory limit %d, want 345 MiB", got)
		}
		if got := runtime.GOMAXPROCS(0); got != 3 {
			t.Errorf("GOMAXPROCS %d, want 3", got)
		}
	})
}
