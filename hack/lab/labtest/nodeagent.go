// SPDX-License-Identifier: Apache-2.0

package labtest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// NodeAgentProgram builds the lab node agent for the test.
// $SVCSCOPE_NODEAGENT_PROGRAM names one that is built already.
func NodeAgentProgram(t testing.TB) string {
	t.Helper()
	if p := os.Getenv("SVCSCOPE_NODEAGENT_PROGRAM"); p != "" {
		return p
	}
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		t.Fatalf("folder of the lab's module: %v", err)
	}
	path := filepath.Join(t.TempDir(), "nodeagent")
	cmd := exec.Command("go", "build", "-o", path, ".")
	cmd.Dir = filepath.Join(strings.TrimSpace(string(dir)), "..", "nodeagent")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the lab node agent: %v: %s", err, out)
	}
	return path
}

// StartNodeAgent starts the lab node agent on node1 with one image: the name
// that pods give it, and an OCI archive or a folder. It returns when DaemonSets
// get their pods.
func (l *Lab) StartNodeAgent(image, path string) *Process {
	l.t.Helper()
	p := l.StartProcess("node1", NodeAgentProgram(l.t), "-kubeconfig="+l.Info.Kubeconfig, "-node=node1", "-image="+image+"="+path)
	p.WaitOutput(l.t, "the lab node agent is ready")
	return p
}
