// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"

	"github.com/svcscope/svcscope/pkg/service"
)

// start runs a Watcher with short waits until the test ends.
func start(t *testing.T, f *fakeAPI, change func(*Config)) *Watcher {
	t.Helper()
	cfg := Config{
		REST: f.config(), NodeName: "node-1",
		settle: time.Millisecond, interval: time.Millisecond,
		backoff: &wait.Backoff{Duration: 5 * time.Millisecond, Factor: 1, Steps: 1},
	}
	if change != nil {
		change(&cfg)
	}
	w, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return w
}

// until waits for ok, which is asked after every change.
func until(t *testing.T, w *Watcher, what string, ok func() bool) {
	t.Helper()
	limit := time.After(20 * time.Second)
	for !ok() {
		select {
		case <-w.Changed():
		case <-limit:
			t.Fatalf("not in time: %s; state %+v, catalog %s", what, w.State(), describe(w.Catalog()))
		}
	}
}

// describe is the catalog in one line.
func describe(c *service.Catalog) string {
	var out []string
	for _, s := range c.Services {
		for i := range s.Ports {
			var eps []string
			for _, ipv6 := range []bool{false, true} {
				for _, e := range c.EndpointsOf(s.PortName(&s.Ports[i]), ipv6) {
					eps = append(eps, e.Addr.String())
				}
			}
			out = append(out, fmt.Sprintf("%s=[%s]", s.PortName(&s.Ports[i]), strings.Join(eps, " ")))
		}
	}
	return strings.Join(out, " ")
}

func says(w *Watcher, want string) func() bool {
	return func() bool { return w.State().Current && describe(w.Catalog()) == want }
}

const (
	webOnly = "a/web:http=[10.1.0.1:8080]"
	webDNS  = "a/web:http=[10.1.0.1:8080] b/dns:http=[10.1.0.2:8080 10.1.0.3:8080]"
)

func fill(f *fakeAPI) {
	f.put(apiNode("node-1"), apiNode("node-2"),
		apiService("a", "web", "10.0.0.1"), apiSlice("a", "web", "x", "10.1.0.1"))
}

// useWatches sends an event over each watch: client-go lists anew after a watch
// of less than a second that had none.
func useWatches(t *testing.T, f *fakeAPI, w *Watcher) {
	t.Helper()
	n := apiNode("node-1")
	n.Labels[corev1.LabelTopologyZone] = "zone-b"
	f.put(n, apiService("b", "dns", "10.0.0.2"), apiSlice("b", "dns", "x", "10.1.0.3", "10.1.0.2"))
	until(t, w, "events", func() bool { return says(w, webDNS)() && w.Catalog().Node.Zone == "zone-b" })
	f.asked()
}

func TestWatchStreams(t *testing.T) {
	f := newFakeAPI(t)
	fill(f)
	headless := apiSlice("a", "none", "x", "10.1.0.9")
	headless.Labels[corev1.IsHeadlessService] = ""
	f.put(headless)
	w := start(t, f, nil)
	until(t, w, "first list", says(w, webOnly))
	want := []string{"stream endpointslices", "stream nodes", "stream services"}
	if diff := cmp.Diff(want, sorted(f.asked())); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
	c := w.Catalog()
	if n := c.Node; n.Name != "node-1" || n.Zone != "zone-a" || fmt.Sprint(n.IPs) != "[192.0.2.1]" {
		t.Errorf("node: %+v", n)
	}
	none := service.PortName{Name: service.Name{Namespace: "a", Name: "none"}, Port: "http", Protocol: service.TCP}
	if eps := c.EndpointsOf(none, false); len(eps) > 0 {
		t.Errorf("slices of headless Services are not asked for, but one has %v", eps)
	}

	f.put(apiService("b", "dns", "10.0.0.2"), apiSlice("b", "dns", "x", "10.1.0.3", "10.1.0.2"))
	until(t, w, "added", says(w, webDNS))
	if got := describe(c); got != webOnly {
		t.Errorf("an older catalog changed: %s", got)
	}
	f.put(apiSlice("a", "web", "x", "10.1.0.7", "10.1.0.1"))
	until(t, w, "modified", func() bool { return strings.Contains(describe(w.Catalog()), "10.1.0.7") })
	f.remove(apiService("b", "dns", ""))
	f.remove(apiSlice("b", "dns", "x"))
	f.put(apiSlice("a", "web", "x", "10.1.0.1"))
	until(t, w, "deleted", says(w, webOnly))
	f.remove(apiNode("node-1"))
	until(t, w, "node deleted", func() bool { return w.Catalog().Node.Zone == "" })
	if got := w.Catalog().Node.Name; got != "node-1" {
		t.Errorf("the node's name went with its object: %q", got)
	}
	if got := f.asked(); len(got) != 0 {
		t.Errorf("asked again: %v", got)
	}
}

