// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"
)

// promise is what an agent may lose while endpoints change.
type promise struct {
	name  string
	flags []string
	// exact is what svcscope_ledger_exact says.
	exact bool
	// changing is the largest share of all connections to the Service that
	// changes which may be missing; above 1 it is reported alone, and at
	// most what the blind seconds explain.
	changing float64
}

// reported is a share that is no limit.
const reported = 2

// refusalsLost is the largest share of refused packets that may be missing.
const refusalsLost = 0.01

// exactRow is one node and the agents that watch it.
type exactRow struct {
	backend  string
	services int
	syncs    int
	rate     int
	agents   []promise
}

// exactRows are the nodes to look at. SVCSCOPE_EXACT_SYNCS chooses another
// number of syncs for all.
func exactRows(t *testing.T) []exactRow {
	t.Helper()
	rows := defaultRows()
	if text := os.Getenv("SVCSCOPE_EXACT_SYNCS"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil {
			t.Fatalf("SVCSCOPE_EXACT_SYNCS: %v", err)
		}
		for i := range rows {
			rows[i].syncs = n
		}
	}
	return rows
}

func defaultRows() []exactRow {
	listening := promise{name: "listening", exact: true}
	watching := promise{name: "--exact.max-rules=0", flags: []string{"--exact.max-rules=0"}, changing: 0.005}
	above := promise{name: "above --exact.max-rules", changing: 0.005}
	lock := promise{name: "lock file", changing: 0.01}
	blind := promise{name: "lock file", changing: reported}
	if !long() {
		// What is lost where the agent does not listen depends on how soon it
		// runs: beside other tests, on the blind seconds that it tells.
		watching.changing = reported
		return []exactRow{
			{"nft", 20, 20, 60, []promise{listening, watching}},
			{"legacy", 20, 20, 40, []promise{blind}},
		}
	}
	// So many connections a second leave a machine with two processors room to
	// run kube-proxy and the agent when they want to.
	return []exactRow{
		{"nft", 100, 200, 40, []promise{listening, watching}},
		{"nft", 2000, 200, 40, []promise{above}},
		{"legacy", 100, 200, 40, []promise{lock}},
		{"legacy", 1000, 200, 40, []promise{blind}},
		{"legacy", 10000, 200, 20, []promise{blind}},
	}
}

// TestExact compares what was opened with what agents counted while the real
// kube-proxy rewrote the rules again and again.
func TestExact(t *testing.T) {
	for _, row := range exactRows(t) {
		t.Run(fmt.Sprintf("%s/%d", row.backend, row.services), func(t *testing.T) {
			if !long() {
				t.Parallel()
			}
			s := newChurned(t, row.backend, row.services)
			s.countThrough(row)
			if !long() {
				return // beside other tests, times say nothing
			}
			for i, p := range row.agents {
				s.syncCost(i, p, row.rate)
			}
		})
	}
}

// countThrough runs the traffic and the changes and compares.
func (s *churned) countThrough(row exactRow) {
	t := s.t
	t.Helper()
	var watchers []*watcher
	for i, p := range row.agents {
		// What lets a Service pass the cap is counted in _other.
		flags := append([]string{fmt.Sprintf("--metrics.max-services=%d", row.services+10)}, p.flags...)
		w := startWatcher(t, s.lab, i, p.name, flags...)
		watchers = append(watchers, w)
		s.waitExact(w, p)
	}
	for _, w := range watchers {
		w.base = w.read()
	}
	s.startLoads(row.rate, 40000)
	s.startChurn()
	before, start := s.syncs(), time.Now()
	s.waitSyncs(before, row.syncs)
	took := time.Since(start)
	s.stopChurn()
	s.stopLoads()
	after, end := s.syncs(), time.Now()
	for i, w := range watchers {
		m := w.readAfter(end)
		s.judge(w, row.agents[i], m, end.Sub(start))
		for _, f := range families {
			if got := exact(m, f.name); got != row.agents[i].exact {
				t.Errorf("%s: svcscope_ledger_exact of %s is %t after the changes, want %t", w.name, f.name, got, row.agents[i].exact)
			}
		}
		if err := w.Stop(); err != nil {
			t.Errorf("agent %s after SIGTERM: %v: %s", w.name, err, w.Output())
		}
	}
	result(t, "%d IPv4 and %d IPv6 syncs in %.0f s, %s", after["IPv4"]-before["IPv4"], after["IPv6"]-before["IPv6"], took.Seconds(), s.openedText())
}

// waitExact waits until the agent holds its totals for exact, where it is to.
func (s *churned) waitExact(w *watcher, p promise) {
	s.t.Helper()
	deadline := time.Now().Add(patience / 2)
	for {
		m := w.read()
		if exact(m, "IPv4") == p.exact && exact(m, "IPv6") == p.exact {
			return
		}
		if time.Now().After(deadline) {
			s.t.Errorf("%s: svcscope_ledger_exact is not %t before anything changes: %s", w.name, p.exact, w.Output())
			return
		}
		time.Sleep(200 * time.Millisecond)
	}
}

func (s *churned) openedText() string {
	sums := map[string]int{}
	for _, l := range s.loads {
		n := l.opened
		if l.via == "refused" {
			n = l.syn
		}
		sums[l.service] += n
	}
	return fmt.Sprintf("%d connections to the Service that changes, %d to another, %d packets to one without endpoints", sums["changing"], sums["other"], sums["broken"])
}

