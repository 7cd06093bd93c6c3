// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/svcscope/svcscope/hack/lab/labtest"
)

// repository is the way to the repository's root from here.
const repository = "../../.."

// TestManifests has the real API server judge the chart and deploy/: each
// object is taken as it is, and Pod Security refuses the pod where we say so.
func TestManifests(t *testing.T) {
	t.Parallel()
	rendered := renderings(t)
	lab := labtest.Start(t, labtest.Options{Pods: 1})
	m := manifests{lab: lab}
	for name, text := range rendered {
		m.makeNamespaces(t, text)
		t.Run(name, func(t *testing.T) {
			if out, err := m.apply(text, "--dry-run=server"); err != nil {
				t.Errorf("refused: %v\n%s", err, out)
			}
		})
	}
	t.Run("pod security", func(t *testing.T) { m.checkPodSecurity(t, rendered["deploy"]) })
	t.Run("operator", m.checkOperator)
}

// renderings returns what the chart and kustomize make of the defaults, of the
// chart's values for tests, and of the overlays. Objects of the Prometheus
// operator are left out: the lab has its kinds only in checkOperator.
func renderings(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	chart := repository + "/charts/svcscope"
	files, err := filepath.Glob(chart + "/ci/*-values.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("values for tests: %v, %v", files, err)
	}
	helm, kubectl := tool(t, "helm"), tool(t, "kubectl")
	for _, f := range append(files, chart+"/values.yaml") {
		text := output(t, exec.Command(helm, "template", "svcscope", chart, "--namespace=svcscope", "--values="+f))
		out["chart with "+filepath.Base(f)] = withoutOperator(text)
	}
	out["deploy"] = output(t, exec.Command(kubectl, "kustomize", repository+"/deploy"))
	overlays, err := os.ReadDir(repository + "/deploy/overlays")
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range overlays {
		out["overlay "+o.Name()] = output(t, exec.Command(kubectl, "kustomize", repository+"/deploy/overlays/"+o.Name()))
	}
	return out
}

func output(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	b, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v: %s", cmd.Args, err, stderr.Bytes())
	}
	return string(b)
}

func withoutOperator(text string) string {
	docs := strings.Split(text, "\n---")
	docs = slices.DeleteFunc(docs, func(d string) bool { return strings.Contains(d, "\napiVersion: monitoring.coreos.com/") })
	return strings.Join(docs, "\n---")
}

// manifests applies documents in a lab.
type manifests struct{ lab *labtest.Lab }

// apply runs `kubectl apply --server-side` on documents. A warning of the API
// server is an error too.
func (m manifests) apply(text string, flags ...string) (string, error) {
	cmd := m.lab.Command(append([]string{"kubectl", "--", "apply", "--server-side", "--warnings-as-errors", "-f", "-"}, flags...)...)
	cmd.Stdin = strings.NewReader(text)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// makeNamespaces makes the namespaces that documents name: in a dry run an
// object needs its own.
func (m manifests) makeNamespaces(t *testing.T, text string) {
	t.Helper()
	for _, match := range regexp.MustCompile(`(?m)^  namespace: "?([a-z0-9-]+)"?$`).FindAllStringSubmatch(text, -1) {
		m.namespace(t, match[1], "privileged")
	}
}

// namespace makes a namespace that enforces a level of Pod Security.
func (m manifests) namespace(t *testing.T, name, level string) {
	t.Helper()
	text := `{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "` + name +
		`", "labels": {"pod-security.kubernetes.io/enforce": "` + level + `"}}}`
	if out, err := m.apply(text); err != nil {
		t.Fatalf("namespace %s: %v\n%s", name, err, out)
	}
}

// checkPodSecurity makes the pod of deploy/'s DaemonSet: first in its own
// namespace, then in one of each level. No controller is here to do it.
func (m manifests) checkPodSecurity(t *testing.T, text string) {
	if out, err := m.apply(text); err != nil {
		t.Fatalf("apply deploy: %v\n%s", err, out)
	}
	if out, err := m.apply(m.pod(t, text, "svcscope"), "--dry-run=server"); err != nil {
		t.Errorf("the pod is refused in deploy's own namespace: %v\n%s", err, out)
	}
	// What the levels find, in their words; and so, what they do not find:
	// escalation, other capabilities, seccomp, host paths, the node's processes.
	const netAdmin = ` capabilities (container "svcscope" must not include "NET_ADMIN" in securityContext.capabilities.add)`
	network := []string{
		`host namespaces (hostNetwork=true)`,
		`hostPort (container "svcscope" uses hostPorts 10988, 10989)`,
		`probe or lifecycle host (container "svcscope" uses probe or lifecycle host "127.0.0.1")`,
	}
	for level, want := range map[string][]string{
		"privileged": nil,
		"baseline":   append([]string{"non-default" + netAdmin}, network...),
		"restricted": append([]string{
			"unrestricted" + netAdmin,
			`runAsNonRoot != true (pod or container "svcscope" must set securityContext.runAsNonRoot=true)`,
			`runAsUser=0 (container "svcscope" must not set runAsUser=0)`,
		}, network...),
	} {
		t.Run(level, func(t *testing.T) {
			ns := "level-" + level
			m.namespace(t, ns, level)
			account := `{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "svcscope", "namespace": "` + ns + `"}}`
			if out, err := m.apply(account); err != nil {
				t.Fatalf("account: %v\n%s", err, out)
			}
			out, err := m.apply(m.pod(t, text, ns), "--dry-run=server")
			if (err != nil) != (want != nil) {
				t.Errorf("the pod is admitted: %v\n%s", err == nil, out)
			}
			slices.Sort(want)
			if got := violations(out); !slices.Equal(got, want) {
				t.Errorf("violations are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
		})
	}
}

// violations returns what Pod Security's message lists, sorted.
func violations(message string) []string {
	_, list, found := strings.Cut(message, `:latest": `)
	if !found {
		return nil
	}
	out := strings.Split(strings.TrimSuffix(strings.TrimSpace(list), ")"), "), ")
	for i := range out {
		out[i] += ")"
	}
	slices.Sort(out)
	return out
}

// pod returns a Pod made of the DaemonSet's template.
func (m manifests) pod(t *testing.T, text, namespace string) string {
	t.Helper()
	cmd := m.lab.Command("kubectl", "--", "create", "--dry-run=client", "-o", "json", "-f", "-")
	for doc := range strings.SplitSeq(text, "\n---\n") {
		if strings.Contains(doc, "\nkind: DaemonSet\n") {
			cmd.Stdin = strings.NewReader(doc)
		}
	}
	var ds struct {
		Spec struct {
			Template map[string]any `json:"template"`
		} `json:"spec"`
	}
	if err := json.Unmarshal([]byte(output(t, cmd)), &ds); err != nil {
		t.Fatal(err)
	}
	pod := ds.Spec.Template
	pod["apiVersion"], pod["kind"] = "v1", "Pod"
	meta, _ := pod["metadata"].(map[string]any)
	meta["name"], meta["namespace"] = "svcscope", namespace
	b, err := json.Marshal(pod)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
