// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/svcscope/svcscope/hack/lab/labtest"
)

// imageName is what the chart's pods ask for by default.
const imageName = "ghcr.io/svcscope/svcscope:0.1.0"

// installed is a scene whose agent is the chart's pod, run by the lab node
// agent.
type installed struct {
	*scene
	nodeAgent *labtest.Process
}

// newInstalled brings a lab with the lab node agent up; nothing is installed
// yet.
func newInstalled(t *testing.T, backend string, args ...string) *installed {
	t.Helper()
	s := &installed{scene: newScene(t, backend, args...)}
	s.agent = &agent{t: t, lab: s.lab}
	s.nodeAgent = s.lab.StartNodeAgent(imageName, imagePath(t))
	return s
}

// imagePath is $SVCSCOPE_IMAGE, an OCI archive, or else a folder with what
// that would have in it, made from the program under test.
func imagePath(t *testing.T) string {
	t.Helper()
	if p := os.Getenv("SVCSCOPE_IMAGE"); p != "" {
		abs, err := filepath.Abs(p)
		if err != nil {
			t.Fatal(err)
		}
		return abs
	}
	dir := t.TempDir()
	program, err := os.ReadFile(svcscope)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "bin", "svcscope"), program, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// sh runs a script where the control plane is, as an administrator would who
// has the lab's helm and kubectl on the PATH. It returns what the script
// printed: kubectl exec passes on standard output and standard error each by
// its own, so that in one buffer a line of one can end within a line of the
// other. What went to standard error is in the error.
func (s *installed) sh(script string) (string, error) {
	s.t.Helper()
	cmd := s.lab.Command("exec", "control", "--", "sh", "-ec", script)
	home := s.t.TempDir()
	cmd.Env = append(cmd.Env, "PATH="+filepath.Dir(tool(s.t, "helm"))+":"+os.Getenv("PATH"),
		"HELM_CACHE_HOME="+home, "HELM_CONFIG_HOME="+home, "HELM_DATA_HOME="+home)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%w: %s", err, errs.Bytes())
	}
	return out.String(), nil
}

// do is sh for what must succeed.
func (s *installed) do(script string) string {
	s.t.Helper()
	out, err := s.sh(script)
	if err != nil {
		s.t.Fatalf("%s: %v\n%s\nlab node agent:\n%s", script, err, out, s.nodeAgent.Output())
	}
	return out
}

// fast are values for tests: every second a reading, and no wait at the start.
const fast = " --set interval=1s,kubeStartJitter=0s,metrics.endpoints=true,readinessProbe.periodSeconds=1 "

// helm installs or changes the release.
func (s *installed) helm(flags string) {
	s.t.Helper()
	chart, err := filepath.Abs(filepath.Join(repository, "charts", "svcscope"))
	if err != nil {
		s.t.Fatal(err)
	}
	s.do("helm upgrade --install svcscope " + chart + " -n svcscope" + fast + flags)
}

// rollout waits until the pod of the present template is ready.
func (s *installed) rollout() {
	s.t.Helper()
	s.do("kubectl -n svcscope rollout status ds/svcscope --timeout=60s")
}

// pod returns the name of the one pod.
func (s *installed) pod() string {
	s.t.Helper()
	name := s.do("kubectl -n svcscope get pods -o jsonpath='{.items[*].metadata.name}'")
	if name == "" || strings.Contains(name, " ") {
		s.t.Fatalf("pods are %q, want one", name)
	}
	return name
}

// gone sees that nothing of the release is left on the node.
func (s *installed) gone() {
	s.t.Helper()
	eventually(s.t, "the pod is gone", func() error {
		out := s.do("kubectl -n svcscope get ds,pods -o name")
		if out != "" {
			return fmt.Errorf("there are still %s", out)
		}
		return nil
	})
	if pid := s.pid(); pid != "" {
		s.t.Errorf("the agent's process %s is still there", pid)
	}
	if out := s.lab.Exec("node1", "find", "/run/lab/nodeagent/pods", "-mindepth", "1"); out != "" {
		s.t.Errorf("left of the pod on the node:\n%s", out)
	}
}

// request is one that the agent's ServiceAccount made.
type request struct {
	Verb string
	User struct {
		Username string
		Extra    map[string][]string
	}
	Received  time.Time `json:"requestReceivedTimestamp"`
	URI       string    `json:"requestURI"`
	ObjectRef *struct {
		Resource, APIGroup, Subresource string
	}
	ResponseStatus struct{ Code int }
}

// pod returns the name of the pod whose token the request came with.
func (r request) pod() string {
	return strings.Join(r.User.Extra["authentication.kubernetes.io/pod-name"], ",")
}

// requests reads the API server's audit log. Each request is there once or, if
// it is long, twice.
func (s *installed) requests() []request {
	s.t.Helper()
	text, err := os.ReadFile(s.lab.Info.AuditLog)
	if err != nil {
		s.t.Fatal(err)
	}
	var out []request
	for line := range strings.Lines(string(text)) {
		var r request
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			s.t.Fatalf("audit log: %v: %s", err, line)
		}
		if r.User.Username == "system:serviceaccount:svcscope:svcscope" {
			out = append(out, r)
		}
	}
	return out
}
