// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/client-go/rest"

	"github.com/svcscope/svcscope/pkg/service"
)

// newsOf writes an answer in one line.
func newsOf(c Changes) string {
	var out []string
	for _, s := range c.Services {
		out = append(out, s.Name.String())
	}
	if c.All {
		out = append(out, "all")
	}
	return fmt.Sprint(out)
}

func TestNewsNamesTheServiceThatChanged(t *testing.T) {
	ts := newTables("node-1")
	ts.setService(convertService(apiService("a", "web", "10.0.0.1")))
	foreign := apiService("a", "foreign", "10.0.0.9")
	foreign.Labels = map[string]string{labelProxyName: "other"}
	ts.setService(convertService(foreign))
	v := ts.news.version
	for k := range kinds {
		ts.hasListed(k)
	}
	if got := newsOf(ts.news.since(v)); got != "[all]" {
		t.Errorf("the first list is %s, want one piece of news", got)
	}
	steps := []struct {
		what   string
		change func()
		want   string
	}{
		{"a new Service", func() { ts.setService(convertService(apiService("b", "dns", "10.0.0.2"))) }, "[b/dns]"},
		{"the same again", func() { ts.setService(convertService(apiService("b", "dns", "10.0.0.2"))) }, "[]"},
		{"a status", func() {
			s := apiService("b", "dns", "10.0.0.2")
			s.Annotations["note"] = "another"
			ts.setService(convertService(s))
		}, "[]"},
		{"its slice", func() { ts.setSlice(convertSlice(apiSlice("b", "dns", "x", "10.1.0.1"))) }, "[b/dns]"},
		{"the slice again", func() { ts.setSlice(convertSlice(apiSlice("b", "dns", "x", "10.1.0.1"))) }, "[]"},
		{"a slice that comes before its Service", func() { ts.setSlice(convertSlice(apiSlice("b", "early", "x", "10.1.0.1"))) }, "[b/early]"},
		{"two, the one that changed again last", func() {
			ts.setSlice(convertSlice(apiSlice("a", "web", "x", "10.1.0.1")))
			ts.setSlice(convertSlice(apiSlice("b", "dns", "x", "10.1.0.2")))
			ts.deleteSlice(service.Name{Namespace: "a", Name: "web-x"})
		}, "[b/dns a/web]"},
		{"a slice of a Service of another proxy", func() { ts.setSlice(convertSlice(apiSlice("a", "foreign", "x", "10.1.0.1"))) }, "[]"},
		{"a headless Service", func() { ts.setService(convertService(apiService("a", "none", "None"))) }, "[]"},
		{"one that becomes headless", func() { ts.setService(convertService(apiService("a", "web", "None"))) }, "[a/web]"},
		{"a slice that moves", func() {
			s := apiSlice("b", "dns", "x", "10.1.0.2")
			s.Labels["kubernetes.io/service-name"] = "early"
			ts.setSlice(convertSlice(s))
		}, "[b/dns b/early]"},
		{"a relist without one", func() { ts.replaceServices([]*service.Service{convertService(apiService("a", "web", "None"))}) }, "[b/dns]"},
		{"the node", func() { ts.setNode(convertNode(apiNode("node-1"))) }, "[]"},
	}
	for _, s := range steps {
		v := ts.news.version
		s.change()
		if got := newsOf(ts.news.since(v)); got != s.want {
			t.Errorf("%s: %s, want %s", s.what, got, s.want)
		}
	}
}

