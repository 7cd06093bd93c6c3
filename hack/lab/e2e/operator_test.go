// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// checkOperator installs the chart for real before and after the API server
// has the kinds of the Prometheus operator: `auto` is what helm reads from it.
func (m manifests) checkOperator(t *testing.T) {
	const release, namespace = "watch", "auto"
	helm := m.helm(t)
	chart, err := filepath.Abs(filepath.Join(repository, "charts", "svcscope"))
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[string]string{"PodMonitor": "podmonitors", "PrometheusRule": "prometheusrules"}

	helm("install", release, chart, "--namespace="+namespace, "--create-namespace")
	manifest := helm("get", "manifest", release, "--namespace="+namespace)
	if !strings.Contains(manifest, "\nkind: DaemonSet\n") || strings.Contains(manifest, "monitoring.coreos.com") {
		t.Errorf("without the operator's kinds there is\n%s", manifest)
	}
	for kind, plural := range kinds {
		if out, err := m.apply(crd(kind, plural)); err != nil {
			t.Fatalf("kind %s: %v\n%s", kind, err, out)
		}
		m.lab.Kubectl("wait", "--for=condition=Established", "--timeout=60s", "crd/"+plural+".monitoring.coreos.com")
	}
	helm("upgrade", release, chart, "--namespace="+namespace)
	all := []string{
		"get", "podmonitors,prometheusrules", "--all-namespaces", "-o",
		`jsonpath={range .items[*]}{.kind} {.metadata.namespace}/{.metadata.name}{"\n"}{end}`,
	}
	got := strings.Split(strings.TrimSpace(m.lab.Kubectl(all...)), "\n")
	slices.Sort(got)
	name := " " + namespace + "/" + release + "-svcscope"
	if want := []string{"PodMonitor" + name, "PrometheusRule" + name}; !slices.Equal(got, want) {
		t.Errorf("with the operator's kinds there are %q, want %q", got, want)
	}
	helm("uninstall", release, "--namespace="+namespace)
	if left := m.lab.Kubectl(all...); left != "" {
		t.Errorf("helm uninstall leaves %s", left)
	}
}

// helm returns a function that runs helm in the lab and returns its standard
// output. What helm and its client remember of a server is the test's own.
func (m manifests) helm(t *testing.T) func(args ...string) string {
	t.Helper()
	program, home := tool(t, "helm"), t.TempDir()
	return func(args ...string) string {
		t.Helper()
		cmd := m.lab.Command(append([]string{"exec", "control", "--", program}, args...)...)
		cmd.Env = append(cmd.Env, "HOME="+home, "HELM_CACHE_HOME="+home, "HELM_CONFIG_HOME="+home, "HELM_DATA_HOME="+home,
			"HELM_PLUGINS="+os.DevNull)
		return output(t, cmd)
	}
}

// crd returns a CustomResourceDefinition of a kind of the Prometheus operator,
// with any content.
func crd(kind, plural string) string {
	return fmt.Sprintf(`
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: %[2]s.monitoring.coreos.com
spec:
  group: monitoring.coreos.com
  scope: Namespaced
  names: {kind: %[1]s, plural: %[2]s, singular: %[3]s}
  versions:
    - name: v1
      served: true
      storage: true
      schema:
        openAPIV3Schema:
          type: object
          x-kubernetes-preserve-unknown-fields: true
`, kind, plural, strings.ToLower(kind))
}
