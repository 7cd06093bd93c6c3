// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// checkLockFile sees that the lock file's type is checked: where there is
// none the pod does not start and says so, and nothing is made. The same pod
// serves with TLS and a password.
func (s *installed) checkLockFileAndWeb() {
	s.t.Helper()
	const file = "/run/xtables.lock"
	s.lab.Exec("node1", "rm", "-f", file)
	w := s.newWeb()
	s.helm("--set legacy.lockFile=true,livenessProbe.periodSeconds=1,livenessProbe.timeoutSeconds=1,livenessProbe.failureThreshold=3," +
		"terminationGracePeriodSeconds=1 --values " + w.values)
	eventually(s.t, "the pod waits for the lock file", func() error {
		out := s.do("kubectl -n svcscope get events --field-selector reason=FailedMount -o jsonpath='{.items[*].message}'")
		if !strings.Contains(out, file+" is not of type File") {
			return fmt.Errorf("events: %q", out)
		}
		return nil
	})
	s.lab.Exec("node1", "sh", "-c", "test ! -e "+file+" && : >"+file)
	s.rollout()
	mounts := s.lab.Exec("node1", "cat", "/proc/"+s.pid()+"/mountinfo")
	if !strings.Contains(mounts, " "+file+" ro,") {
		s.t.Errorf("%s is not mounted read-only:\n%s", file, mounts)
	}
	w.check()
}

// password is what the bcrypt hash in values is of.
const password = "not a secret"

// web is a pod's web configuration by the chart, and a client of it.
type web struct {
	*installed
	values string // a file for Helm
	roots  *x509.CertPool
}

// newWeb makes a Secret with a certificate for the node's address.
func (s *installed) newWeb() *web {
	s.t.Helper()
	dir := s.t.TempDir()
	w := &web{installed: s, values: filepath.Join(dir, "values.yaml"), roots: x509.NewCertPool()}
	crt, key := certificate(s.t, net.ParseIP(s.lab.Info.Nodes[0].IPv4[0]))
	w.roots.AppendCertsFromPEM(crt)
	for name, text := range map[string]string{
		"tls.crt": string(crt), "tls.key": string(key),
		"values.yaml": `web:
  config:
    inline:
      tls_server_config: {cert_file: tls.crt, key_file: tls.key, min_version: TLS13}
      basic_auth_users:
        prometheus: $2a$10$P9brU9pKZF1MyKFrL4WiLe1FzyybNCKq1qM/OMW9zAyFSx7LwIK7m
    tlsSecret: web-tls
`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			s.t.Fatal(err)
		}
	}
	s.do("kubectl -n svcscope create secret tls web-tls --cert=" + dir + "/tls.crt --key=" + dir + "/tls.key")
	return w
}

// certificate returns one for an address that is its own authority, and its
// key, in PEM.
func certificate(t *testing.T, ip net.IP) (crt, key []byte) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "svcscope"}, IPAddresses: []net.IP{ip},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &k.PublicKey, k)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})
}

// check scrapes the pod as Prometheus would, which has the authority and
// looks for the node's address in the certificate.
func (w *web) check() {
	w.t.Helper()
	host := w.lab.Info.Nodes[0].IPv4[0]
	forward := w.lab.Forward("node1:10988")
	for name, c := range map[string]struct {
		scheme, password string
		roots            *x509.CertPool
		want             string // beginning of status or error, "" for any error
	}{
		"the password":        {"https", password, w.roots, "200"},
		"another password":    {"https", "guess", w.roots, "401"},
		"no password":         {"https", "", w.roots, "401"},
		"without TLS":         {"http", password, nil, "400"}, // as Go's server tells who speaks HTTP to it
		"another's authority": {"https", password, x509.NewCertPool(), "x509: certificate signed by unknown authority"},
	} {
		got, body := scrape(w.t, c.scheme+"://"+forward+"/metrics", func(r *http.Request, t *http.Transport) {
			t.TLSClientConfig = &tls.Config{RootCAs: c.roots, ServerName: host, MinVersion: tls.VersionTLS12}
			if c.password != "" {
				r.SetBasicAuth("prometheus", c.password)
			}
		})
		if !strings.Contains(got, c.want) || (c.want == "200") != strings.Contains(body, "svcscope_build_info") {
			w.t.Errorf("%s: %s, want %s; page:\n%.300s", name, got, c.want, body)
		}
	}
	// The kubelet's probes know no password.
	for _, path := range []string{"/healthz", "/readyz"} {
		if _, err := w.agent.get("10989", path); err != nil {
			w.t.Errorf("health: %v", err)
		}
	}
}

// scrape returns a status or an error, and the page.
func scrape(t *testing.T, url string, how func(*http.Request, *http.Transport)) (status, page string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	how(req, transport)
	resp, err := (&http.Client{Transport: transport, Timeout: patience}).Do(req)
	if err != nil {
		return err.Error(), ""
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return err.Error(), ""
	}
	return resp.Status, string(b)
}

// checkLiveness stops the agent's process: the probe is not answered, and the
// container is started anew.
func (s *installed) checkLiveness() {
	s.t.Helper()
	before := s.pid()
	s.lab.Exec("node1", "kill", "-STOP", before)
	eventually(s.t, "the container was started again and is ready", func() error {
		out := s.do("kubectl -n svcscope get pods -o jsonpath='{.items[*].status.containerStatuses[0].restartCount} {.items[*].status.containerStatuses[0].ready}'")
		if out != "1 true" {
			return fmt.Errorf("restarts and ready are %q", out)
		}
		return nil
	})
	if now := s.pid(); now == before || now == "" {
		s.t.Errorf("the agent's process was %s and is %q after its liveness probe failed", before, now)
	}
	if out := s.do("kubectl -n svcscope get events --field-selector reason=Killing -o jsonpath='{.items[*].message}'"); !strings.Contains(out, "liveness probe: ") {
		s.t.Errorf("events Killing: %q, want one of the liveness probe", out)
	}
}