// judge compares an agent's numbers with what was opened: never more, and no
// less than promised.
func (s *churned) judge(w *watcher, p promise, m metrics, took time.Duration) {
	t := s.t
	t.Helper()
	type sum struct{ opened, counted int }
	lacking := map[string]int{} // of the Service that changes, by family
	sums := map[string]*sum{"changing": {}, "other": {}, "broken": {}}
	for _, l := range s.loads {
		labels := map[string]string{"service_namespace": "default", "service_name": l.service, "ip_family": l.family}
		metric, least, most := "svcscope_service_connections_total", l.opened, l.syn
		if l.via == "refused" {
			metric, least = "svcscope_service_rejected_packets_total", l.syn
		} else {
			labels["via"] = l.via
		}
		counted := int(w.grown(m, metric, labels))
		if counted > most {
			t.Errorf("%s: %s %s %s counted %d, more than the %d that were opened", w.name, l.service, l.family, l.via, counted, most)
		}
		lost := least - counted
		t.Logf("%s: %s %s %s: %d of %d lost", w.name, l.service, l.family, l.via, lost, least)
		switch {
		case l.service == "other" && lost > 0:
			t.Errorf("%s: other %s %s counted %d of %d: %d lost, want none", w.name, l.family, l.via, counted, least, lost)
		case l.service != "other":
			s.judgeBlind(w, m, l, lost)
		}
		if l.service == "changing" {
			lacking[l.family] += lost
		}
		sums[l.service].opened += least
		sums[l.service].counted += counted
	}
	s.judgeNotBlind(w, m, lacking, took)
	s.judgeEndpoints(w, m)
	limits := map[string]float64{"changing": p.changing, "broken": refusalsLost, "other": 0}
	if !long() { // beside other tests
		limits["broken"] = p.changing
	}
	for _, name := range []string{"changing", "other", "broken"} {
		n := sums[name]
		if lost := n.opened - n.counted; limits[name] < reported && float64(lost) > limits[name]*float64(n.opened) {
			t.Errorf("%s: %s counted %d of %d: %.2f %% lost, want at most %.1f", w.name, name, n.counted, n.opened, percent(lost, n.opened), 100*limits[name])
		}
		result(t, "%s: %s: %d counted of %d, %.3f %% lost", w.name, name, n.counted, n.opened, percent(n.opened-n.counted, n.opened))
	}
	for _, f := range families {
		result(t, "%s: blind %s: %s", w.name, f.name, s.blind(w, m, f.name))
	}
}

func percent(part, whole int) float64 { return 100 * float64(part) / float64(max(1, whole)) }

// perSecond is how many connections all loads open a second, refused ones too.
func (s *churned) perSecond() (n int) {
	for _, l := range s.loads {
		n += l.rate
	}
	return n
}

// judgeBlind: what is lost is no more than what was opened while the agent
// says that it was blind, a quarter more and a few for the chance of it.
func (s *churned) judgeBlind(w *watcher, m metrics, l *flow, lost int) {
	s.t.Helper()
	table, rate := "nat", float64(l.rate)
	if l.via == "refused" {
		// A refused IPv6 client sends two packets.
		table, rate = "filter", rate*float64(l.syn)/float64(max(1, l.opened))
	}
	blind := w.grown(m, "svcscope_counter_blind_seconds_total", map[string]string{"ip_family": l.family, "table": table})
	if most := 1.25*blind*rate + 4*math.Sqrt(blind*rate) + 5; float64(lost) > most {
		s.t.Errorf("%s: %s %s %s: %d lost in %.2f blind seconds of %s at %.0f a second, want at most %.0f", w.name, l.service, l.family, l.via, lost, blind, table, rate, most)
	}
}

// judgeNotBlind: an agent that saw nearly all does not say that it was blind. What it
// says is the time until it noticed that rules were others.
func (s *churned) judgeNotBlind(w *watcher, m metrics, lacking map[string]int, took time.Duration) {
	s.t.Helper()
	for _, f := range families {
		rate, lost := 0, lacking[f.name]
		for _, l := range s.loads {
			if l.service == "changing" && l.family == f.name {
				rate += l.rate
			}
		}
		blind := w.grown(m, "svcscope_counter_blind_seconds_total", map[string]string{"ip_family": f.name, "table": "nat"})
		most := min(took.Seconds(), 4*float64(lost)/float64(rate)+3)
		if !long() { // beside other tests
			most = took.Seconds() / 2
		}
		if blind > most {
			s.t.Errorf("%s: says that it was blind for %.2f s in nat of %s, in which %d are lost: want at most %.2f s", w.name, blind, f.name, lost, most)
		}
	}
}

func (s *churned) blind(w *watcher, m metrics, family string) string {
	nat := w.grown(m, "svcscope_counter_blind_seconds_total", map[string]string{"ip_family": family, "table": "nat"})
	filter := w.grown(m, "svcscope_counter_blind_seconds_total", map[string]string{"ip_family": family, "table": "filter"})
	return fmt.Sprintf("%.3f s in nat, %.3f s in filter", nat, filter)
}

// judgeEndpoints compares the sum of a Service's endpoints with its
// connections, where endpoints stay.
func (s *churned) judgeEndpoints(w *watcher, m metrics) {
	s.t.Helper()
	for _, f := range families {
		opened := 0
		for _, l := range s.loads {
			if l.service == "other" && l.family == f.name {
				opened += l.opened
			}
		}
		labels := map[string]string{"service_name": "other", "ip_family": f.name}
		if got := int(w.grown(m, "svcscope_service_endpoint_connections_total", labels)); got != opened {
			s.t.Errorf("%s: endpoints of other %s counted %d of %d", w.name, f.name, got, opened)
		}
	}
}

func median(d []time.Duration) time.Duration {
	if len(d) == 0 {
		return 0
	}
	slices.Sort(d)
	return d[len(d)/2]
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
