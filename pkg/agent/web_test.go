// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/svcscope/svcscope/pkg/correlate"
)

// ask requests path; header is a header's name and value, or nothing.
func ask(h http.Handler, path, remote string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, path, nil)
	r.RemoteAddr, r.Host = remote, "127.0.0.1:10988"
	if len(header) == 2 {
		r.Header.Set(header[0], header[1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestWhoMayReadTheAPI(t *testing.T) {
	tests := []struct {
		exposure APIExposure
		remote   string
		want     int
	}{
		{APILoopback, "127.0.0.1:4711", http.StatusOK},
		{APILoopback, "[::1]:4711", http.StatusOK},
		{APILoopback, "[::ffff:127.0.0.1]:4711", http.StatusOK},
		{APILoopback, "192.0.2.1:4711", http.StatusForbidden},
		{APILoopback, "garbage", http.StatusForbidden},
		{APIAll, "192.0.2.1:4711", http.StatusOK},
		{APINever, "127.0.0.1:4711", http.StatusNotFound},
	}
	for _, tt := range tests {
		s := fakeSampler(&fakeBackend{answers: []answer{{set: webRules(t, "1", "0")}}}, nil, nil)
		s.cfg.API = tt.exposure
		s.pass(t.Context())
		pages, err := newPages(s)
		if err != nil {
			t.Fatal(err)
		}
		if got := ask(pages, "/api/v1/services", tt.remote); got.Code != tt.want {
			t.Errorf("--web.api=%s from %s: %d, want %d", tt.exposure, tt.remote, got.Code, tt.want)
		}
		if got := ask(pages, "/metrics", tt.remote); got.Code != http.StatusOK {
			t.Errorf("metrics from %s: %d", tt.remote, got.Code)
		}
	}
}

func TestPages(t *testing.T) {
	s := fakeSampler(&fakeBackend{answers: []answer{{set: webRules(t, "1", "0")}}}, nil, nil)
	pages, err := newPages(s)
	if err != nil {
		t.Fatal(err)
	}
	const here = "127.0.0.1:4711"
	if got := ask(pages, "/api/v1/services", here); got.Code != http.StatusServiceUnavailable {
		t.Errorf("before the first reading: %d", got.Code)
	}
	s.pass(t.Context())
	var report correlate.ServicesReport
	got := ask(pages, "/api/v1/services", here)
	if err := json.Unmarshal(got.Body.Bytes(), &report); err != nil {
		t.Fatal(err)
	}
	if len(report.Items) != 1 || report.Items[0].Name != "web" || report.Node != "node-a" || report.Source != correlate.SourceAgent {
		t.Errorf("report %+v", report)
	}
	if got := ask(pages, "/", here); got.Code != http.StatusOK || !strings.Contains(got.Body.String(), "/metrics") {
		t.Errorf("page: %d %s", got.Code, got.Body)
	}
	if got := ask(pages, "/nothing", here); got.Code != http.StatusNotFound {
		t.Errorf("/nothing: %d", got.Code)
	}
}

// slowReader takes nothing of an answer before it is told to.
type slowReader struct {
	*httptest.ResponseRecorder
	reached chan<- struct{}
	read    <-chan struct{}
}

func (w slowReader) Write(b []byte) (int, error) {
	w.reached <- struct{}{}
	<-w.read
	return w.ResponseRecorder.Write(b)
}

func TestReportsAtATimeAreBounded(t *testing.T) {
	s := fakeSampler(&fakeBackend{answers: []answer{{set: webRules(t, "1", "0")}}}, nil, nil)
	s.pass(t.Context())
	pages, err := newPages(s)
	if err != nil {
		t.Fatal(err)
	}
	const path, here, elsewhere = "/api/v1/services", "127.0.0.1:4711", "192.0.2.1:4711"
	reached, read := make(chan struct{}), make(chan struct{})
	var slow sync.WaitGroup
	for range maxReports {
		slow.Go(func() {
			r := httptest.NewRequest(http.MethodGet, path, nil)
			r.RemoteAddr, r.Host = here, "127.0.0.1:10988"
			w := slowReader{httptest.NewRecorder(), reached, read}
			if pages.ServeHTTP(w, r); w.Code != http.StatusOK {
				t.Errorf("a slow reader gets %d", w.Code)
			}
		})
		<-reached
	}
	if got := ask(pages, path, here); got.Code != http.StatusServiceUnavailable || !strings.Contains(got.Body.String(), "try again") {
		t.Errorf("one more: %d %s, want 503", got.Code, got.Body)
	}
	if got := ask(pages, path, elsewhere); got.Code != http.StatusForbidden {
		t.Errorf("from elsewhere: %d, want 403 as ever", got.Code)
	}
	if got := ask(pages, "/metrics", here); got.Code != http.StatusOK {
		t.Errorf("metrics: %d", got.Code)
	}
	close(read)
	slow.Wait()
	for range 2 * maxReports { // who may not read, and who is done, takes no place
		if got := ask(pages, path, elsewhere); got.Code != http.StatusForbidden {
			t.Errorf("from elsewhere: %d, want 403", got.Code)
		}
		if got := ask(pages, path, here); got.Code != http.StatusOK {
			t.Fatalf("after they ended: %d, want 200", got.Code)
		}
	}
}

func TestHealth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newFakeWatcher()
		s := fakeSampler(&fakeBackend{answers: []answer{{set: webRules(t, "1", "0")}}}, w, nil)
		if err := s.kube.check(); err != nil {
			t.Fatal(err)
		}
		h := newHealth(s)
		expect := func(when, path string, code int, words ...string) {
			t.Helper()
			got := ask(h, path, "127.0.0.1:1")
			for _, word := range words {
				if !strings.Contains(got.Body.String(), word) {
					t.Errorf("%s: %s lacks %q:\n%s", when, path, word, got.Body)
				}
			}
			if got.Code != code {
				t.Errorf("%s: %s is %d, want %d:\n%s", when, path, got.Code, code, got.Body)
			}
		}
		expect("at the start", "/healthz", 200, "ok")
		expect("at the start", "/readyz", 503, "first reading is not complete")
		w.state = apiState{WaitUntil: time.Now().Add(20 * time.Second)}
		s.pass(t.Context())
		expect("held back", "/readyz", 200, "ready", "kube: first list in 20 seconds (--kube.start-jitter)", "legacy: ok")
		w.state = apiState{Err: "list services: connection refused"}
		expect("API away", "/readyz", 200, "kube: list services: connection refused")
		w.state = apiState{Synced: true, Current: true}
		expect("synced", "/readyz", 200, "kube: ok")
		w.state = apiState{Synced: true, Current: true, NodeMissing: true, Err: `node "node-a" does not exist in the API`}
		expect("a wrong name", "/readyz", 200, `kube: node "node-a" does not exist in the API`)
		s.pass(t.Context())
		if k := s.latest.Load().Kube; !k.NodeMissing || k.Err != w.state.Err {
			t.Errorf("snapshot with a wrong name: %+v", k)
		}
		time.Sleep(50 * time.Second)
		expect("a long pass", "/healthz", 200, "ok")
		time.Sleep(20 * time.Second)
		expect("the loop is stuck", "/healthz", 503, "stuck")

		s = fakeSampler(&fakeBackend{answers: []answer{{err: errNoHost}}}, nil, nil)
		s.sources[0].backend = &fakeBackend{answers: []answer{{err: errNoHost}}}
		s.pass(t.Context())
		h = newHealth(s)
		expect("no capability", "/readyz", 503, "have none of kube-proxy's", "legacy: "+errNoHost.Error(), "kube: not used")
		expect("no capability", "/healthz", 200, "ok")
	})
}

