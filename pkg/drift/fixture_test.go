// SPDX-License-Identifier: Apache-2.0

package drift

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path"
	"sync"
	"testing"

	"k8s.io/client-go/rest"

	"github.com/svcscope/svcscope/pkg/internal/iptsave"
	"github.com/svcscope/svcscope/pkg/kube"
	"github.com/svcscope/svcscope/pkg/kubeproxy"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/ruleset"
	"github.com/svcscope/svcscope/pkg/service"
)

// captured is what the real kube-proxy wrote, and its API's objects.
const captured = "../kubeproxy/testdata/kube-proxy-1.37.2/"

// fixture is one of the captures.
type fixture struct {
	file    string
	backend ruleset.Backend
	family  netfilter.Family
}

var fixtures = []fixture{
	{"iptables-nft.ipv4.save", ruleset.NFT, netfilter.IPv4},
	{"iptables-legacy.ipv4.save", ruleset.Legacy, netfilter.IPv4},
	{"iptables-nft.ipv6.save", ruleset.NFT, netfilter.IPv6},
	{"iptables-legacy.ipv6.save", ruleset.Legacy, netfilter.IPv6},
}

func (f fixture) text(t testing.TB) string {
	t.Helper()
	text, err := os.ReadFile(captured + f.file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// rules makes Rules of iptables-save's text.
func (f fixture) rules(t testing.TB, text string) Rules {
	t.Helper()
	rs, err := iptsave.Parse(f.family, f.backend, text)
	if err != nil {
		t.Fatal(err)
	}
	return Rules{View: kubeproxy.NewView(rs), Set: rs}
}

// forget drops the rules of endpoints' chains, as readings of nf_tables do once the View
// knows them.
func forget(r Rules) Rules {
	nat := r.Set.Table("nat")
	if nat == nil {
		return r
	}
	for _, c := range nat.Chains {
		if kind, _ := kubeproxy.ParseChain(c.Name); kind == kubeproxy.KindEndpoint {
			c.Rules, c.Unread = nil, true
		}
	}
	return r
}

// catalogOf has the API's objects of the captures, through the watch of pkg/kube.
var catalogOf = sync.OnceValues(func() (*service.Catalog, error) {
	text, err := os.ReadFile(captured + "objects.json")
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

func catalog(t testing.TB) *service.Catalog {
	t.Helper()
	c, err := catalogOf()
	if err != nil {
		t.Fatal(err)
	}
	return c
}
