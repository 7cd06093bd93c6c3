// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"net/http"
	"testing"

	"k8s.io/client-go/rest"
)

// TestConnectionsArePinged: client-go wraps the transport that has to ask, and shares the
// one of all clients without TLS, which is not ours.
func TestConnectionsArePinged(t *testing.T) {
	var asks *http.Transport
	cfg := &rest.Config{Host: "https://127.0.0.1:1", BearerToken: "x", TLSClientConfig: rest.TLSClientConfig{Insecure: true}}
	cfg.Wrap(func(rt http.RoundTripper) http.RoundTripper {
		for inner := pinged(rt); ; {
			if plain, ok := inner.(*http.Transport); ok {
				asks = plain
				return rt
			}
			inner = inner.(interface{ WrappedRoundTripper() http.RoundTripper }).WrappedRoundTripper()
		}
	})
	if _, err := rest.HTTPClientFor(cfg); err != nil {
		t.Fatal(err)
	}
	if asks == nil || asks.HTTP2 == nil || asks.HTTP2.SendPingTimeout != pingAfter || asks.HTTP2.PingTimeout != pingTimeout {
		t.Errorf("the transport does not ask: %+v", asks)
	}
	if pinged(http.DefaultTransport); http.DefaultTransport.(*http.Transport).HTTP2 != nil {
		t.Error("the transport of all was changed")
	}
}
