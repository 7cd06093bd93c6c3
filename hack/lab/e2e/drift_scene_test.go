// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/svcscope/svcscope/hack/lab/labtest"
)

// driftScene is a node with an agent whose every word on drift is kept.
type driftScene struct {
	t     *testing.T
	lab   *labtest.Lab
	agent *agent
	proxy *proxyControl
	watch *driftWatch
	// changes counts those of rolled.
	changes int
	// listed is when the agent knew what the API has.
	listed time.Time
	// interval and grace are the agent's.
	interval, grace time.Duration
}

// busy is what a machine that has other things to do may add to a time.
const busy = 6 * time.Second

// newDriftScene brings the node up, with Services as expose makes them, and then the
// agent, which has an address of the API server for itself.
func newDriftScene(t *testing.T, backend string, interval, grace time.Duration, expose func(*labtest.Lab)) *driftScene {
	t.Helper()
	args := []string{"--apiserver-arg=--bind-address=::"}
	if os.Geteuid() == 0 {
		args = append(args, "--userns=false") // kube-proxy may write many Services at once
	}
	s := &driftScene{t: t, interval: interval, grace: grace, lab: labtest.Start(t, labtest.Options{Backend: backend, Args: args})}
	s.proxy = newProxyControl(t, s.lab)
	expose(s.lab)
	s.agent = startAgent(t, s.lab, "--kubeconfig="+s.kubeconfig(), "--interval="+interval.String(), "--drift.grace="+grace.String())
	s.watch = watchDrift(t, s.lab.Forward("node1:10988"))
	s.listed = time.Now()
	s.settle("before anything happens")
	return s
}

// kubeconfig is the lab's with the API server's IPv6 address in place of that which
// kube-proxy and all others use.
func (s *driftScene) kubeconfig() string {
	s.t.Helper()
	text, err := os.ReadFile(s.lab.Info.Kubeconfig)
	if err != nil {
		s.t.Fatal(err)
	}
	control := s.lab.Info.Control
	own := strings.Replace(string(text), "https://"+control.IPv4[0]+":", "https://["+control.IPv6[0]+"]:", 1)
	if own == string(text) {
		s.t.Fatalf("no address of %s in %s", control.IPv4[0], s.lab.Info.Kubeconfig)
	}
	path := filepath.Join(s.t.TempDir(), "kubeconfig")
	if err := os.WriteFile(path, []byte(own), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return path
}

// sh runs a script on the node.
func (s *driftScene) sh(script string) {
	s.t.Helper()
	s.lab.Exec("node1", "sh", "-ec", script)
}

// settle waits until all that the API wants is in the rules, in three readings, and
// returns how long that took.
func (s *driftScene) settle(what string) time.Duration {
	s.t.Helper()
	start := time.Now()
	after := start.Add(time.Second) // when the agent knows what has been changed until now
	for range 3 {
		limit := 2*patience + 3*s.interval + s.grace
		after = s.watch.awaitReading(s.t, limit, "kube-proxy has settled "+what, after, (*driftReport).settled).Time
	}
	return time.Since(start)
}

// quiet runs f, and fails for any drift in the meantime but of the allowed kinds, and for
// a reason why nothing is known but the given ones. It returns the readings.
func (s *driftScene) quiet(what string, f func(), allowed ...string) []driftReport {
	s.t.Helper()
	mark, said, start := s.watch.mark(), s.begun(allowed), time.Now()
	f()
	readings := s.watch.since(mark)
	for _, r := range readings {
		for of, detail := range r.drifts() {
			if !slices.Contains(allowed, of.kind) {
				s.t.Errorf("%s: %v after %v: %s", what, of, r.Time.Sub(start), detail)
			}
		}
		if r.Unknown != "" && !slices.Contains(allowed, r.Unknown) {
			s.t.Errorf("%s: unknown: %s after %v", what, r.Unknown, r.Time.Sub(start))
		}
	}
	// What was drift between two looks of the test stands in the log.
	if n := s.begun(allowed) - said; n > 0 {
		s.t.Errorf("%s: the agent has logged drift %d times:\n%s", what, n, s.agent.Output())
	}
	// A busy machine may make fewer than one an interval, but not as few as this.
	if took := time.Since(start); float64(len(readings)) < took.Seconds()/s.interval.Seconds()/3-2 {
		s.t.Errorf("%s: %d readings in %v: the test shows little", what, len(readings), took)
	}
	return readings
}

// begun counts what the agent has logged of drift that began, but of the allowed kinds.
func (s *driftScene) begun(allowed []string) int {
	n := s.agent.logged(driftBegins)
	for _, kind := range allowed {
		n -= s.agent.logged(driftBegins, "kind="+kind+" ")
	}
	return n
}

// command runs `svcscope drift` on the node.
func (s *driftScene) command() (out string, status int) {
	s.t.Helper()
	b, err := s.lab.Command("exec", "--caps=net_admin", "node1", "--", svcscope, "drift").CombinedOutput()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return string(b), exit.ExitCode()
	} else if err != nil {
		s.t.Fatalf("svcscope drift: %v: %s", err, b)
	}
	return string(b), 0
}

