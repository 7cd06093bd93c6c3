// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/svcscope/svcscope/pkg/service"
)

func TestExpiredVersionListsAgain(t *testing.T) {
	for _, streaming := range []bool{true, false} {
		t.Run(fmt.Sprintf("streaming %v", streaming), func(t *testing.T) {
			f := newFakeAPI(t)
			f.noStreaming = !streaming
			fill(f)
			f.put(apiService("b", "dns", "10.0.0.2"), apiSlice("b", "dns", "x", "10.1.0.3", "10.1.0.2"))
			w := start(t, f, nil)
			until(t, w, "first list", says(w, webDNS))
			f.down()
			f.remove(apiService("b", "dns", ""))
			f.remove(apiSlice("b", "dns", "x"))
			f.expire()
			f.up()
			until(t, w, "what was deleted meanwhile is gone", says(w, webOnly))
		})
	}
}

func TestForbidden(t *testing.T) {
	for _, resource := range []string{"services", "endpointslices"} {
		for _, status := range []int{401, 403, 429, 503} {
			t.Run(fmt.Sprintf("%s %d", resource, status), func(t *testing.T) {
				f := newFakeAPI(t)
				fill(f)
				f.setFailure(resource, status)
				w := start(t, f, nil)
				until(t, w, "refusal", func() bool { return w.State().Err != "" })
				s := w.State()
				if s.Synced || s.Current || w.Catalog().Synced || len(w.Catalog().Services) > 0 {
					t.Errorf("synced without %s: %+v", resource, s)
				}
				if !strings.Contains(s.Err, resource) || !strings.Contains(s.Err, "by the fake") {
					t.Errorf("Err = %q: want operation, resource and cause", s.Err)
				}
				f.setFailure(resource, 0)
				until(t, w, "allowed", says(w, webOnly))
				if s := w.State(); s != (State{Synced: true, Current: true, ServicesCurrent: true}) {
					t.Errorf("state %+v", s)
				}
			})
		}
	}
}

func TestPlainListForbidden(t *testing.T) {
	f := newFakeAPI(t)
	f.noStreaming = true
	fill(f)
	f.setFailure("list services", 403)
	w := start(t, f, nil)
	until(t, w, "refusal", func() bool {
		return strings.HasPrefix(w.State().Err, "list services: forbidden")
	})
	f.setFailure("list services", 0)
	until(t, w, "allowed", says(w, webOnly))
}

func TestNotCurrentBetweenWatches(t *testing.T) {
	f := newFakeAPI(t)
	fill(f)
	w := start(t, f, nil)
	until(t, w, "first list", says(w, webOnly))
	w.report(slicesKind, event{op: "watch", end: true})
	if s := w.State(); s != (State{Synced: true}) {
		t.Errorf("a watch ended: %+v", s)
	}
	w.report(slicesKind, event{op: "list"})
	if s := w.State(); s.Current {
		t.Errorf("listed but not watched: %+v", s)
	}
	w.report(slicesKind, event{op: "watch"})
	if s := w.State(); s != (State{Synced: true, Current: true, ServicesCurrent: true}) {
		t.Errorf("watched again: %+v", s)
	}
}

func TestForbiddenNodeCostsOnlyTheNode(t *testing.T) {
	f := newFakeAPI(t)
	fill(f)
	f.setFailure("nodes", 403)
	w := start(t, f, nil)
	until(t, w, "catalog", func() bool { return w.Synced() && describe(w.Catalog()) == webOnly })
	until(t, w, "Services and endpoints are followed", func() bool { return w.State().ServicesCurrent })
	if s := w.State(); s.Current || !s.NodeRefused || !strings.Contains(s.Err, "node") {
		t.Errorf("state %+v", s)
	}
	if diff := cmp.Diff(service.Node{Name: "node-1"}, w.Catalog().Node); diff != "" {
		t.Errorf("node (-want +got):\n%s", diff)
	}
	f.setFailure("nodes", 0)
	until(t, w, "node", func() bool { return w.State().Current && !w.State().NodeRefused && w.Catalog().Node.Zone == "zone-a" })
}

