// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bytes"
	"crypto/tls"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Parts of a web configuration file.
const (
	withTLS = `tls_server_config:
  cert_file: tls.crt
  key_file: tls.key
`
	withClients = `  client_auth_type: RequireAndVerifyClientCert
  client_ca_file: clients.crt
`
	// The password is fakepassword.
	withPassword = `basic_auth_users:
  prometheus: $2y$10$QOauhQNbBCuQDKes6eFzPeMqBSjb7Mr5DUmpZ/VcEd00UAV/LDeSi
`
)

// visit asks for a page and returns its status, 0 where there was no answer
// for the reason returned. Every call makes a connection of its own.
func visit(t *testing.T, url string, config *tls.Config, user ...string) (status int, body string, why error) {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(user) == 2 {
		req.SetBasicAuth(user[0], user[1])
	}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b), nil
}

// startSecure serves with a web configuration; its addresses are those of
// pages and of health.
func startSecure(t *testing.T, dir, config string) (pages, health string) {
	t.Helper()
	write(t, dir, "web.yml", []byte(config))
	addresses := startWeb(t, webSampler(t, filepath.Join(dir, "web.yml"), nil))
	return addresses[0], addresses[1]
}

// expectHealth: probes have neither certificates nor passwords.
func expectHealth(t *testing.T, address string) {
	t.Helper()
	for _, path := range []string{"/healthz", "/readyz"} {
		if code, body, err := visit(t, "http://"+address+path, nil); code != http.StatusOK {
			t.Errorf("%s: %d %s, %v; want it open and without TLS", path, code, body, err)
		}
	}
}

func TestMetricsOverTLS(t *testing.T) {
	dir, ours, other := t.TempDir(), newAuthority(t), newAuthority(t)
	ours.install(t, dir)
	pages, health := startSecure(t, dir, withTLS)
	trust := &tls.Config{RootCAs: ours.pool()}
	if code, body, err := visit(t, "https://"+pages+"/metrics", trust); code != 200 || !strings.Contains(body, "svcscope_service_rules{") {
		t.Errorf("metrics: %d, %v\n%.200s", code, err, body)
	}
	if code, _, err := visit(t, "https://"+pages+"/api/v1/services", trust); code != 200 {
		t.Errorf("API from this node: %d, %v", code, err)
	}
	if code, _, err := visit(t, "https://"+pages+"/metrics", &tls.Config{RootCAs: other.pool()}); err == nil ||
		!strings.Contains(err.Error(), "unknown authority") {
		t.Errorf("a client that trusts another authority: %d, %v", code, err)
	}
	if code, body, err := visit(t, "http://"+pages+"/metrics", nil); code != http.StatusBadRequest || strings.Contains(body, "svcscope_") {
		t.Errorf("without TLS: %d %.200s, %v", code, body, err)
	}
	old := &tls.Config{RootCAs: ours.pool(), MaxVersion: tls.VersionTLS11} //nolint:gosec // to be refused
	if code, _, err := visit(t, "https://"+pages+"/metrics", old); err == nil {
		t.Errorf("TLS 1.1: %d, want it refused", code)
	}
	expectHealth(t, health)
}

func TestClientCertificates(t *testing.T) {
	dir, servers, clients := t.TempDir(), newAuthority(t), newAuthority(t)
	servers.install(t, dir)
	write(t, dir, "clients.crt", clients.pem())
	pages, health := startSecure(t, dir, withTLS+withClients)
	for name, tt := range map[string]struct {
		certificates []tls.Certificate
		want         int
	}{
		"none":                   {nil, 0},
		"of another authority":   {[]tls.Certificate{servers.client(t)}, 0},
		"of the right authority": {[]tls.Certificate{clients.client(t)}, http.StatusOK},
	} {
		config := &tls.Config{RootCAs: servers.pool(), Certificates: tt.certificates}
		for _, path := range []string{"/metrics", "/api/v1/services", "/"} {
			if code, _, err := visit(t, "https://"+pages+path, config); code != tt.want || (err != nil) != (tt.want == 0) {
				t.Errorf("certificate: %s, %s: %d, %v; want %d", name, path, code, err, tt.want)
			}
		}
	}
	expectHealth(t, health)
}

func TestBasicAuthentication(t *testing.T) {
	dir := t.TempDir()
	pages, health := startSecure(t, dir, withPassword)
	for _, path := range []string{"/metrics", "/api/v1/services", "/", "/nothing"} {
		for _, user := range [][]string{nil, {"prometheus", "wrong"}, {"prometheus", ""}, {"root", "fakepassword"}} {
			if code, body, err := visit(t, "http://"+pages+path, nil, user...); code != http.StatusUnauthorized ||
				strings.Contains(body, "svcscope") {
				t.Errorf("%s as %q: %d %.200s, %v; want 401", path, user, code, body, err)
			}
		}
	}
	if code, body, err := visit(t, "http://"+pages+"/metrics", nil, "prometheus", "fakepassword"); code != 200 ||
		!strings.Contains(body, "svcscope_service_rules{") {
		t.Errorf("with the password: %d, %v", code, err)
	}
	expectHealth(t, health)
	// A password that is taken away is gone at the next request.
	other := strings.ReplaceAll(withPassword, "prometheus", "somebody")
	write(t, dir, "web.yml", []byte(other))
	if code, _, err := visit(t, "http://"+pages+"/metrics", nil, "prometheus", "fakepassword"); code != http.StatusUnauthorized {
		t.Errorf("after the user is gone: %d, %v", code, err)
	}
}

