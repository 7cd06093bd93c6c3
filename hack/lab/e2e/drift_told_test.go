// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/svcscope/svcscope/hack/lab/labtest"
)

// driftTimes are an agent's --interval and --drift.grace where faults are timed: the
// defaults in a long run.
func driftTimes() (interval, grace time.Duration) {
	if long() {
		return 15 * time.Second, 10 * time.Second
	}
	return time.Second, 2 * time.Second
}

// TestDriftTold: what is done to a node's rules is told by its kind, once, in time, in every
// place where drift is told, and ends when it is repaired.
func TestDriftTold(t *testing.T) {
	t.Parallel()
	for _, backend := range []string{"nft", "legacy"} {
		t.Run(backend, func(t *testing.T) {
			t.Parallel()
			services := map[string]labtest.Service{}
			interval, grace := driftTimes()
			s := newDriftScene(t, backend, interval, grace, func(lab *labtest.Lab) {
				for _, f := range serviceFaults() {
					services[f.name] = lab.Expose(f.name, append([]string{"--port=80", "--wait=false"}, f.expose...)...)
				}
				exposeMany(lab, []string{donor, rolled}, "--pods=pod1,pod2,pod3")
			})
			s.rest()
			s.checkCommand(nil)
			s.checkMetrics(nil)
			for _, faults := range faultRounds() {
				s.serviceRound(faults, services)
			}
			for _, f := range kubeProxyFaults() {
				s.nodeRound(&f)
			}
			two := twoModes()
			s.nodeRound(&two)
			if long() { // it takes more than a minute; in a gate TestAlerts waits for it
				s.stopped()
			} else {
				for _, f := range foreignRules() {
					s.nodeRound(&f)
				}
			}
			s.unrecognised()
		})
	}
}

// rest waits until the API has told nothing new for so long that no sync of kube-proxy of before
// can bring what differs: with less the agent tells later.
func (s *driftScene) rest() {
	s.t.Helper()
	const still = 15 * time.Second
	s.watch.awaitReading(s.t, still+patience, "the node is at rest", s.listed.Add(still), (*driftReport).settled)
}

// faultRounds are the faults that are there at the same time: in a long run each is alone.
func faultRounds() (rounds [][]serviceFault) {
	perRound := 7 // the agent logs 20 drifts of a reading, and each is in two families
	if long() {
		perRound = 1
	}
	return slices.Collect(slices.Chunk(serviceFaults(), perRound))
}

// serviceRound has faults of Services, and a new kube-proxy repair them.
func (s *driftScene) serviceRound(faults []serviceFault, services map[string]labtest.Service) {
	s.t.Helper()
	want := map[told]string{}
	for i := range faults {
		for _, f := range families {
			want[faults[i].told(f.name)] = faults[i].name
		}
	}
	s.round(want, func() { s.inject(faults, services) }, func() { s.proxy.restart() })
}

// nodeRound has one of the node, while there may be others of these kinds.
func (s *driftScene) nodeRound(f *nodeFault, background ...string) {
	s.t.Helper()
	want := map[told]string{}
	for _, family := range families {
		want[told{kind: f.kind, family: family.name}] = f.name
	}
	s.round(want, func() { f.begin(s) }, func() { f.end(s) }, background...)
}

// round has a fault begin, sees how it is told, has it end, and sees that that is told.
func (s *driftScene) round(want map[told]string, begin, end func(), background ...string) {
	t := s.t
	t.Helper()
	said, unsaid := s.lines(driftBegins, want), s.lines(driftEnds, want)
	mark := s.watch.mark()
	begin()
	took := s.await(want, time.Now(), mark, background)
	for _, name := range slices.Sorted(maps.Keys(took)) {
		result(t, "%s: told after %.1f s (%v between readings, grace %v)", name, took[name].Seconds(), s.interval, s.grace)
	}
	if len(background) == 0 { // else there may be more of it at any moment
		s.checkCommand(want)
		s.checkMetrics(want)
	}
	for of, name := range want {
		if n := s.lines(driftBegins, map[told]string{of: name})[of] - said[of]; n < 1 {
			t.Errorf("%s: the agent has not logged that %v begins:\n%s", name, of, s.agent.Output())
		}
	}
	mark = s.watch.mark()
	end()
	s.awaitEnd(want, time.Now(), mark, background)
	for of, name := range want {
		if n := s.lines(driftEnds, map[told]string{of: name})[of] - unsaid[of]; n < 1 {
			t.Errorf("%s: the agent has not logged that %v ends:\n%s", name, of, s.agent.Output())
		}
	}
	if len(background) == 0 {
		s.checkCommand(nil)
		s.checkMetrics(nil)
	}
}

// lines counts the lines of the agent's log with a message about each of these.
func (s *driftScene) lines(message string, of map[told]string) map[told]int {
	n := map[told]int{}
	for o := range of {
		texts := []string{message, "kind=" + o.kind + " ", "family=" + o.family + " "}
		if o.service != "" {
			texts = append(texts, "service="+o.service+" ")
		}
		n[o] = s.agent.logged(texts...)
	}
	return n
}