func TestHealthIgnoresTheWallClock(t *testing.T) {
	s := fakeSampler(&fakeBackend{answers: []answer{{set: webRules(t, "1", "0")}}}, nil, nil)
	h := &health{sampler: s, started: time.Now()}
	before := time.Now()
	s.pass(t.Context())
	got := h.lastEnd()
	if !strings.Contains(got.String(), " m=") { // time.Time.String shows the monotonic reading
		t.Errorf("%v is of the wall clock", got)
	}
	if got.Before(before) || got.After(time.Now()) {
		t.Errorf("the pass ended at %v, want after %v", got, before)
	}
}

func TestValidate(t *testing.T) {
	tests := []struct {
		flag   string
		change func(*Config)
	}{
		{"--web.listen-address", func(c *Config) { c.ListenAddresses = nil }},
		{"--web.listen-address", func(c *Config) { c.ListenAddresses = []string{"10988"} }},
		{"--web.listen-address", func(c *Config) { c.ListenAddresses = []string{"[]:10988"} }},
		{"--web.health-address", func(c *Config) { c.HealthAddress = "nowhere" }},
		{"--web.health-address", func(c *Config) { c.HealthAddress = "[]:10989" }},
		{"--web.api", func(c *Config) { c.API = "some" }},
		{"--kube ", func(c *Config) { c.Kube = "maybe" }},
		{"--kube.start-jitter", func(c *Config) { c.StartJitter = -1 }},
		{"--interval", func(c *Config) { c.Interval = 0 }},
		{"--metrics.max-services", func(c *Config) { c.MaxServices = 0 }},
	}
	c := DefaultConfig()
	if err := c.Validate(); err != nil {
		t.Errorf("the defaults: %v", err)
	}
	for _, tt := range tests {
		c := DefaultConfig()
		tt.change(&c)
		if err := c.Validate(); err == nil || !strings.HasPrefix(err.Error(), tt.flag) {
			t.Errorf("got %v, want a complaint about %s", err, tt.flag)
		}
	}
}
