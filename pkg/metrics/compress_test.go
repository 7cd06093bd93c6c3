// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"compress/gzip"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

func TestNegotiateEncoding(t *testing.T) {
	offers := []encoding{{name: "zstd"}, {name: "gzip"}}
	tests := []struct {
		accept []string
		want   string
	}{
		{nil, identity},
		{[]string{""}, identity},
		{[]string{"gzip"}, "gzip"}, // Prometheus
		{[]string{"gzip, deflate, br, zstd"}, "zstd"},
		{[]string{"zstd;q=0.5, gzip"}, "gzip"},
		{[]string{"GZIP ; Q=0.5"}, "gzip"},
		{[]string{"deflate", "gzip"}, "gzip"},
		{[]string{"gzip;q=0"}, identity},
		{[]string{"gzip;q=0, *"}, "zstd"},
		{[]string{"*"}, "zstd"},
		{[]string{"*;q=0"}, identity},
		{[]string{"identity, gzip;q=0.5"}, identity},
		{[]string{"identity;q=0.5, gzip"}, "gzip"},
		{[]string{"identity;q=0, gzip;q=0.1"}, "gzip"},
		{[]string{"gzip;q=much"}, "gzip"},
		{[]string{"br"}, identity},
	}
	for _, tt := range tests {
		got := identity
		if e := negotiate(offers, tt.accept); e != nil {
			got = e.name
		}
		if got != tt.want {
			t.Errorf("%q: %s, want %s", tt.accept, got, tt.want)
		}
	}
}

// get asks h for a page in an encoding and returns the body as it comes.
func get(t *testing.T, h http.Handler, acceptedEncoding string) *httptest.ResponseRecorder {
	t.Helper()
	req := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil)
	req.Header.Set(acceptEncoding, acceptedEncoding)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, req)
	return w
}

func TestPageIsTheSameCompressed(t *testing.T) {
	h := Handler(NewRegistry(of(manyServices(7)), Config{}))
	want := get(t, h, identity)
	if got := want.Header().Get(contentEncoding); got != "" {
		t.Errorf("plain page says %q", got)
	}
	for name, open := range map[string]func(io.Reader) (io.Reader, error){
		"gzip": func(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) },
		"zstd": func(r io.Reader) (io.Reader, error) { return zstd.NewReader(r) },
	} {
		for range 3 { // the later ones with an encoder that was in use
			w := get(t, h, name)
			if got := w.Header().Get(contentEncoding); got != name {
				t.Fatalf("content encoding %q, want %s", got, name)
			}
			if vary := strings.Join(w.Header().Values("Vary"), ","); vary != "Accept-Encoding,Accept" {
				t.Errorf("Vary %q", vary)
			}
			r, err := open(w.Body)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(r)
			if err != nil {
				t.Fatal(err)
			}
			if string(body) != want.Body.String() {
				t.Errorf("%s: the page differs", name)
			}
		}
	}
}

func TestErrorsAreNotCompressed(t *testing.T) {
	h := compress(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "busy", http.StatusServiceUnavailable)
	}))
	w := get(t, h, "gzip")
	if w.Code != http.StatusServiceUnavailable || w.Header().Get(contentEncoding) != "" || w.Body.String() != "busy\n" {
		t.Errorf("status %d, %v: %q", w.Code, w.Header(), w.Body)
	}
}