// await waits until exactly these drifts are told, and fails for every other one in the
// meantime. Each has to be told within two intervals and the grace, and what a busy machine
// adds. It returns how long each took, by the names in want.
func (s *driftScene) await(want map[told]string, begun time.Time, mark int, background []string) (slowest map[string]time.Duration) {
	t := s.t
	t.Helper()
	limit := 2*s.interval + s.grace + busy
	seen := map[told]time.Duration{}
	poll(t, limit+patience, fmt.Sprintf("these are told: %v", want), func() error {
		for _, r := range s.watch.since(mark) {
			for of := range r.drifts() {
				if _, ok := seen[of]; !ok {
					seen[of] = r.Time.Sub(begun)
				}
			}
		}
		for of, name := range want {
			if _, ok := seen[of]; !ok {
				r, err := s.watch.last(begun)
				return fmt.Errorf("%s is not told as %v; told: %v; %+v, %v", name, of, seen, r, err)
			}
		}
		return nil
	})
	s.others(want, mark, background)
	slowest = map[string]time.Duration{}
	for of, name := range want {
		if slowest[name] = max(slowest[name], seen[of]); seen[of] > limit {
			t.Errorf("%s is told as %v after %v, want at most two intervals, the grace and %v", name, of, seen[of], busy)
		}
	}
	return slowest
}

// others fails for drifts since a mark that are not among those that are there.
func (s *driftScene) others(want map[told]string, mark int, background []string) {
	s.t.Helper()
	wrong := map[told]string{}
	for _, r := range s.watch.since(mark) {
		for of, detail := range r.drifts() {
			if want[of] == "" && !slices.Contains(background, of.kind) {
				wrong[of] = detail
			}
		}
	}
	for of, detail := range wrong {
		s.t.Errorf("%v is told, too, of %s, beside %v", of, detail, want)
	}
}

// awaitEnd waits until none of these is told any more.
func (s *driftScene) awaitEnd(want map[told]string, repaired time.Time, mark int, background []string) {
	t := s.t
	t.Helper()
	limit := 2*s.interval + busy
	r := s.watch.awaitReading(t, limit+patience, fmt.Sprintf("these are not told any more: %v", want), repaired, func(r *driftReport) error {
		for of, detail := range r.drifts() {
			if want[of] != "" {
				return fmt.Errorf("%v: %s", of, detail)
			}
		}
		return nil
	})
	s.others(want, mark, background)
	if took := r.Time.Sub(repaired); took > limit {
		t.Errorf("%v is told until %v after the repair, want at most two intervals and %v", want, took, busy)
	}
}

// notSyncing is after how long a kube-proxy that writes nothing is told of.
const notSyncing = time.Minute

// stopped stops kube-proxy while endpoints change: that is told, and of no Service. Meanwhile
// others edit rules.
func (s *driftScene) stopped() {
	t := s.t
	t.Helper()
	kind := "not_syncing"
	want := map[told]string{{kind: kind, family: "IPv4"}: "kube-proxy stopped", {kind: kind, family: "IPv6"}: "kube-proxy stopped"}
	sendSignal(s.lab, "kube-proxy", "STOP")
	mark := s.watch.mark()
	s.changeEndpoints("--wait=false")
	start := time.Now()
	for _, f := range foreignRules() {
		s.nodeRound(&f, kind)
	}
	if time.Since(start) < notSyncing-busy {
		for _, r := range s.watch.since(mark) {
			for of := range r.drifts() {
				if want[of] != "" {
					t.Errorf("%v is told %v after the change", of, r.Time.Sub(start))
				}
			}
		}
	}
	for name, took := range s.await(want, start.Add(notSyncing), s.watch.mark(), nil) {
		result(t, "%s while endpoints change: told after %.1f s, and nothing of a Service", name, (notSyncing + took).Seconds())
	}
	s.checkCommand(want)
	s.checkMetrics(want)
	mark = s.watch.mark()
	sendSignal(s.lab, "kube-proxy", "CONT")
	s.awaitEnd(want, time.Now(), mark, nil)
	s.settle("after kube-proxy went on")
	s.others(want, mark, nil)
}

// unrecognised takes kube-proxy and its rules away, and gives the node one in another mode:
// nothing is judged. When it comes back in this one, nothing is told while it starts.
func (s *driftScene) unrecognised() {
	t := s.t
	t.Helper()
	s.proxy.end()
	s.lab.Exec("node1", s.proxy.argv[0], "--cleanup")
	s.awaitUnknown("no rules of kube-proxy are here", "none")
	p := s.proxy.start("--proxy-mode=nftables")
	s.awaitUnknown("kube-proxy's mode here is nftables, whose rules are not compared yet", "nftables")
	_ = p.Stop() // it ends by the signal
	s.quiet("kube-proxy starts in iptables mode", func() {
		s.proxy.fullSync(s.proxy.start())
		s.settle("in iptables mode")
	}, "mode")
	s.checkCommand(nil)
	result(t, "without kube-proxy, and with one in nftables mode, nothing is judged; nor is anything told while it starts")
}

// awaitUnknown waits until nothing is judged, as the mode is not known or another one, and
// sees that this is so in every place.
func (s *driftScene) awaitUnknown(says, mode string) {
	t := s.t
	t.Helper()
	r := s.watch.awaitReading(t, 2*patience, "nothing is judged", time.Now(), func(r *driftReport) error {
		if r.Unknown != "mode" || r.ProxyMode != mode {
			return fmt.Errorf("unknown: %q, the mode: %q", r.Unknown, r.ProxyMode)
		}
		return nil
	})
	s.agent.samplings(2)
	if r, err := s.watch.last(r.Time); err != nil || r.Unknown != "mode" || len(r.Items)+len(r.Pending) > 0 {
		t.Errorf("two readings later: %+v, %v", r, err)
	}
	m := s.agent.metrics()
	for _, name := range []string{"svcscope_drifting_services", "svcscope_node_drift", "svcscope_service_drift"} {
		if n := len(m[name]); n > 0 {
			t.Errorf("%s has %d series, want none", name, n)
		}
	}
	if out, status := s.command(); status != 1 || !strings.Contains(out, says) {
		t.Errorf("svcscope drift: exit status %d, want 1 and %q:\n%s", status, says, out)
	}
}
