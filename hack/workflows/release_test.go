// SPDX-License-Identifier: Apache-2.0

package workflows_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// TestReleaseIsGuarded: every job of a release that may write comes after the
// tests, the check that the tag is on main, and a reviewer's approval.
func TestReleaseIsGuarded(t *testing.T) {
	var w workflow
	load(t, filepath.Join(folder, "release.yaml"), &w)
	first := func(needle string) int {
		return slices.IndexFunc(w.Jobs["build"].Steps, func(s step) bool { return strings.Contains(s.Run, needle) })
	}
	if check, build := first("git merge-base --is-ancestor HEAD origin/main"), first("hack/release.sh"); check < 0 || check > build {
		t.Errorf("step %d of build checks that the tag is on main, step %d makes the release", check, build)
	}
	for id := range rights {
		id, ours := strings.CutPrefix(id, "release.yaml/")
		if !ours {
			continue
		}
		before := w.ancestors(id)
		for _, want := range []string{"test", "build"} {
			if !slices.Contains(before, want) {
				t.Errorf("%s may write and does not wait for %s: %q", id, want, before)
			}
		}
		if !slices.ContainsFunc(append(before, id), func(j string) bool { return w.Jobs[j].Environment == "release" }) {
			t.Errorf("%s may write without the environment release", id)
		}
	}
}

// ancestors are the jobs that a job waits for, and those that they wait for.
func (w *workflow) ancestors(id string) (all []string) {
	for n := range strings.FieldsSeq(strings.Trim(fmt.Sprint(w.Jobs[id].Needs), "[]")) {
		if _, ok := w.Jobs[n]; ok {
			all = append(all, n)
			all = append(all, w.ancestors(n)...)
		}
	}
	return all
}

// TestDependabotWatchesAllModules but those of the lab's programs, whose
// versions are chosen by hand.
func TestDependabotWatchesAllModules(t *testing.T) {
	var config struct {
		Updates []struct {
			Ecosystem   string   `json:"package-ecosystem"`
			Directories []string `json:"directories"`
		} `json:"updates"`
	}
	load(t, "../../.github/dependabot.yml", &config)
	var watched []string
	for _, u := range config.Updates {
		if u.Ecosystem == "gomod" {
			watched = append(watched, u.Directories...)
		}
	}
	var modules []string
	root := os.DirFS("../..")
	err := fs.WalkDir(root, ".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (path == "hack/lab/build" || path == "bin" || d.Name() == ".git" || d.Name() == "testdata"):
			return fs.SkipDir // in a worktree .git is a file
		case d.Name() == "go.mod":
			modules = append(modules, filepath.Join("/", filepath.Dir(path)))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(modules)
	slices.Sort(watched)
	if !slices.Equal(modules, watched) {
		t.Errorf("dependabot watches %q, modules are in %q", watched, modules)
	}
}

func load(t *testing.T, name string, v any) {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(data, v); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}