// checkCommand sees that the command says all of these, each in a line, and that its exit
// status says whether there are any.
func (s *driftScene) checkCommand(want map[told]string) {
	s.t.Helper()
	out, status := s.command()
	if wantStatus := min(1, len(want)); status != wantStatus {
		s.t.Errorf("svcscope drift: exit status %d, want %d:\n%s", status, wantStatus, out)
	}
	if len(want) == 0 && !strings.Contains(out, "No drift: the rules are what the API wants.") {
		s.t.Errorf("svcscope drift does not say that there is none:\n%s", out)
	}
	for of := range want {
		found := false
		for line := range strings.Lines(out) {
			whose := of.service + " "
			if of.service == "" {
				whose = "the node "
			}
			found = found || strings.Contains(line, " "+whose) && strings.Contains(line, " "+of.family+" ") && strings.Contains(line, " "+of.kind+" ")
		}
		if !found {
			s.t.Errorf("svcscope drift does not tell of %v:\n%s", of, out)
		}
	}
}

// checkMetrics sees that the metrics say these and nothing else.
func (s *driftScene) checkMetrics(want map[told]string) {
	s.t.Helper()
	m := s.agent.metrics()
	got := map[told]bool{}
	for _, one := range m["svcscope_service_drift"] {
		got[told{one.labels["kind"], one.labels["ip_family"], one.labels["service_namespace"] + "/" + one.labels["service_name"], one.labels["frontend"]}] = true
	}
	services := map[told]float64{}
	for of := range want {
		if of.service != "" && !got[of] {
			s.t.Errorf("svcscope_service_drift does not tell of %v", of)
		}
		delete(got, of)
		if of.service != "" {
			services[told{kind: of.kind, family: of.family}]++
		}
	}
	for of := range got {
		s.t.Errorf("svcscope_service_drift tells of %v", of)
	}
	for _, one := range m["svcscope_drifting_services"] {
		if of := (told{kind: one.labels["kind"], family: one.labels["ip_family"]}); one.value != services[of] {
			s.t.Errorf("svcscope_drifting_services%v is %v, want %v", one.labels, one.value, services[of])
		}
	}
	for _, one := range m["svcscope_node_drift"] {
		_, wanted := want[told{kind: one.labels["kind"], family: one.labels["ip_family"]}]
		if wanted != (one.value > 0) {
			s.t.Errorf("svcscope_node_drift%v is %v, want some: %t", one.labels, one.value, wanted)
		}
	}
	serviceKinds, nodeKinds := 12, 8
	if _, ok := want[told{kind: "two_modes", family: "IPv4"}]; ok { // none is recognised
		serviceKinds, nodeKinds = 0, 1
	}
	for name, n := range map[string]int{"svcscope_drifting_services": serviceKinds, "svcscope_node_drift": nodeKinds} {
		if got := len(m[name]); got != n*len(families) {
			s.t.Errorf("%s has %d series, want %d", name, got, n*len(families))
		}
	}
}

// exposeMany exposes Services with the same flags, without waiting for rules but of the
// last one.
func exposeMany(lab *labtest.Lab, names []string, args ...string) {
	for i, name := range names {
		full := append([]string{"--port=80"}, args...)
		if i < len(names)-1 {
			full = append(full, "--wait=false")
		}
		lab.Expose(name, full...)
	}
}

// numbered are names.
func numbered(prefix string, n int) (names []string) {
	for i := range n {
		names = append(names, fmt.Sprintf("%s%d", prefix, i))
	}
	return names
}
