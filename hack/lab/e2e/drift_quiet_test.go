// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/svcscope/svcscope/hack/lab/labtest"
)

// quietInterval and quietGrace are the agent's where nothing may be told: it reads much more
// often than by default.
const (
	quietInterval = time.Second
	quietGrace    = 10 * time.Second
)

// TestDriftQuiet: while kube-proxy does its work nothing is told, whatever the API has it do,
// and whatever keeps it or the agent from the API.
func TestDriftQuiet(t *testing.T) {
	t.Parallel()
	for _, backend := range []string{"nft", "legacy"} {
		t.Run(backend, func(t *testing.T) {
			t.Parallel()
			rolled := numbered("roll", 8)
			s := newDriftScene(t, backend, quietInterval, quietGrace, func(lab *labtest.Lab) {
				exposeMany(lab, rolled, "--pods=pod1,pod2,pod3")
			})
			s.randomServices()
			s.rolling(rolled)
			// In a gate each backend has a part of the rest, which takes minutes.
			if long() || backend == "legacy" {
				s.slowProxy(rolled)
				s.cutOff("kube-proxy and the agent", rolled, true)
			}
			if long() || backend == "nft" {
				s.cutOff("the agent", rolled, false)
				s.loadAtOnce()
			}
		})
	}
}

// scaled is a number of the long run, or the smaller one of a gate. An ordinary user's node
// is in a user namespace, in which kube-proxy cannot write as many Services at once.
func scaled(full, gate, user int) int {
	switch {
	case os.Geteuid() != 0:
		return user
	case long():
		return full
	}
	return gate
}

// objects runs objectsMain.
func (s *driftScene) objects(args ...string) {
	s.t.Helper()
	s.lab.Exec("lan", insideArgv(s.t, objectsArg, args...)...)
}

// randomServices: of any Services and slices nothing is left once kube-proxy has settled.
func (s *driftScene) randomServices() {
	t := s.t
	t.Helper()
	seed, n, rounds := driftSeed(t), scaled(300, 40, 10), scaled(5, 2, 2)
	t.Logf("SVCSCOPE_DRIFT_SEED=%d", seed)
	var slowest time.Duration
	readings := s.quiet(fmt.Sprintf("random Services, seed %d", seed), func() {
		for round := range rounds {
			s.objects("random", fmt.Sprint(seed), strconv.Itoa(n), strconv.Itoa(round))
			slowest = max(slowest, s.settle(fmt.Sprintf("random Services, seed %d, round %d", seed, round)))
		}
	})
	s.checkCommand(nil)
	s.checkMetrics(nil)
	result(t, "%d random Services (seed %d), made or changed %d times: no drift in %d readings, and no difference at most %.1f s after each",
		n, seed, rounds, len(readings), slowest.Seconds())
}

// loadAtOnce: while thousands of Services come at once nothing is told.
func (s *driftScene) loadAtOnce() {
	t := s.t
	t.Helper()
	n := scaled(2000, 200, 30)
	var loaded, settled time.Duration
	most := 0
	readings := s.quiet("many Services at once", func() {
		start := time.Now()
		s.objects("fill", strconv.Itoa(n))
		loaded = time.Since(start)
		settled = loaded + s.settle("after many Services")
	})
	for _, r := range readings {
		most = max(most, len(r.Pending))
	}
	if most == 0 {
		t.Error("there was no difference at any moment: the test shows nothing")
	}
	if rules := lines(s.lab.Exec("node1", "iptables-save", "-t", "nat"), "-A KUBE-SERVICES "); rules < n {
		t.Errorf("%d rules in KUBE-SERVICES, want %d and more", rules, n)
	}
	result(t, "%d Services made in %.0f s, and in the rules after %.0f s: no drift in %d readings", n, loaded.Seconds(), settled.Seconds(), len(readings))
}

// slowProxy: a kube-proxy that writes once in a long time is at most one that does not sync.
func (s *driftScene) slowProxy(rolled []string) {
	t := s.t
	t.Helper()
	least, during, allowed := 15*time.Second, 33*time.Second, []string(nil)
	if long() {
		least, during, allowed = time.Minute, 10*time.Minute, []string{"not_syncing"}
	}
	var longest time.Duration
	readings := s.quiet(fmt.Sprintf("syncs %v apart", least), func() {
		s.proxy.restart("--iptables-min-sync-period="+least.String(), "--iptables-sync-period=1h")
		s.churn(rolled, time.Second, during)
		s.proxy.restart()
		s.settle("after slow syncs")
	}, allowed...)
	told := 0
	for _, r := range readings {
		longest = max(longest, r.pendingFor())
		told += min(1, len(r.Items))
	}
	if longest < least/2 {
		t.Errorf("changes have waited for %v at most: kube-proxy was not slow", longest)
	}
	result(t, "kube-proxy with syncs %v apart, for %v of changes, which waited for up to %.0f s: no Service's drift in %d readings, not_syncing in %d",
		least, during, longest.Seconds(), len(readings), told)
}

// churn changes the endpoints of Services, each once in a time, for so long. It returns how
// many changes of each there were.
func (s *driftScene) churn(names []string, every, during time.Duration) (steps int) {
	s.t.Helper()
	churn := s.startChurn(names, every)
	time.Sleep(during)
	return stopChurn(s.t, churn)
}

func (s *driftScene) startChurn(names []string, every time.Duration) *labtest.Process {
	s.t.Helper()
	return s.lab.StartChurn(names[0], append(names[1:len(names):len(names)], "--pods=pod1,pod2,pod3", "--every="+every.String())...)
}

func stopChurn(t *testing.T, churn *labtest.Process) (steps int) {
	t.Helper()
	if err := churn.Stop(); err != nil {
		t.Fatalf("lab churn: %v: %s", err, churn.Output())
	}
	out := strings.TrimSpace(churn.Output())
	if _, err := fmt.Sscanf(out[strings.LastIndexByte(out, '\n')+1:], "%d steps", &steps); err != nil {
		t.Fatalf("lab churn says %q: %v", out, err)
	}
	return steps
}
