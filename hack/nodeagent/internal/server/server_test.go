// SPDX-License-Identifier: Apache-2.0

package server

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net/http"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/svcscope/svcscope/hack/nodeagent/internal/pods"
)

// authority signs certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{}
	a.cert = &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	var der []byte
	a.key, der = sign(t, a.cert, a.cert, nil)
	a.pem = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return a
}

func sign(t *testing.T, cert, by *x509.Certificate, with *ecdsa.PrivateKey) (*ecdsa.PrivateKey, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if with == nil {
		with = key
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, by, &key.PublicKey, with)
	if err != nil {
		t.Fatal(err)
	}
	return key, der
}

// client returns a certificate of a client by a name.
func (a *authority) client(t *testing.T, name string) []tls.Certificate {
	t.Helper()
	key, der := sign(t, &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
	}, a.cert, a.key)
	return []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}
}

// serve starts a server for a node without pods and returns its URL.
func serve(t *testing.T, ca *authority) string {
	t.Helper()
	api := fake.NewClientset(&corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "node1"},
		Status:     corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "127.0.0.1"}}},
	})
	log := slog.New(slog.DiscardHandler)
	node, err := pods.NewNode(t.Context(), pods.Config{Client: api, Node: "node1", Dir: t.TempDir(), Log: log}, 10250)
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{Node: node, CA: ca.pem, Client: "apiserver", Log: log}
	l, err := s.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := &http.Server{Handler: s.Handler(), ReadHeaderTimeout: time.Minute, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn)}
	done := make(chan error)
	go func() { done <- h.Serve(l) }()
	t.Cleanup(func() {
		h.Close()
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("serve: %v", err)
		}
	})
	return "https://" + l.Addr().String()
}

// ask makes one request with these certificates.
func ask(t *testing.T, certs []tls.Certificate, method, url string) (int, string, error) {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: &tls.Config{Certificates: certs, InsecureSkipVerify: true}} //nolint:gosec // as the API server does by default
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), err
}

func TestWhoMayAsk(t *testing.T) {
	ca := newAuthority(t)
	url := serve(t, ca)
	for name, c := range map[string]struct {
		certs []tls.Certificate
		ok    bool
	}{
		"the API server":    {ca.client(t, "apiserver"), true},
		"no certificate":    {nil, false},
		"another authority": {newAuthority(t).client(t, "apiserver"), false},
		"another name":      {ca.client(t, "kubelet"), false},
		"no name":           {ca.client(t, ""), false},
	} {
		t.Run(name, func(t *testing.T) {
			code, body, err := ask(t, c.certs, http.MethodGet, url+"/pods")
			if c.ok && (err != nil || code != http.StatusNotImplemented) {
				t.Errorf("%d, %v: %s; want to be let in and told 501", code, err, body)
			}
			if !c.ok && (err == nil || !strings.Contains(err.Error(), "remote error: tls: ")) {
				t.Errorf("%d, %v: %s; want a refusal in the handshake", code, err, body)
			}
		})
	}
	if code, _, err := ask(t, nil, http.MethodGet, strings.Replace(url, "https", "http", 1)+"/pods"); err == nil && code != http.StatusBadRequest {
		t.Errorf("%d without TLS, want 400 or an error", code)
	}
}

func TestUnknownPod(t *testing.T) {
	ca := newAuthority(t)
	url, certs := serve(t, ca), ca.client(t, "apiserver")
	for _, c := range []struct{ method, path string }{
		{http.MethodGet, "/containerLogs/n/p/c"},
		{http.MethodPost, "/exec/n/p/c?command=true&output=1"},
		{http.MethodGet, "/exec/n/p/c?command=true&output=1"},
	} {
		code, body, err := ask(t, certs, c.method, url+c.path)
		if err != nil || code != http.StatusNotFound || !strings.Contains(body, "container c of pod n/p: not found") {
			t.Errorf("%s %s: %d, %v: %s; want 404", c.method, c.path, code, err, body)
		}
	}
}
