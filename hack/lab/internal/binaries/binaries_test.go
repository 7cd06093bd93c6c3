// SPDX-License-Identifier: Apache-2.0

package binaries

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// program writes a script that prints a version.
func program(t *testing.T, dir, name, version string) string {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte("#!/bin/sh\necho '"+version+"'\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestWhereProgramsAreFound(t *testing.T) {
	named, path, cache := t.TempDir(), t.TempDir(), t.TempDir()
	t.Setenv("SVCSCOPE_LAB_BIN", "")
	t.Setenv("XDG_CACHE_HOME", cache)
	t.Setenv("PATH", path+":/usr/bin:/bin")
	expect := func(name, want string) {
		t.Helper()
		got, err := Find(name)
		if want == "" {
			if !errors.Is(err, ErrMissing) {
				t.Errorf("%s: %v, %v, want ErrMissing", name, got, err)
			}
			return
		}
		if err != nil || got[name] != want {
			t.Errorf("%s: %v, %v, want %s", name, got, err, want)
		}
	}
	expect("kube-proxy", "")
	program(t, path, "kube-proxy", "Kubernetes v1.37.1")
	expect("kube-proxy", "")
	onPath := program(t, path, "kube-proxy", "Kubernetes "+KubernetesVersion)
	expect("kube-proxy", onPath)
	set, _ := setOf("kube-proxy")
	cached := program(t, set.dir(filepath.Join(cache, "svcscope", "lab")), "kube-proxy", "")
	expect("kube-proxy", cached)
	t.Setenv("SVCSCOPE_LAB_BIN", named)
	expect("kube-proxy", cached)
	expect("kube-proxy", program(t, named, "kube-proxy", "")) // whoever names a folder means it
}

func TestVersionsAsProgramsPrintThem(t *testing.T) {
	dir := t.TempDir()
	for name, out := range map[string]string{
		"etcd": "etcd Version: 3.7.3", "kubectl": "Client Version: v1.37.2", "promtool": "promtool, version 3.16.0 (branch: x)",
	} {
		set, _ := setOf(name)
		if !set.isVersion(program(t, dir, name, out), name) {
			t.Errorf("%s: %q is not recognised as %s", name, out, set.Version)
		}
		if set.isVersion(program(t, dir, name, strings.NewReplacer("3", "4").Replace(out)), name) {
			t.Errorf("%s: another version is taken for %s", name, set.Version)
		}
	}
}

func TestModulesAreFoundAndPinnedToTheVersions(t *testing.T) {
	t.Setenv("SVCSCOPE_LAB_MODULES", "")
	dir, err := Builder{}.modules()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range Sets() {
		b, err := os.ReadFile(filepath.Join(dir, s.Name, "go.mod"))
		if err != nil {
			t.Fatal(err)
		}
		if v := "v" + strings.TrimPrefix(s.Version, "v"); !strings.Contains(string(b), " "+v) {
			t.Errorf("module %s does not require %s", s.Name, v)
		}
	}
}

func TestUnknownSet(t *testing.T) {
	if err := (Builder{Out: io.Discard}).Build(t.Context(), []string{"kubelet"}); err == nil {
		t.Error("no error")
	}
}
