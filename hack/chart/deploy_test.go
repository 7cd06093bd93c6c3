// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
)

// TestGeneratedFilesAreCurrent: what is in the repository is what the chart
// makes now.
func TestGeneratedFilesAreCurrent(t *testing.T) {
	files, err := manifests(needHelm(t))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range files {
		current(t, filepath.Join(deployDir, name), want)
	}
}

func current(t *testing.T, path, want string) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, string(got)); d != "" {
		t.Errorf("%s is stale: run make generate (-want +got):\n%s", path, d)
	}
}

// TestManifestsAreTheChart compares what kustomize builds with what the chart
// renders, object by object. Only the Namespace is more, and Helm's labels less.
func TestManifestsAreTheChart(t *testing.T) {
	for folder, values := range map[string]string{
		".":                "kube=auto",
		"base":             "kube=auto",
		"overlays/minimal": "kube=never",
	} {
		t.Run(folder, func(t *testing.T) {
			built := kustomize(t, filepath.Join(deployDir, folder))
			ns := one[*corev1.Namespace](t, built)
			delete(built, id(ns))
			for _, mode := range []string{"enforce", "audit", "warn"} {
				if ns.Labels["pod-security.kubernetes.io/"+mode] != "privileged" {
					t.Errorf("labels of the namespace are %v", ns.Labels)
				}
			}
			want := render(t, "--set", values)
			for _, o := range want {
				labels := o.GetLabels()
				delete(labels, "helm.sh/chart")
				delete(labels, "app.kubernetes.io/managed-by")
				if !strings.HasPrefix(id(o), "ClusterRole") && o.GetNamespace() != ns.Name {
					t.Errorf("%s is not in namespace %s", id(o), ns.Name)
				}
			}
			if d := cmp.Diff(want, built); d != "" {
				t.Errorf("objects (-chart +kustomize):\n%s", d)
			}
		})
	}
}

// kustomize returns the objects that `kubectl apply -k` would apply.
func kustomize(t *testing.T, folder string) map[string]object {
	t.Helper()
	cmd := exec.Command(need(t, labBinaries.kubectl), "kustomize", folder)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("kubectl kustomize %s: %v: %s", folder, err, stderr.String())
	}
	if stderr.Len() > 0 {
		t.Errorf("kubectl kustomize %s warns: %s", folder, stderr.String())
	}
	return mustDecode(t, string(out))
}
