// SPDX-License-Identifier: Apache-2.0

// Package workflows_test holds .github/workflows to the rules by which a
// stranger's pull request, or an action that turns bad, gets nothing.
package workflows_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

const folder = "../../.github/workflows"

// Jobs that may have a right to write, and which: every other has none.
var rights = map[string][]string{
	"release.yaml/publish": {"attestations", "id-token", "packages"},
	"release.yaml/release": {"contents"},
}

type workflow struct {
	On          any            `json:"true"` // YAML 1.1 reads the key on as true
	Permissions *permissions   `json:"permissions"`
	Concurrency any            `json:"concurrency"`
	Jobs        map[string]job `json:"jobs"`
}

type job struct {
	Uses        string       `json:"uses"`
	Needs       any          `json:"needs"` // a name or names
	Environment string       `json:"environment"`
	Permissions *permissions `json:"permissions"`
	Timeout     int          `json:"timeout-minutes"`
	Steps       []step       `json:"steps"`
}

type step struct {
	Uses string         `json:"uses"`
	Run  string         `json:"run"`
	With map[string]any `json:"with"`
}

// permissions are rights by scope. Words for all scopes, like read-all, do not
// parse.
type permissions map[string]string

// pinned is a use of an action: owner/name[/path]@commit # version.
var pinned = regexp.MustCompile(`^[\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$`)

func TestWorkflows(t *testing.T) {
	names, err := filepath.Glob(filepath.Join(folder, "*"))
	if err != nil || len(names) == 0 {
		t.Fatalf("no workflows in %s: %v", folder, err)
	}
	for _, name := range names {
		t.Run(filepath.Base(name), func(t *testing.T) {
			data, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			for _, problem := range check(filepath.Base(name), data) {
				t.Error(problem)
			}
		})
	}
}

// TestCheck breaks a workflow in every way that check has to notice.
func TestCheck(t *testing.T) {
	const good = `# SPDX-License-Identifier: Apache-2.0
on:
  pull_request:
permissions: {}
concurrency: {group: x}
jobs:
  a:
    runs-on: ubuntu-24.04
    timeout-minutes: 5
    permissions:
      contents: read
    steps:
      - uses: actions/checkout@0123456789abcdef0123456789abcdef01234567 # v1.2.3
        with:
          persist-credentials: false
      - run: make
`
	if problems := check("good.yaml", []byte(good)); len(problems) > 0 {
		t.Fatalf("a good workflow: %q", problems)
	}
	for _, tc := range []struct{ old, new, want string }{
		{"# SPDX", "#", "no SPDX"},
		{"pull_request:", "pull_request_target:", "pull_request_target"},
		{"pull_request:", "workflow_run:", "workflow_run"},
		{"permissions: {}", "permissions: {contents: read}", "top level"},
		{"permissions: {}\n", "", "top level"},
		{"concurrency: {group: x}\n", "", "concurrency"},
		{"    timeout-minutes: 5\n", "", "timeout"},
		{"    permissions:\n      contents: read\n", "", "no permissions"},
		{"contents: read", "contents: write", "contents"},
		{"contents: read", "id-token: write", "id-token"},
		{"@0123456789abcdef0123456789abcdef01234567 # v1.2.3", "@v1", "not pinned"},
		{" # v1.2.3", "", "not pinned"},
		{"persist-credentials: false", "fetch-depth: 0", "persist-credentials"},
		{"run: make", "run: echo ${{ github.event.pull_request.title }}", "expression"},
		{"run: make", "run: echo ${{ github.head_ref }}", "expression"},
	} {
		broken := strings.Replace(good, tc.old, tc.new, 1)
		if broken == good {
			t.Errorf("%q is not in the workflow", tc.old)
		}
		if got := check("bad.yaml", []byte(broken)); !strings.Contains(strings.Join(got, "\n"), tc.want) {
			t.Errorf("%q for %q: found %q, want something about %q", tc.new, tc.old, got, tc.want)
		}
	}
}

// check returns what is wrong with the workflow data in the file name.
func check(name string, data []byte) (problems []string) {
	report := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	var w workflow
	if err := yaml.Unmarshal(data, &w); err != nil {
		return []string{err.Error()}
	}
	if !strings.HasPrefix(string(data), "# SPDX-License-Identifier: Apache-2.0\n") {
		report("no SPDX line")
	}
	// Both run with the repository's rights on what a stranger wrote.
	for _, event := range []string{"pull_request_target", "workflow_run"} {
		if strings.Contains(fmt.Sprint(w.On), event) {
			report("triggered by %s", event)
		}
	}
	if w.Permissions == nil || len(*w.Permissions) > 0 {
		report("permissions at the top level are not {}")
	}
	if w.Concurrency == nil {
		report("no concurrency")
	}
	for line := range strings.Lines(string(data)) {
		_, use, ok := strings.Cut(line, "uses: ")
		if use = strings.TrimSpace(use); ok && !strings.HasPrefix(use, "./") && !pinned.MatchString(use) {
			report("not pinned by a commit with its version in a comment: %s", use)
		}
	}
	for id, j := range w.Jobs {
		problems = append(problems, checkJob(name+"/"+id, j)...)
	}
	return problems
}

func checkJob(id string, j job) (problems []string) {
	report := func(format string, args ...any) {
		problems = append(problems, id+": "+fmt.Sprintf(format, args...))
	}
	if j.Timeout == 0 && j.Uses == "" {
		report("no timeout")
	}
	if j.Permissions == nil {
		report("no permissions of its own")
	} else {
		for scope, right := range *j.Permissions {
			if right != "read" && !slices.Contains(rights[id], scope) {
				report("may %s %s", right, scope)
			}
		}
	}
	for _, s := range j.Steps {
		if strings.HasPrefix(s.Uses, "actions/checkout@") && s.With["persist-credentials"] != false {
			report("checkout without persist-credentials: false")
		}
		// An expression in a script is text before the shell reads it; values
		// come by env, where they stay values.
		if strings.Contains(s.Run, "${{") {
			report("an expression in a script: %q", s.Run)
		}
	}
	return problems
}