func TestDownAtStart(t *testing.T) {
	f := newFakeAPI(t)
	fill(f)
	f.down()
	var log logBuffer
	w := start(t, f, func(c *Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	until(t, w, "refused connection", func() bool { return w.State().Err != "" })
	if s := w.State(); s.Synced || !strings.Contains(s.Err, "connection refused") || strings.Contains(s.Err, "http") {
		t.Errorf("state %+v", s)
	}
	f.up()
	until(t, w, "API came", says(w, webOnly))
	// An API that has not been there yet cannot be lost.
	for msg, want := range map[string]int{
		"kubernetes api not synced": 1, "kubernetes api synced": 1,
		"kubernetes api lost": 0, "kubernetes api back": 0,
	} {
		if got := log.count(msg); got != want {
			t.Errorf("%q logged %d times, want %d:\n%s", msg, got, want, log.String())
		}
	}
}

func TestNodeOfAnotherName(t *testing.T) {
	const missing = `node "node-3" does not exist in the API: is --node-name right?`
	for _, streaming := range []bool{true, false} {
		t.Run(fmt.Sprintf("streaming %v", streaming), func(t *testing.T) {
			f := newFakeAPI(t)
			f.noStreaming = !streaming
			fill(f)
			var log logBuffer
			f.mu.Lock() // it answers nothing
			w := start(t, f, func(c *Config) {
				c.NodeName = "node-3"
				c.Logger = slog.New(slog.NewTextHandler(&log, nil))
			})
			s := w.State()
			f.mu.Unlock()
			if s.NodeMissing {
				t.Errorf("before an answer: %+v", s)
			}
			until(t, w, "first list", says(w, webOnly))
			if s := w.State(); s != (State{Synced: true, Current: true, ServicesCurrent: true, NodeMissing: true, Err: missing}) {
				t.Errorf("no such Node: state %+v", s)
			}
			f.put(apiNode("node-3"))
			until(t, w, "the Node", func() bool { return w.State() == State{Synced: true, Current: true, ServicesCurrent: true} })
			f.remove(apiNode("node-3"))
			until(t, w, "no Node again", func() bool { return w.State().NodeMissing })
			if got := log.count("does not exist"); got != 2 || log.count("lost") != 0 {
				t.Errorf("want two warnings, one each time:\n%s", log.String())
			}
		})
	}
}

func TestNoNodeName(t *testing.T) {
	f := newFakeAPI(t)
	fill(f)
	w := start(t, f, func(c *Config) { c.NodeName = "" })
	until(t, w, "first list", says(w, webOnly))
	if s := w.State(); s != (State{Synced: true, Current: true, ServicesCurrent: true}) {
		t.Errorf("state %+v: no name cannot be a wrong one", s)
	}
}

func TestDownLater(t *testing.T) {
	f := newFakeAPI(t)
	fill(f)
	var log logBuffer
	w := start(t, f, func(c *Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	until(t, w, "first list", says(w, webOnly))
	useWatches(t, f, w)
	f.down()
	until(t, w, "loss", func() bool { return w.State().Err != "" })
	if s := w.State(); !s.Synced || s.Current {
		t.Errorf("state %+v: want synced, not current", s)
	}
	if got := describe(w.Catalog()); got != webDNS {
		t.Errorf("the catalog went with the API: %q", got)
	}
	f.remove(apiService("b", "dns", ""))
	f.remove(apiSlice("b", "dns", "x"))
	f.up()
	until(t, w, "back", says(w, webOnly))
	for _, r := range f.asked() {
		if !strings.HasPrefix(r, "watch ") {
			t.Errorf("%s: everything was listed again", r)
		}
	}
	for _, msg := range []string{"kubernetes api lost", "kubernetes api back"} {
		if got := log.count(msg); got != 1 {
			t.Errorf("%q logged %d times, want 1:\n%s", msg, got, log.String())
		}
	}
}

type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *logBuffer) count(s string) int { return strings.Count(l.String(), s) }
