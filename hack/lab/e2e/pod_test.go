// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
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
	s.checkRequests("watch")

	// Each change replaces the pod by one of the new template.
	pid := s.pid()
	s.helm("--set kube=never")
	s.rollout()
	if now := s.pid(); now == pid || now == "" {
		t.Errorf("the agent's process was %s and is %q after the template has changed", pid, now)
	}
	s.checkNoToken()
	s.helm("--set-json 'capabilities=[]'")
	s.rollout()
	s.checkNoCapability()
	s.checkLockFile()

	began := time.Now()
	s.do("helm uninstall svcscope -n svcscope")
	s.gone()
	if d := time.Since(began); d > 30*time.Second {
		t.Errorf("the pod was gone after %v, its grace period is 30 s", d)
	}
	if out := s.nodeAgent.Output(); strings.Contains(out, "the grace period is over") {
		t.Errorf("SIGTERM did not end the agent:\n%s", out)
	}
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
	// by itself.
	if out := s.do("kubectl -n svcscope exec ds/svcscope -- /bin/svcscope services --help"); !strings.Contains(out, "Usage:") {
		s.t.Errorf("help in the pod:\n%s", out)
	}
	if out, err := s.sh(exec + "no-such-command"); err == nil || !strings.Contains(out, "exit code 2") {
		s.t.Errorf("a command that fails: %v: %s", err, out)
	}
	if out := s.do("kubectl -n svcscope logs ds/svcscope"); !strings.Contains(out, "agent starts") {
		s.t.Errorf("the pod's log:\n%s", out)
	}
}

// checkRequests compares what the ServiceAccount may with what it asked. how
// is the verb by which the agent gets its lists.
func (s *installed) checkRequests(how string) {
	s.t.Helper()
	granted := s.grants()
	used := map[string]bool{}
	for _, r := range s.requests() {
		if r.ResponseStatus.Code == 403 {
			s.t.Errorf("refused: %s %s", r.Verb, r.URI)
		}
		if r.ObjectRef == nil || r.ObjectRef.Subresource != "" {
			s.t.Errorf("asked for what the ClusterRole does not grant: %s %s", r.Verb, r.URI)
			continue
		}
		key := r.Verb + " " + r.ObjectRef.APIGroup + "/" + r.ObjectRef.Resource
		if !granted[key] {
			s.t.Errorf("asked for what the ClusterRole does not grant: %s", key)
		}
		used[key] = true
	}
	for key := range granted {
		verb, resource, _ := strings.Cut(key, " ")
		switch {
		// Neither informers nor the agent get single objects. The verb is
		// granted with the other two by convention: who may list may read
		// each object as well.
		case verb == "get":
			if used[key] {
				s.t.Errorf("%s is used: the reason why this test forgives it no longer holds", key)
			}
		// Against an API server that streams lists, list is not used; where
		// it does not, watch follows list.
		case verb == "list" && how == "watch":
		case !used[key]:
			s.t.Errorf("granted and never used: %s %s", verb, resource)
		}
	}
}

// grants are the "VERB GROUP/RESOURCE" that the ClusterRole allows.
func (s *installed) grants() map[string]bool {
	s.t.Helper()
	var role struct {
		Rules []struct{ APIGroups, Resources, Verbs []string }
	}
	out := s.do("kubectl get clusterrole svcscope -o json")
	if err := json.Unmarshal([]byte(out), &role); err != nil {
		s.t.Fatal(err)
	}
	granted := map[string]bool{}
	for _, r := range role.Rules {
		for _, group := range r.APIGroups {
			for _, resource := range r.Resources {
				for _, verb := range r.Verbs {
					granted[verb+" "+group+"/"+resource] = true
				}
			}
		}
	}
	if len(granted) == 0 {
		s.t.Fatalf("the ClusterRole grants nothing:\n%s", out)
	}
	return granted
}

// checkNoToken sees that with kube=never the pod has no way to the API, and
// counts.
func (s *installed) checkNoToken() {
	s.t.Helper()
	if mounts := s.lab.Exec("node1", "cat", "/proc/"+s.pid()+"/mountinfo"); strings.Contains(mounts, "serviceaccount") {
		s.t.Errorf("a pod with kube=never has a token:\n%s", mounts)
	}
	before := len(s.requests())
	s.total = map[string]*opened{"IPv4": {}, "IPv6": {}}
	s.settled("a new pod counts from 0")
	s.open(50)
	s.settled("the pod counts without the API")
	if v, n := s.agent.metrics().sum("svcscope_kube_synced", nil); v != 0 || n != 1 {
		s.t.Errorf("svcscope_kube_synced is %v in %d series, want 0 in 1", v, n)
	}
	// The end of the pod before may be logged since.
	if all := s.requests(); slices.ContainsFunc(all[before:], func(r request) bool { return r.Verb != "watch" }) {
		s.t.Errorf("requests of a pod with kube=never: %v", all[before:])
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

// checkLockFile sees that the lock file's type is checked: where there is
// none the pod does not start and says so, and nothing is made.
func (s *installed) checkLockFile() {
	s.t.Helper()
	const file = "/run/xtables.lock"
	s.lab.Exec("node1", "rm", "-f", file)
	s.helm("--set legacy.lockFile=true")
	eventually(s.t, "the pod waits for the lock file", func() error {
		out := s.do("kubectl -n svcscope get events --field-selector reason=FailedMount -o jsonpath='{.items[*].message}'")
		if !strings.Contains(out, file+" is not of type File") {
			return fmt.Errorf("events: %q", out)
		}
		return nil
	})
	s.lab.Exec("node1", "sh", "-c", "test ! -e "+file+" && : >"+file)
	s.rollout()
	mounts := s.lab.Exec("node1", "cat", "/proc/"+s.pid()+"/mountinfo")
	if !strings.Contains(mounts, " "+file+" ro,") {
		s.t.Errorf("%s is not mounted read-only:\n%s", file, mounts)
	}
}

// TestPodList is against an API server that streams no lists, as those before
// Kubernetes 1.34: the fallback needs the verb list.
func TestPodList(t *testing.T) {
	s := newInstalled(t, "legacy", "--apiserver-arg=--feature-gates=WatchList=false")
	s.helm("--create-namespace")
	s.rollout()
	s.settled("the first reading is the baseline")
	s.open(100)
	s.settled("the pod counts what was opened")
	s.checkRequests("list")

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
