// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/svcscope/svcscope/pkg/service"
)

// eventually waits for what no watcher tells of.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for limit := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

func eventsText(f *fakeAPI) []string {
	var all []string
	for _, e := range f.written() {
		o := e.InvolvedObject
		all = append(all, fmt.Sprintf("%s %s %s %s/%s %s by %s on %s: %s (%d)",
			e.Type, e.Reason, o.Kind, o.Namespace, o.Name, o.UID, e.Source.Component, e.Source.Host, e.Message, e.Count))
	}
	return all
}

var lossy = &service.Pod{Name: service.Name{Namespace: "shop", Name: "web-0"}, UID: "uid-web-0"}

// TestLost writes one Event of each pod and text, and counts on in it.
func TestLost(t *testing.T) {
	f := newFakeAPI(t)
	fill(f)
	w := start(t, f, func(c *Config) { withPods(c); c.Events = true })
	until(t, w, "first list", says(w, webOnly))
	since := time.Unix(1_700_000_000, 0)
	lost := func(what string, n uint64) { w.Lost(lossy, what, n, since) }
	lost("to this pod by policy a", 3)
	lost("to this pod by policy b: c", 1)
	lost("to this pod by policy a", 12)
	other := *lossy
	other.UID = "uid-of-the-next"
	w.Lost(&other, "to this pod by policy a", 1, since)
	lost("to this pod by policy a", 13)
	const head, tail = "Warning PacketsDropped Pod shop/web-0 ", " since 2023-11-14T22:13:20Z ("
	want := []string{
		head + "uid-web-0 by svcscope on node-1: to this pod by policy a: 13" + tail + "3)",
		head + "uid-web-0 by svcscope on node-1: to this pod by policy b: c: 1" + tail + "1)",
		head + "uid-of-the-next by svcscope on node-1: to this pod by policy a: 1" + tail + "1)",
	}
	eventually(t, "Events", func() bool { return f.writes() == 5 })
	if d := cmp.Diff(want, eventsText(f)); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	f.expireEvents()
	lost("to this pod by policy a", 14)
	eventually(t, "one that is made anew", func() bool { return len(f.written()) == 1 })
	if e := f.written()[0]; e.Message != "to this pod by policy a: 14 since 2023-11-14T22:13:20Z" || e.Count != 4 {
		t.Errorf("got %+v", e)
	}
	if e := f.written()[0]; e.ReportingController != component || e.ReportingInstance != "node-1" || e.FirstTimestamp.IsZero() || e.LastTimestamp.Before(&e.FirstTimestamp) {
		t.Errorf("got %+v", e)
	}
}

// TestLostWhileTheAPIIsAway is written when it is back, the newest of each.
func TestLostWhileTheAPIIsAway(t *testing.T) {
	f := newFakeAPI(t)
	fill(f)
	w := start(t, f, func(c *Config) { c.Events, c.retry = true, 5*time.Millisecond })
	until(t, w, "first list", says(w, webOnly))
	f.down()
	for n := range 3 * uint64(maxLost) { // more than wait
		w.Lost(lossy, "by policy a", n, time.Unix(0, 0))
	}
	eventually(t, "room", func() bool { return len(w.losses) == 0 })
	w.Lost(lossy, "by policy a", 7, time.Unix(0, 0))
	w.Lost(lossy, "by policy b", 8, time.Unix(0, 0))
	eventually(t, "room", func() bool { return len(w.losses) == 0 })
	f.up()
	var got []string
	eventually(t, "Events", func() bool {
		got = nil
		for _, e := range f.written() {
			got = append(got, e.Message)
		}
		return len(got) == 2
	})
	slices.Sort(got)
	want := []string{"by policy a: 7 since 1970-01-01T00:00:00Z", "by policy b: 8 since 1970-01-01T00:00:00Z"}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

// TestEventsThatAreRemembered are few.
func TestEventsThatAreRemembered(t *testing.T) {
	e := &eventWriter{written: make(map[lossKey]*corev1.Event)}
	at := func(d time.Duration) *corev1.Event {
		return &corev1.Event{LastTimestamp: metav1.NewTime(time.Unix(1e9, 0).Add(d))}
	}
	for i := range maxEvents {
		e.remember(lossKey{"old", fmt.Sprint(i)}, at(time.Duration(i)*time.Second))
	}
	e.remember(lossKey{"new", ""}, at(eventKept+10*time.Second))
	if n := len(e.written); n != maxEvents-10 {
		t.Errorf("%d are remembered after an hour, want %d", n, maxEvents-10)
	}
	for i := range 2 * maxEvents {
		e.remember(lossKey{"more", fmt.Sprint(i)}, at(eventKept+10*time.Second))
		if n := len(e.written); n > maxEvents {
			t.Fatalf("%d are remembered", n)
		}
	}
}

// TestEventsForbidden is logged once, and ends nothing.
func TestEventsForbidden(t *testing.T) {
	f := newFakeAPI(t)
	fill(f)
	f.setFailure("events", 403)
	var log logBuffer
	w := start(t, f, func(c *Config) {
		c.Events = true
		c.Logger = slog.New(slog.NewTextHandler(&log, nil))
	})
	until(t, w, "first list", says(w, webOnly))
	for i := range 3 {
		w.Lost(lossy, fmt.Sprint("by policy ", i), 1, time.Unix(0, 0))
	}
	eventually(t, "three attempts", func() bool { return f.writes() == 3 })
	f.setFailure("events", 0)
	w.Lost(lossy, "by policy 9", 1, time.Unix(0, 0))
	eventually(t, "one that is written", func() bool { return len(f.written()) == 1 })
	eventually(t, "news of it", func() bool { return log.count("kubernetes events are written again") == 1 })
	if n := log.count("kubernetes events cannot be written"); n != 1 || log.count("failed=3") != 1 {
		t.Errorf("logged %d times:\n%s", n, log.String())
	}
	if s := w.State(); s != (State{Synced: true, Current: true, ServicesCurrent: true}) {
		t.Errorf("state %+v", s)
	}
}

// TestNoEvents: without being asked for none is written, and nobody waits for an API that
// is away.
func TestNoEvents(t *testing.T) {
	f := newFakeAPI(t)
	fill(f)
	w := start(t, f, nil)
	until(t, w, "first list", says(w, webOnly))
	w.Lost(lossy, "by policy a", 1, time.Unix(0, 0))
	f.put(apiService("b", "dns", "10.0.0.2"), apiSlice("b", "dns", "x", "10.1.0.3", "10.1.0.2"))
	until(t, w, "what comes after", says(w, webDNS))
	if n := f.writes(); n != 0 {
		t.Errorf("%d Events", n)
	}

	down := start(t, f, func(c *Config) { c.Events = true })
	until(t, down, "first list", says(down, webDNS))
	f.down()
	begin := time.Now()
	for range 2000 { // more than are kept
		down.Lost(lossy, "by policy a", 1, time.Unix(0, 0))
	}
	if d := time.Since(begin); d > 10*time.Second {
		t.Errorf("it waited %v", d)
	}
}
