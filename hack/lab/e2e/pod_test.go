// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestPod installs the chart with Helm into a real API server and has its pod
// run as its spec says: all that is seen is the pod's doing.
func TestPod(t *testing.T) {
	t.Parallel()
	s := newInstalled(t, "nft")
	s.do("kubectl create namespace svcscope; kubectl label namespace svcscope pod-security.kubernetes.io/enforce=privileged")
	s.helm("")
	s.rollout()
	s.settled("the first reading is the baseline")
	s.open(200)
	s.settled("the pod counts what was opened")
	if v, _ := s.agent.metrics().sum("svcscope_kube_synced", nil); v != 1 {
		t.Errorf("svcscope_kube_synced is %v, want 1", v)
	}
	s.checkAgent("nft")
	s.checkConfinement()
	s.checkListening()
	s.checkExec()
	s.checkRequests(false)

	// Each change replaces the pod by one of the new template.
	pid, pod := s.pid(), s.pod()
	s.helm("--set kube=never")
	s.rollout()
	if now := s.pid(); now == pid || now == "" {
		t.Errorf("the agent's process was %s and is %q after the template has changed", pid, now)
	}
	s.checkNoToken(pod)
	s.helm("--set-json 'capabilities=[]'")
	s.rollout()
	s.checkNoCapability()
	s.checkLockFileAndWeb()
	s.checkLiveness()

	began := time.Now()
	s.do("helm uninstall svcscope -n svcscope")
	s.gone()
	if d := time.Since(began); d > 30*time.Second {
		t.Errorf("the pod was gone after %v, its grace period is 30 s", d)
	}
	// Once it was: where the process was stopped.
	if out := s.nodeAgent.Output(); strings.Count(out, "the grace period is over") != 1 {
		t.Errorf("SIGTERM did not end the agent:\n%s", out)
	}
	result(t, "the chart's pod as its spec says: %v counted, no permission missing, none unused; without token, without capability, behind TLS and passwords", s.total["IPv4"])
}

// checkConfinement looks at what the pod's process may and sees.
func (s *installed) checkConfinement() {
	s.t.Helper()
	proc := "/proc/" + s.pid()
	status := s.lab.Exec("node1", "cat", proc+"/status")
	for _, want := range []string{"CapInh:\t0000000000000000", "CapAmb:\t0000000000000000", "Seccomp:\t2"} {
		if !strings.Contains(status, want) {
			s.t.Errorf("the pod's process has no %q:\n%s", want, status)
		}
	}
	mounts := map[string]string{}
	for line := range strings.Lines(s.lab.Exec("node1", "cat", proc+"/mountinfo")) {
		f := strings.Fields(line)
		mounts[f[4]] = f[5]
	}
	for _, path := range []string{"/", "/sys", "/proc/sys", "/etc/hosts", "/var/run/secrets/kubernetes.io/serviceaccount"} {
		if !slices.Contains(strings.Split(mounts[path], ","), "ro") {
			s.t.Errorf("%s is mounted %q in the pod, want read-only", path, mounts[path])
		}
	}
	for ns, shared := range map[string]bool{"net": true, "mnt": false, "pid": false, "ipc": false} {
		ours := s.lab.Exec("node1", "readlink", "/proc/self/ns/"+ns)
		if its := s.lab.Exec("node1", "readlink", proc+"/ns/"+ns); (ours == its) != shared {
			s.t.Errorf("%s namespace of the node %s and of the pod %s: want shared to be %v", ns, ours, its, shared)
		}
	}
	if env := s.lab.Exec("node1", "cat", proc+"/environ"); strings.Contains(env, "SVCSCOPE_TEST") || strings.Contains(env, "LAB_") {
		s.t.Errorf("the test's environment shows in the pod: %q", env)
	}
}

// checkListening sees that the agent listens where the chart says and
// nowhere else.
func (s *installed) checkListening() {
	s.t.Helper()
	var got []string
	for line := range strings.Lines(s.lab.Exec("node1", "cat", "/proc/net/tcp", "/proc/net/tcp6")) {
		f := strings.Fields(line)
		// 10988 is 2AEC, 10989 is 2AED, and 0A is "listens".
		if f[3] == "0A" && (strings.HasSuffix(f[1], ":2AEC") || strings.HasSuffix(f[1], ":2AED")) {
			got = append(got, f[1])
		}
	}
	slices.Sort(got)
	// 127.0.0.1 and 192.168.50.11, the low byte first.
	if want := []string{"0100007F:2AEC", "0100007F:2AED", "0B32A8C0:2AEC"}; !slices.Equal(got, want) {
		s.t.Errorf("the pod listens on %v, want %v", got, want)
	}
	script := `exec 3<>/dev/tcp/192.168.50.11/10988 && printf 'GET /metrics HTTP/1.0\r\n\r\n' >&3 && cat <&3`
	if page := s.lab.Exec("client", "bash", "-c", script); !strings.Contains(page, "svcscope_build_info") {
		s.t.Errorf("the metrics as the LAN sees them:\n%s", page)
	}
}

