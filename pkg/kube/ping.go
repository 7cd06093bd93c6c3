// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"net/http"
	"time"

	utilnet "k8s.io/apimachinery/pkg/util/net"
)

// pingAfter is how long a connection to the API server may bring nothing before it is
// asked whether it is alive, and pingTimeout how long the answer may take. A watch
// whose connection is dead ends then. Client-go's own 30 and 15 seconds are longer than
// it takes to tell that rules are not what the API wants: those of a kube-proxy
// that hears what the agent does not.
const (
	pingAfter   = 5 * time.Second
	pingTimeout = 5 * time.Second
)

// pinged sets them in a client's transport.
func pinged(rt http.RoundTripper) http.RoundTripper {
	for inner := rt; inner != nil && inner != http.DefaultTransport; {
		if t, ok := inner.(*http.Transport); ok {
			t.HTTP2 = &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingTimeout}
			break
		}
		w, ok := inner.(utilnet.RoundTripperWrapper)
		if !ok {
			break
		}
		inner = w.WrappedRoundTripper()
	}
	return rt
}
