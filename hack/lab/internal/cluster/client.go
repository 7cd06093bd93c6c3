// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"
)

// Object is a Kubernetes object as JSON.
type Object = map[string]any

// Client speaks to the API server with a client certificate.
type Client struct {
	server string
	http   *http.Client
}

// StatusError is an answer of the API server other than success.
type StatusError struct {
	// Op is the method and path.
	Op string
	// Code is the HTTP status.
	Code int
	// Message is the server's.
	Message string
}

// Error implements error.
func (e *StatusError) Error() string { return fmt.Sprintf("%s: %d: %s", e.Op, e.Code, e.Message) }

// NewClient reads a kubeconfig that the lab wrote.
func NewClient(kubeconfig string) (*Client, error) {
	b, err := os.ReadFile(kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("kubeconfig: %w", err)
	}
	var k Kubeconfig
	if err := json.Unmarshal(b, &k); err != nil {
		return nil, fmt.Errorf("kubeconfig %s: %w", kubeconfig, err)
	}
	if len(k.Users) == 0 || len(k.Clusters) == 0 {
		return nil, fmt.Errorf("kubeconfig %s: no user or cluster", kubeconfig)
	}
	cert, err := tls.X509KeyPair(k.Users[0].User.CertData, k.Users[0].User.KeyData)
	if err != nil {
		return nil, fmt.Errorf("kubeconfig %s: %w", kubeconfig, err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(k.Clusters[0].Cluster.CAData)
	return &Client{
		server: k.Clusters[0].Cluster.Server,
		http: &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{
			TLSClientConfig: &tls.Config{Certificates: []tls.Certificate{cert}, RootCAs: roots},
		}},
	}, nil
}

// Apply makes or changes an object to be as given (server-side apply). path
// is the object's own, with "/status" for its status.
func (c *Client) Apply(ctx context.Context, path string, o Object) error {
	_, err := c.do(ctx, http.MethodPatch, path+"?fieldManager=lab&force=true", o)
	return err
}

// Put replaces an object by a changed one that Get returned.
func (c *Client) Put(ctx context.Context, path string, o Object) error {
	_, err := c.do(ctx, http.MethodPut, path, o)
	return err
}

// Get returns an object.
func (c *Client) Get(ctx context.Context, path string) (Object, error) {
	b, err := c.do(ctx, http.MethodGet, path, nil)
	if err != nil {
		return nil, err
	}
	var o Object
	if err := json.Unmarshal(b, &o); err != nil {
		return nil, fmt.Errorf("decode %s: %w", path, err)
	}
	return o, nil
}

// Delete removes an object. One that is not there is no error.
func (c *Client) Delete(ctx context.Context, path string) error {
	_, err := c.do(ctx, http.MethodDelete, path, nil)
	var se *StatusError
	if errors.As(err, &se) && se.Code == http.StatusNotFound {
		return nil
	}
	return err
}

// Ready reports whether the API server has finished starting.
func (c *Client) Ready(ctx context.Context) error {
	_, err := c.do(ctx, http.MethodGet, "/readyz", nil)
	return err
}

func (c *Client) do(ctx context.Context, method, path string, body Object) ([]byte, error) {
	op := method + " " + strings.SplitN(path, "?", 2)[0]
	var rd io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", op, err)
		}
		rd = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.server+path, rd)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	switch method {
	case http.MethodPut:
		req.Header.Set("Content-Type", "application/json")
	case http.MethodPatch:
		// JSON is YAML, and this is the type's only spelling before 1.36.
		req.Header.Set("Content-Type", "application/apply-patch+yaml")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	if resp.StatusCode/100 != 2 {
		var st struct {
			Message string `json:"message"`
		}
		if json.Unmarshal(b, &st) != nil || st.Message == "" {
			st.Message = string(bytes.TrimSpace(b))
		}
		return nil, &StatusError{Op: op, Code: resp.StatusCode, Message: st.Message}
	}
	return b, nil
}