func TestNewsIsBounded(t *testing.T) {
	ts := newTables("node-1")
	ts.listed = [kinds]bool{true, true, true}
	start := ts.news.version
	for range 3 * maxNews { // few Services, many changes
		for _, ip := range []string{"10.0.0.1", "10.0.0.2"} {
			ts.setService(convertService(apiService("a", "web", ip)))
		}
	}
	if got := newsOf(ts.news.since(start)); got != "[a/web]" {
		t.Errorf("one Service that changes often: %s", got)
	}
	for i := range 3 * maxNews {
		ts.setService(convertService(apiService("a", fmt.Sprintf("s%05d", i), "10.0.0.1")))
	}
	if n := len(ts.news.list); n > maxNews || cap(ts.news.list) > 2*maxNews {
		t.Errorf("%d changes are kept, in room for %d", n, cap(ts.news.list))
	}
	if c := ts.news.since(start); !c.All {
		t.Error("changes were forgotten, but the answer claims to be complete")
	}
	last := ts.news.version
	ts.setService(convertService(apiService("a", "web", "10.0.0.3")))
	if got := newsOf(ts.news.since(last)); got != "[a/web]" {
		t.Errorf("after many changes: %s", got)
	}
	// Every version from "from" on is answered completely.
	c := ts.news.since(ts.news.from)
	if c.All || len(c.Services) != len(ts.news.list) {
		t.Errorf("since the oldest version known: %d of %d, all %v", len(c.Services), len(ts.news.list), c.All)
	}
}

func TestChangesAreAnnounced(t *testing.T) {
	f := newFakeAPI(t)
	fill(f)
	w := start(t, f, nil)
	until(t, w, "first list", says(w, webOnly))
	first := w.ChangedSince(0)
	if !first.All || w.Catalog().Version != first.Version {
		t.Errorf("after the first list: %+v, catalog version %d", first, w.Catalog().Version)
	}
	select {
	case <-w.Announced():
	default:
		t.Error("the first list was not announced")
	}
	before := time.Now()
	f.put(apiService("b", "dns", "10.0.0.2"), apiSlice("b", "dns", "x", "10.1.0.3", "10.1.0.2"))
	var c Changes
	for c.Version < first.Version+2 {
		select {
		case <-w.Announced():
			c = w.ChangedSince(first.Version)
		case <-time.After(20 * time.Second):
			t.Fatalf("not announced: %+v", c)
		}
	}
	if got := newsOf(c); got != "[b/dns]" {
		t.Errorf("changed: %s, want [b/dns]", got)
	}
	if d := c.Services[0].Seen.Sub(before); d < 0 || d > time.Minute {
		t.Errorf("seen %v after the change was made", d)
	}
	until(t, w, "catalog", func() bool { return w.Catalog().Version >= c.Version })
	if got := describe(w.Catalog()); got != webDNS {
		t.Errorf("the catalog of that version: %s", got)
	}
}

// TestAnnouncedBeforeTheCatalog has no API: the builder alone, in a bubble of
// time.
func TestAnnouncedBeforeTheCatalog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, err := New(Config{REST: &rest.Config{Host: "http://192.0.2.1"}})
		if err != nil {
			t.Fatal(err)
		}
		w.apply(func(t *tables) {
			for k := range kinds {
				t.hasListed(k)
			}
		})
		<-w.Announced()
		began, old := time.Now(), w.Catalog().Version
		v := w.ChangedSince(0).Version
		time.Sleep(time.Second)
		w.apply(func(t *tables) { t.setService(convertService(apiService("a", "web", "10.0.0.1"))) })
		<-w.Announced()
		c := w.ChangedSince(v)
		want := []Change{{service.Name{Namespace: "a", Name: "web"}, began.Add(time.Second)}}
		if diff := cmp.Diff(want, c.Services); diff != "" || c.All {
			t.Errorf("all %v (-want +got):\n%s", c.All, diff)
		}
		if w.Catalog().Version != old {
			t.Error("no builder runs, but there is a new catalog")
		}
		w.apply(func(t *tables) { t.setNode(convertNode(apiNode(""))) })
		select {
		case <-w.Announced():
			t.Error("announced what no rule follows")
		default:
		}
		if c := w.ChangedSince(c.Version); len(c.Services) > 0 || c.All {
			t.Errorf("the node: %s", newsOf(c))
		}
	})
}
