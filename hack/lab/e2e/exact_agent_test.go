// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"errors"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/svcscope/svcscope/hack/lab/labtest"
)

// poll is eventually with a time of its own.
func poll(t *testing.T, limit time.Duration, what string, cond func() error) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for {
		err := cond()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited %v for this: %s: %v", limit, what, err)
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// patience is how long n syncs may take: a second each and what they need.
func (s *churned) patience(n int) time.Duration {
	return patience + time.Duration(n)*(3*time.Second+time.Duration(s.fillers)*3*time.Millisecond)
}

// watcher is one of several agents that look at a node at the same time, each
// on ports of its own.
type watcher struct {
	*agent
	name string
	port int
	// base is what it said before anything was opened.
	base metrics
}

// watchInterval is the agents' --interval: the default in a long run, so that
// nothing is owed to frequent readings.
func watchInterval() time.Duration {
	if long() {
		return 15 * time.Second
	}
	return 5 * time.Second
}

// startWatcher starts agent number i and returns when it is ready.
func startWatcher(t *testing.T, lab *labtest.Lab, i int, name string, flags ...string) *watcher {
	t.Helper()
	w := &watcher{agent: &agent{t: t, lab: lab}, name: name, port: 11000 + 2*i}
	args := append([]string{
		svcscope, "agent", "--node-name=node1", "--kube.start-jitter=0s", "--metrics.endpoints", "--interval=" + watchInterval().String(),
		"--kubeconfig=" + lab.Info.Kubeconfig, fmt.Sprintf("--web.listen-address=127.0.0.1:%d", w.port),
		fmt.Sprintf("--web.health-address=127.0.0.1:%d", w.port+1),
	}, flags...)
	w.Process = lab.StartWith([]string{"--caps=net_admin"}, "node1", args...)
	poll(t, 2*patience, "agent "+name+" is ready", func() error {
		select {
		case <-w.Done():
			t.Fatalf("agent %s ended: %s", name, w.Output())
		default:
		}
		if _, err := w.get(strconv.Itoa(w.port+1), "/readyz"); err != nil {
			return err
		}
		if v, _ := w.read().sum("svcscope_kube_synced", nil); v != 1 {
			return errors.New("it does not know the API yet")
		}
		return nil
	})
	return w
}

// read asks for the metrics.
func (w *watcher) read() metrics {
	w.t.Helper()
	text, err := w.get(strconv.Itoa(w.port), "/metrics")
	if err != nil {
		w.t.Fatalf("agent %s: %v: %s", w.name, err, w.Output())
	}
	m, err := parseMetrics(text)
	if err != nil {
		w.t.Fatal(err)
	}
	return m
}

// readAfter returns the metrics of a snapshot that was made an interval and
// more after a time, so that a whole reading lies between.
func (w *watcher) readAfter(at time.Time) metrics {
	w.t.Helper()
	var m metrics
	poll(w.t, patience+3*watchInterval(), "agent "+w.name+" reads on", func() error {
		m = w.read()
		made, _ := m.sum("svcscope_snapshot_timestamp_seconds", nil)
		if late := at.Add(watchInterval() + time.Second); made < float64(late.UnixMilli())/1000 {
			return fmt.Errorf("snapshot of %.3f, want one after %v", made, late)
		}
		return nil
	})
	return m
}

// grown is by how much the samples of a metric with these labels grew since
// the base.
func (w *watcher) grown(now metrics, name string, labels map[string]string) float64 {
	before, _ := w.base.sum(name, labels)
	after, _ := now.sum(name, labels)
	return after - before
}

// exact says whether the agent holds its totals of a backend and a family for
// exact.
func exact(m metrics, family string) bool {
	v, n := m.sum("svcscope_ledger_exact", map[string]string{"ip_family": family})
	return n == 1 && v == 1
}