// TestRateLimit: requests beyond the limit are refused before their password
// is looked at, which takes tens of milliseconds, and so are right ones.
func TestRateLimit(t *testing.T) {
	pages, health := startSecure(t, t.TempDir(), withPassword+"rate_limit:\n  interval: 1h\n  burst: 2\n")
	for i, want := range []int{http.StatusUnauthorized, http.StatusOK, http.StatusTooManyRequests} {
		password := "fakepassword"
		if i == 0 {
			password = "wrong"
		}
		if code, _, err := visit(t, "http://"+pages+"/metrics", nil, "prometheus", password); code != want {
			t.Errorf("request %d: %d, %v; want %d", i+1, code, err, want)
		}
	}
	expectHealth(t, health)
}

// TestRenewedCertificates replaces the files under a running agent, as
// cert-manager and the kubelet do.
func TestRenewedCertificates(t *testing.T) {
	dir, ours := t.TempDir(), newAuthority(t)
	ours.install(t, dir)
	pages, _ := startSecure(t, dir, withTLS)
	served := func(trust authority) ([]byte, error) {
		c, err := tls.Dial("tcp", pages, &tls.Config{RootCAs: trust.pool()})
		if err != nil {
			return nil, err
		}
		defer c.Close()
		return c.ConnectionState().PeerCertificates[0].Raw, nil
	}
	first, err := served(ours)
	if err != nil {
		t.Fatal(err)
	}
	ours.install(t, dir)
	second, err := served(ours)
	if err != nil || bytes.Equal(first, second) {
		t.Errorf("the renewed certificate is not served: %v", err)
	}
	// A volume of a Secret: all files change at once, by a symbolic link.
	next, successor := t.TempDir(), newAuthority(t)
	successor.install(t, next)
	for _, name := range []string{"tls.crt", "tls.key"} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
		if _, err := served(ours); err == nil { // half of the pair is not there: refused, not ended
			t.Error("served without its files")
		}
		if err := os.Symlink(filepath.Join(next, name), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := served(successor); err != nil {
		t.Errorf("of the new authority: %v", err)
	}
}

// TestRenewedClientAuthority: clients of the old one are refused then.
func TestRenewedClientAuthority(t *testing.T) {
	dir, servers, before, after := t.TempDir(), newAuthority(t), newAuthority(t), newAuthority(t)
	servers.install(t, dir)
	write(t, dir, "clients.crt", before.pem())
	pages, _ := startSecure(t, dir, withTLS+withClients)
	allowed := func(a authority) bool {
		config := &tls.Config{RootCAs: servers.pool(), Certificates: []tls.Certificate{a.client(t)}}
		code, _, _ := visit(t, "https://"+pages+"/metrics", config)
		return code == http.StatusOK
	}
	if !allowed(before) || allowed(after) {
		t.Error("at the start: not the clients of the file's authority alone")
	}
	write(t, dir, "clients.crt", after.pem())
	if allowed(before) || !allowed(after) {
		t.Error("after the change: not the clients of the file's authority alone")
	}
}

// TestWrongWebConfigEndsTheAgent: before it listens, by the name of the file.
func TestWrongWebConfigEndsTheAgent(t *testing.T) {
	dir, ours := t.TempDir(), newAuthority(t)
	ours.install(t, dir)
	_, key := ours.issue(t)
	write(t, dir, "other.key", key)
	write(t, dir, "clients.crt", ours.pem())
	for name, tt := range map[string]struct{ config, want string }{
		"unknown key":         {"no_such_key: 1\n", "no_such_key"},
		"no certificate":      {strings.ReplaceAll(withTLS, "tls.crt", "none.crt"), "none.crt"},
		"another's key":       {strings.ReplaceAll(withTLS, "tls.key", "other.key"), "private key does not match"},
		"no client authority": {withTLS + strings.ReplaceAll(withClients, "clients.crt", "none.crt"), "none.crt"},
		"no client policy":    {withTLS + "  client_ca_file: clients.crt\n", "without a Client Auth Policy"},
		"a plain password":    {"basic_auth_users:\n  prometheus: secret\n", "bcrypt"},
		"absent":              {"", "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			l := &logs{}
			file := filepath.Join(dir, "web.yml")
			write(t, dir, "web.yml", []byte(tt.config))
			if tt.config == "" {
				file = filepath.Join(dir, "absent.yml")
			}
			err := run(t.Context(), webSampler(t, file, l))
			if err == nil {
				t.Fatal("no error")
			}
			for _, word := range []string{tt.want, "--web.config.file", file} {
				if !strings.Contains(err.Error(), word) {
					t.Errorf("got %v, want %s in it", err, word)
				}
			}
			if strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), "secret") {
				t.Errorf("%q is not one line without the password", err)
			}
			if l.count("Listening") != 0 {
				t.Errorf("it listened first:\n%s", l.b.String())
			}
		})
	}
}