// checkExec asks the pod by kubectl.
func (s *installed) checkExec() {
	s.t.Helper()
	const exec = "kubectl -n svcscope exec ds/svcscope -- svcscope "
	if out := s.do(exec + "services"); !strings.Contains(out, fmt.Sprint(s.total["IPv4"].cluster+s.total["IPv4"].external)) {
		s.t.Errorf("svcscope services does not show %v:\n%s", s.total["IPv4"], out)
	}
	// What runs beside the agent has the same rights: it can read the rules
	// by itself, and sees what the agent shows.
	rows := func(flags string) []string {
		var rows []string
		for line := range strings.Lines(s.do(exec + "services " + flags)) {
			// NAMESPACE NAME PORT CLUSTER-IP CONNECTIONS …
			if f := strings.Fields(line); len(f) > 4 && f[0] == "default" && f[1] != "kubernetes" { // the API was asked before the agent counted
				rows = append(rows, strings.Join(f[:5], " "))
			}
		}
		slices.Sort(rows)
		return rows
	}
	byAgent, byItself := rows(""), rows("--agent none")
	if !slices.Equal(byAgent, byItself) || len(byAgent) < 3 {
		s.t.Errorf("Services by the agent, and read without it:\n%q\n%q", byAgent, byItself)
	}
	if _, err := s.sh(exec + "no-such-command"); err == nil || !strings.Contains(err.Error(), "exit code 2") {
		s.t.Errorf("a command that fails: %v", err)
	}
	if out := s.do("kubectl -n svcscope logs ds/svcscope"); !strings.Contains(out, "agent starts") {
		s.t.Errorf("the pod's log:\n%s", out)
	}
}

// checkNoToken sees that with kube=never the pod has no way to the API, and
// counts. before is the pod that had one.
func (s *installed) checkNoToken(before string) {
	s.t.Helper()
	since := time.Now()
	if mounts := s.lab.Exec("node1", "cat", "/proc/"+s.pid()+"/mountinfo"); strings.Contains(mounts, "serviceaccount") {
		s.t.Errorf("a pod with kube=never has a token:\n%s", mounts)
	}
	s.total = map[string]*opened{"IPv4": {}, "IPv6": {}}
	s.settled("a new pod counts from 0")
	s.open(50)
	s.settled("the pod counts without the API")
	if v, n := s.agent.metrics().sum("svcscope_kube_synced", nil); v != 0 || n != 1 {
		s.t.Errorf("svcscope_kube_synced is %v in %d series, want 0 in 1", v, n)
	}
	// What the pod before asked is logged when it ends, so maybe only now; but
	// it came before.
	for _, r := range s.requests() {
		if r.pod() != before || r.Received.After(since) {
			s.t.Errorf("request of pod %q at %v, kube=never since %v: %s %s", r.pod(), r.Received, since, r.Verb, r.URI)
		}
	}
}

// checkNoCapability sees that a pod without NET_ADMIN says what it can't read
// and serves the rest.
func (s *installed) checkNoCapability() {
	s.t.Helper()
	if status := s.lab.Exec("node1", "cat", "/proc/"+s.pid()+"/status"); !strings.Contains(status, "CapEff:\t0000000000000000") {
		s.t.Errorf("the pod's process has capabilities:\n%s", status)
	}
	eventually(s.t, "the pod says what it cannot read", func() error {
		m := s.agent.metrics()
		for collector, want := range map[string]float64{"nftables": 0, "conntrack": 0, "kube": 1} {
			if v, n := m.sum("svcscope_collector_success", map[string]string{"collector": collector}); v != want || n != 1 {
				return fmt.Errorf("svcscope_collector_success of %s is %v in %d series, want %v", collector, v, n, want)
			}
		}
		if v, n := m.sum("svcscope_service_endpoints", map[string]string{"service_name": "web", "ip_family": "IPv4", "source": "api"}); v != 3 || n != 1 {
			return fmt.Errorf("svcscope_service_endpoints of the API is %v in %d series, want 3 in 1", v, n)
		}
		if _, n := m.sum("svcscope_conntrack_entries", nil); n != 1 {
			return errors.New("no svcscope_conntrack_entries")
		}
		return nil
	})
	if _, n := s.agent.metrics().sum("svcscope_service_connections_total", nil); n != 0 {
		s.t.Errorf("a pod that cannot read rules serves %d counts of connections", n)
	}
}

// TestPodList is against an API server that streams no lists, as those before
// Kubernetes 1.34: the fallback needs the verb list.
func TestPodList(t *testing.T) {
	t.Parallel()
	s := newInstalled(t, "legacy", "--apiserver-arg=--feature-gates=WatchList=false")
	s.helm("--create-namespace")
	s.rollout()
	s.settled("the first reading is the baseline")
	s.open(100)
	s.settled("the pod counts what was opened")
	s.checkRequests(true)

	// The namespace now refuses such pods; the one that runs is not touched.
	s.do("kubectl label namespace svcscope pod-security.kubernetes.io/enforce=restricted")
	s.do("kubectl -n svcscope delete pod --all")
	eventually(t, "an event says why there is no pod", func() error {
		out := s.do("kubectl -n svcscope get events --field-selector reason=FailedCreate -o jsonpath='{.items[*].message}'")
		for _, want := range []string{`violates PodSecurity "restricted:latest"`, "host namespaces (hostNetwork=true)", "runAsNonRoot"} {
			if !strings.Contains(out, want) {
				return fmt.Errorf("no %q in events: %s", want, out)
			}
		}
		return nil
	})
	if out := s.do("kubectl -n svcscope get pods -o name"); out != "" {
		t.Errorf("pods in a restricted namespace: %s", out)
	}
	s.do("helm uninstall svcscope -n svcscope")
	s.gone()
}
