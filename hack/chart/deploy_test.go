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
	"sigs.k8s.io/yaml"
)

// TestGeneratedFilesAreCurrent: what is in the repository is what the chart
// makes now.
func TestGeneratedFilesAreCurrent(t *testing.T) {
	t.Parallel()
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
	if d := cmp.Diff(want, readFile(t, path)); d != "" {
		t.Errorf("%s is stale: run make generate (-want +got):\n%s", path, d)
	}
}

// TestManifestsAreTheChart compares what kustomize builds with what the chart
// renders, object by object. Only the Namespace is more, and Helm's labels less.
func TestManifestsAreTheChart(t *testing.T) {
	t.Parallel()
	for folder, values := range map[string]string{
		".":                "kube=auto",
		"base":             "kube=auto",
		"overlays/minimal": "kube=never",
		"overlays/tap":     "tap=true",
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

// TestImageOfOnesOwn builds the folder that deploy/README.md shows.
func TestImageOfOnesOwn(t *testing.T) {
	t.Parallel()
	_, text, _ := strings.Cut(readFile(t, deployDir+"/README.md"), "```yaml\n")
	text, _, _ = strings.Cut(text, "```")
	// kustomize takes no absolute path.
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	deploy, err := filepath.Abs(deployDir)
	if err != nil {
		t.Fatal(err)
	}
	deploy, err = filepath.Rel(dir, deploy)
	if err != nil {
		t.Fatal(err)
	}
	text = strings.Replace(text, "../svcscope/deploy", deploy, 1)
	if err := os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := container(t, kustomize(t, dir)).Image; got != "registry.example.com/svcscope:0.1.0" {
		t.Errorf("image is %s", got)
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

// TestOnePatchAFile: kustomize before 5.7.0, and so kubectl before 1.34, panics
// at a patch of two documents that delete. And no file of an overlay is left
// from what is not generated any more.
func TestOnePatchAFile(t *testing.T) {
	overlays, err := filepath.Glob(deployDir + "/overlays/*/kustomization.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if len(overlays) == 0 {
		t.Fatal("no overlays")
	}
	for _, path := range overlays {
		var k struct {
			Patches []struct{ Path, Patch string }
		}
		if err := yaml.Unmarshal([]byte(readFile(t, path)), &k); err != nil {
			t.Fatal(err)
		}
		unused := map[string]bool{}
		files, err := filepath.Glob(filepath.Dir(path) + "/*")
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			unused[filepath.Base(f)] = f != path
		}
		for _, p := range k.Patches {
			text := p.Patch
			if p.Path != "" {
				text = readFile(t, filepath.Join(filepath.Dir(path), p.Path))
				unused[p.Path] = false
			}
			if n := len(documents(text)); n != 1 {
				t.Errorf("%s: patch %s has %d documents, want 1", path, p.Path, n)
			}
		}
		for name, is := range unused {
			if is {
				t.Errorf("%s does not name %s", path, name)
			}
		}
	}
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
