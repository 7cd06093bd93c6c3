// SPDX-License-Identifier: Apache-2.0

// Package server answers what the API server asks of a kubelet for `kubectl
// exec` and `kubectl logs`, and nothing else.
package server

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	utilexec "k8s.io/utils/exec"

	"github.com/svcscope/svcscope/hack/nodeagent/internal/container"
	"github.com/svcscope/svcscope/hack/nodeagent/internal/pods"
)

// Server is the kubelet's part that it plays.
type Server struct {
	// Node runs the pods.
	Node *pods.Node
	// CA has signed the certificate of who may ask, in PEM, and Client is
	// the name in it.
	CA     []byte
	Client string
	// Log is for who is refused.
	Log *slog.Logger
}

// Listen returns a listener that speaks TLS with a certificate of its own
// making for the address, and lets nobody in but the server's Client.
func (s *Server) Listen(addr string) (net.Listener, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	cert, err := selfSigned(net.ParseIP(host))
	if err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(s.CA) {
		return nil, errors.New("no certificate of the authority")
	}
	return tls.Listen("tcp", addr, &tls.Config{
		Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12,
		ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: roots,
		VerifyConnection: func(c tls.ConnectionState) error {
			if name := c.PeerCertificates[0].Subject.CommonName; name != s.Client {
				return fmt.Errorf("certificate of %q: only %q may ask", name, s.Client)
			}
			return nil
		},
	})
}

func selfSigned(ip net.IP) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	t := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "lab-node-agent"}, IPAddresses: []net.IP{ip},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(30 * 24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, &key.PublicKey, key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}

// Handler answers /exec and /containerLogs; other paths of a kubelet get 501.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /containerLogs/{namespace}/{pod}/{container}", s.logs)
	mux.HandleFunc("/exec/{namespace}/{pod}/{container}", s.exec)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, "the lab node agent is no kubelet: it answers exec and containerLogs, not "+r.URL.Path, http.StatusNotImplemented)
	})
	return mux
}

func (s *Server) find(w http.ResponseWriter, r *http.Request) *pods.Container {
	c, err := s.Node.Find(r.PathValue("namespace"), r.PathValue("pod"), r.PathValue("container"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return nil
	}
	return c
}

// executor runs a command in one container, for k8s.io/cri-streaming.
type executor struct{ c *pods.Container }

// ExecInContainer implements remotecommand.Executor.
func (e executor) ExecInContainer(ctx context.Context, _, _, _ string, cmd []string, in io.Reader, out, errw io.WriteCloser,
	tty bool, _ <-chan remotecommand.TerminalSize, _ time.Duration,
) error {
	if tty {
		return errors.New("the lab node agent has no terminals: leave -t out")
	}
	std := container.Streams{In: in}
	if out != nil {
		defer out.Close()
		std.Out = out
	}
	if errw != nil {
		defer errw.Close()
		std.Err = errw
	}
	code, err := e.c.Exec(ctx, cmd, std)
	if err != nil {
		return err
	}
	if code != 0 {
		return utilexec.CodeExitError{Err: fmt.Errorf("exit code %d", code), Code: code}
	}
	return nil
}

func (s *Server) exec(w http.ResponseWriter, r *http.Request) {
	c := s.find(w, r)
	if c == nil {
		return
	}
	cmd := r.URL.Query()["command"]
	if len(cmd) == 0 {
		http.Error(w, "no command", http.StatusBadRequest)
		return
	}
	o, err := remotecommand.NewOptions(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	remotecommand.ServeExec(w, r, executor{c}, "", "", "", cmd, o, 4*time.Hour, 30*time.Second, remotecommand.SupportedStreamingProtocols)
}

// logOptions are those of PodLogOptions that are answered.
type logOptions struct {
	follow, previous, timestamps bool
	tail                         int // lines, -1 for all
}

func parseLogOptions(r *http.Request) (logOptions, error) {
	o := logOptions{tail: -1}
	for k, v := range r.URL.Query() {
		var err error
		switch k {
		case "follow":
			o.follow, err = strconv.ParseBool(v[0])
		case "previous":
			o.previous, err = strconv.ParseBool(v[0])
		case "timestamps":
			o.timestamps, err = strconv.ParseBool(v[0])
		case "tailLines":
			o.tail, err = strconv.Atoi(v[0])
		default:
			err = errors.New("not supported by the lab node agent")
		}
		if err != nil {
			return o, fmt.Errorf("%s: %w", k, err)
		}
	}
	return o, nil
}

func (s *Server) logs(w http.ResponseWriter, r *http.Request) {
	c := s.find(w, r)
	if c == nil {
		return
	}
	o, err := parseLogOptions(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotImplemented)
		return
	}
	path, err := c.LogPath(o.previous)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	f, err := os.Open(path)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer f.Close()
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if err := o.copy(r.Context(), w, f, func() bool { return c.Running(path) }); err != nil {
		s.Log.Debug("logs", "err", err)
	}
}

// copy writes the log's text, and goes on with what comes while it grows and
// is followed.
func (o logOptions) copy(ctx context.Context, w http.ResponseWriter, f io.Reader, grows func() bool) error {
	b, err := io.ReadAll(f)
	if err != nil {
		return err
	}
	lines := bytes.SplitAfter(b, []byte("\n"))
	if o.tail >= 0 {
		// The last element is what comes after the last line's end.
		lines = lines[max(0, len(lines)-1-o.tail):]
	}
	for _, l := range lines {
		if err := o.line(w, string(l)); err != nil {
			return err
		}
	}
	for r := bufio.NewReader(f); o.follow; {
		more := grows()
		l, err := r.ReadString('\n')
		if l != "" {
			if err := o.line(w, l); err != nil {
				return err
			}
			continue
		}
		if !more || !errors.Is(err, io.EOF) {
			return err
		}
		if err := http.NewResponseController(w).Flush(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
	return nil
}

func (o logOptions) line(w io.Writer, l string) error {
	parts := strings.SplitN(l, " ", 4)
	if len(parts) < 4 {
		return nil
	}
	text := parts[3]
	if o.timestamps {
		text = parts[0] + " " + text
	}
	if parts[2] == "P" {
		text = strings.TrimSuffix(text, "\n")
	}
	_, err := io.WriteString(w, text)
	return err
}