func TestServerWithoutStreamingLists(t *testing.T) {
	f := newFakeAPI(t)
	f.noStreaming = true
	fill(f)
	var log logBuffer
	w := start(t, f, func(c *Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	until(t, w, "first list", says(w, webOnly))
	if log.count("lost") > 0 {
		t.Errorf("an older server is logged as a loss:\n%s", log.String())
	}
	asked := f.asked()
	for _, r := range []string{"list services", "watch services", "list endpointslices", "list nodes"} {
		if !slices.Contains(asked, r) {
			t.Errorf("no %q in %v", r, asked)
		}
	}
	f.put(apiService("b", "dns", "10.0.0.2"), apiSlice("b", "dns", "x", "10.1.0.3", "10.1.0.2"))
	until(t, w, "added", says(w, webDNS))
}

func TestCutWatchGoesOnWhereItWas(t *testing.T) {
	f := newFakeAPI(t)
	fill(f)
	w := start(t, f, nil)
	until(t, w, "first list", says(w, webOnly))
	useWatches(t, f, w)
	f.cut()
	f.remove(apiService("b", "dns", ""))
	f.remove(apiSlice("b", "dns", "x"))
	until(t, w, "change during the cut", says(w, webOnly))
	for _, r := range f.asked() {
		if !strings.HasPrefix(r, "watch ") {
			t.Errorf("%s: everything was listed again", r)
		}
	}
}

func TestStartJitter(t *testing.T) {
	f := newFakeAPI(t)
	fill(f)
	begin := time.Now()
	w := start(t, f, func(c *Config) { c.StartJitter = time.Hour })
	until(t, w, "waiting", func() bool { return !w.State().WaitUntil.IsZero() })
	if d := w.State().WaitUntil.Sub(begin); d < 0 || d > time.Hour+time.Minute {
		t.Errorf("waits %v", d)
	}
	if got := f.asked(); len(got) > 0 {
		t.Errorf("asked %v while waiting", got)
	}
	// The end of the test proves that Run does not sit the hour out.

	short := start(t, f, func(c *Config) { c.StartJitter = time.Millisecond })
	until(t, short, "first list after a short jitter", says(short, webOnly))
	if !short.State().WaitUntil.IsZero() {
		t.Errorf("still waiting: %+v", short.State())
	}
}

func TestRunEnds(t *testing.T) {
	for _, up := range []bool{true, false} {
		f := newFakeAPI(t)
		fill(f)
		if !up {
			f.down()
		}
		hour := &wait.Backoff{Duration: time.Hour, Steps: 1}
		w, err := New(Config{REST: f.config(), settle: time.Millisecond, backoff: hour})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- w.Run(ctx) }()
		until(t, w, "sync or failure", func() bool { s := w.State(); return s.Current || s.Err != "" })
		if err := w.Run(ctx); err == nil {
			t.Error("Run twice: no error")
		}
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("up %v: Run does not end", up)
		}
	}
}

func TestNewErrors(t *testing.T) {
	if _, err := New(Config{}); err == nil {
		t.Error("no REST config: no error")
	}
	cfg := newFakeAPI(t).config()
	if _, err := New(Config{REST: cfg, Pods: true}); err == nil {
		t.Error("pods of no node: no error")
	}
	cfg.TLSClientConfig.CAFile = "/nonexistent/ca.crt"
	if _, err := New(Config{REST: cfg}); err == nil || !strings.Contains(err.Error(), "build API client") {
		t.Errorf("missing CA: %v", err)
	}
}

// TestChangesAreCoalesced has no API: the builder alone, in a bubble of time.
func TestChangesAreCoalesced(t *testing.T) {
	f := newFakeAPI(t)
	cfg := Config{REST: f.config(), NodeName: "node-1"}
	synctest.Test(t, func(t *testing.T) {
		w, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go w.build(ctx)
		add := func(name string) {
			w.apply(func(t *tables) { t.setService(convertService(apiService("a", name, "10.0.0.1"))) })
		}
		add("s0")
		time.Sleep(time.Minute)
		if w.Synced() {
			t.Fatal("a catalog before the lists are complete")
		}
		w.apply(func(t *tables) { t.listed = [kinds]bool{true, true, true} })
		time.Sleep(time.Minute)
		if !w.Synced() || len(w.Catalog().Services) != 1 {
			t.Fatalf("no catalog: %s", describe(w.Catalog()))
		}
		catalogs := map[*service.Catalog]bool{}
		for i := range 1000 { // one change every 10 ms, 10 s in all
			add(fmt.Sprintf("s%d", i+1))
			time.Sleep(10 * time.Millisecond)
			catalogs[w.Catalog()] = true
		}
		time.Sleep(2 * time.Second)
		if n := len(w.Catalog().Services); n != 1001 {
			t.Errorf("%d Services, want 1001", n)
		}
		if n := len(catalogs); n < 9 || n > 12 {
			t.Errorf("%d catalogs in 10 s, want one a second", n)
		}
		last := w.Catalog()
		add("s1")
		time.Sleep(time.Minute)
		if w.Catalog() != last {
			t.Error("a new catalog for a change that changes nothing")
		}
		cancel()
		synctest.Wait()
	})
}

func TestReadersDoNotAllocate(t *testing.T) {
	w, err := New(Config{REST: newFakeAPI(t).config()})
	if err != nil {
		t.Fatal(err)
	}
	var sink State
	if n := testing.AllocsPerRun(100, func() {
		sink = w.State()
		if w.Catalog() == nil || w.Synced() {
			t.Error("want an empty catalog")
		}
	}); n != 0 {
		t.Errorf("%v allocations, want none; state %+v", n, sink)
	}
}

// TestStartJitterIsSpread takes many draws: the largest of 30 is below a
// quarter of the jitter once in 10^18 times.
func TestStartJitterIsSpread(t *testing.T) {
	const jitter = time.Hour
	synctest.Test(t, func(t *testing.T) {
		var least, most time.Duration = jitter, 0
		for range 30 {
			w, err := New(Config{REST: &rest.Config{Host: "http://192.0.2.1"}, StartJitter: jitter})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			begin := time.Now()
			go w.holdBack(ctx)
			synctest.Wait()
			d := w.State().WaitUntil.Sub(begin)
			least, most = min(least, d), max(most, d)
			cancel()
			synctest.Wait()
		}
		if least < 0 || most > jitter || most < jitter/4 || least > jitter*3/4 {
			t.Errorf("30 waits are from %v to %v: not spread over %v", least, most, jitter)
		}
	})
}
