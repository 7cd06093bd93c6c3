// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
)

// operator has the chart see a cluster with the Prometheus operator.
const operator = "--api-versions=monitoring.coreos.com/v1,monitoring.coreos.com/v1/PodMonitor," +
	"monitoring.coreos.com/v1/ServiceMonitor,monitoring.coreos.com/v1/PrometheusRule"

var labBinaries = struct{ helm, kubectl func() (string, error) }{
	helm:    sync.OnceValues(func() (string, error) { return labBinary("helm") }),
	kubectl: sync.OnceValues(func() (string, error) { return labBinary("kubectl") }),
}

// need returns the path of a binary of the lab. Where it is not built the test
// is skipped, or fails with SVCSCOPE_REQUIRE_LAB=1.
func need(t *testing.T, find func() (string, error)) string {
	t.Helper()
	path, err := find()
	switch {
	case err == nil:
	case os.Getenv("SVCSCOPE_REQUIRE_LAB") == "1":
		t.Fatal(err)
	default:
		t.Skip(err)
	}
	return path
}

func needHelm(t *testing.T) helm {
	t.Helper()
	return helm(need(t, labBinaries.helm))
}

// render returns the objects of release svcscope in namespace svcscope.
func render(t *testing.T, args ...string) map[string]object {
	t.Helper()
	text, err := needHelm(t).template(release, append([]string{"--namespace", release}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	return mustDecode(t, text)
}

func mustDecode(t *testing.T, text string) map[string]object {
	t.Helper()
	objects, err := decode(text)
	if err != nil {
		t.Fatal(err)
	}
	out, err := byID(objects)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// with returns the argument that has helm read these values.
func with(t *testing.T, values string) string {
	t.Helper()
	// Not TempDir: it has the test's name in it, and helm splits at commas.
	dir, err := os.MkdirTemp("", "values-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "values.yaml")
	if err := os.WriteFile(path, []byte(values), 0o600); err != nil {
		t.Fatal(err)
	}
	return "--values=" + path
}

// ofKind returns all objects of one type.
func ofKind[T object](objects map[string]object) []T {
	var out []T
	for _, name := range sorted(objects) {
		if o, ok := objects[name].(T); ok {
			out = append(out, o)
		}
	}
	return out
}

// one returns the only object of its type.
func one[T object](t *testing.T, objects map[string]object) T {
	t.Helper()
	all := ofKind[T](objects)
	if len(all) != 1 {
		t.Fatalf("%d objects are %T, want 1, in %v", len(all), *new(T), sorted(objects))
	}
	return all[0]
}

// none fails if an object of the type is there.
func none[T object](t *testing.T, objects map[string]object) {
	t.Helper()
	for _, o := range ofKind[T](objects) {
		t.Errorf("%s is there", id(o))
	}
}

func podSpec(t *testing.T, objects map[string]object) corev1.PodSpec {
	t.Helper()
	return one[*appsv1.DaemonSet](t, objects).Spec.Template.Spec
}

// container returns the agent's container, which is the only one.
func container(t *testing.T, objects map[string]object) corev1.Container {
	t.Helper()
	spec := podSpec(t, objects)
	if len(spec.Containers) != 1 || len(spec.InitContainers) != 0 {
		t.Fatalf("%d containers and %d init containers, want 1 and 0", len(spec.Containers), len(spec.InitContainers))
	}
	return spec.Containers[0]
}

// flag returns the values that the container's args give a flag.
func flag(c corev1.Container, name string) []string {
	var out []string
	for _, a := range c.Args {
		if v, ok := strings.CutPrefix(a, "--"+name+"="); ok {
			out = append(out, v)
		}
	}
	return out
}

// ciValues returns the value files in the chart's ci folder by name.
func ciValues(t *testing.T) map[string]string {
	t.Helper()
	paths, err := filepath.Glob(chartDir + "/ci/*-values.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if len(paths) == 0 {
		t.Fatal("no value files in ci")
	}
	out := map[string]string{}
	for _, p := range paths {
		out[filepath.Base(p)] = p
	}
	return out
}
