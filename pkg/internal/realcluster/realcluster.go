// SPDX-License-Identifier: Apache-2.0

// Package realcluster has what the real kube-proxy wrote in a node of the lab, and its
// API's objects, for tests of packages that stand beside pkg/kubeproxy, whose testdata
// they are.
package realcluster

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path"
	"sync"

	"k8s.io/client-go/rest"

	"github.com/svcscope/svcscope/pkg/internal/iptsave"
	"github.com/svcscope/svcscope/pkg/kube"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/ruleset"
	"github.com/svcscope/svcscope/pkg/service"
)

// Dir is where the captures are.
const Dir = "../kubeproxy/testdata/kube-proxy-1.37.2/"

// Rules is one of the captures.
type Rules struct {
	File    string
	Backend ruleset.Backend
	Family  netfilter.Family
}

// All returns the captures of both backends and families.
func All() []Rules {
	return []Rules{
		{"iptables-nft.ipv4.save", ruleset.NFT, netfilter.IPv4},
		{"iptables-legacy.ipv4.save", ruleset.Legacy, netfilter.IPv4},
		{"iptables-nft.ipv6.save", ruleset.NFT, netfilter.IPv6},
		{"iptables-legacy.ipv6.save", ruleset.Legacy, netfilter.IPv6},
	}
}

// Text is what iptables-save had printed.
func (r Rules) Text() (string, error) {
	text, err := os.ReadFile(Dir + r.File)
	return string(text), err
}

// Set is the rules.
func (r Rules) Set() (*ruleset.Ruleset, error) {
	text, err := r.Text()
	if err != nil {
		return nil, err
	}
	return iptsave.Parse(r.Family, r.Backend, text)
}

// Catalog has the API's objects of the captures, through the watch of pkg/kube, as the
// node node1 sees them. It is the same each time.
func Catalog() (*service.Catalog, error) { return catalog() }

var catalog = sync.OnceValues(func() (*service.Catalog, error) {
	text, err := os.ReadFile(Dir + "objects.json")
	if err != nil {
		return nil, err
	}
	var all struct{ Items []json.RawMessage }
	if err := json.Unmarshal(text, &all); err != nil {
		return nil, err
	}
	lists := objects{}
	for _, item := range all.Items {
		var o struct{ Kind string }
		if err := json.Unmarshal(item, &o); err != nil {
			return nil, err
		}
		lists[o.Kind] = append(lists[o.Kind], item)
	}
	w, err := kube.New(kube.Config{REST: &rest.Config{Host: "http://api.invalid", Transport: lists}, NodeName: "node1"})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	for !w.Synced() {
		<-w.Changed()
	}
	cancel()
	return w.Catalog(), <-done
})

// objects are an API without a network: it has lists, and watches in which nothing happens.
type objects map[string][]json.RawMessage

func (o objects) RoundTrip(r *http.Request) (*http.Response, error) {
	resp := &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"application/json"}}, Request: r}
	kind := map[string]string{"services": "Service", "endpointslices": "EndpointSlice", "nodes": "Node"}[path.Base(r.URL.Path)]
	version := "v1"
	if kind == "EndpointSlice" {
		version = "discovery.k8s.io/v1"
	}
	body := map[string]any{
		"kind": kind + "List", "apiVersion": version, "metadata": map[string]string{"resourceVersion": "1"}, "items": o[kind],
	}
	switch query := r.URL.Query(); {
	case query.Get("sendInitialEvents") != "": // an older server
		resp.StatusCode = http.StatusUnprocessableEntity
		body = map[string]any{"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Invalid", "code": resp.StatusCode}
	case query.Get("watch") != "":
		out, in := io.Pipe()
		context.AfterFunc(r.Context(), func() { _ = in.Close() })
		resp.Body = out
		return resp, nil
	}
	text, err := json.Marshal(body)
	resp.Body = io.NopCloser(bytes.NewReader(text))
	return resp, err
}
