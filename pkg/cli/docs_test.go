// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"
)

func readDocs(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", "docs", "cli.md"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestDocsAreGenerated(t *testing.T) {
	var want bytes.Buffer
	if err := WriteDocs(&want); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want.String(), readDocs(t)); diff != "" {
		t.Errorf("docs/cli.md is not what the commands are: run `make generate` (-want +got):\n%s", diff)
	}
}

// TestFlagsAreDocumented compares what --help prints with docs/cli.md, flag by
// flag, so that it holds however the page is made.
func TestFlagsAreDocumented(t *testing.T) {
	sections := regexp.MustCompile(`(?m)^## `).Split(readDocs(t), -1)[1:]
	commands := newRoot(testEnv("svcscope")).Commands()
	if len(sections) != len(commands) {
		t.Errorf("docs/cli.md has %d commands, the tree %d", len(sections), len(commands))
	}
	documented := map[string][]string{}
	for _, s := range sections {
		name := regexp.MustCompile(`^svcscope (\S+)`).FindStringSubmatch(s)[1]
		for _, m := range regexp.MustCompile("(?m)^\\| `(?:-\\w, )?(--[a-z.-]+)").FindAllStringSubmatch(s, -1) {
			documented[name] = append(documented[name], m[1])
		}
	}
	for _, cmd := range commands {
		var help bytes.Buffer
		e := testEnv("svcscope")
		e.stdout, e.stderr = &help, &help
		if code := run(t.Context(), e, []string{cmd.Name(), "--help"}); code != exitOK {
			t.Fatalf("%s --help: exit status %d", cmd.Name(), code)
		}
		var got []string
		for _, m := range regexp.MustCompile(`(?m)^\s+(?:-\w, )?(--[a-z.-]+)`).FindAllStringSubmatch(help.String(), -1) {
			if m[1] != "--help" {
				got = append(got, m[1])
			}
		}
		want := documented[cmd.Name()]
		slices.Sort(want)
		slices.Sort(got)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("flags of %s (-docs/cli.md +help):\n%s", cmd.Name(), diff)
		}
	}
}

func TestCommandsAreComplete(t *testing.T) {
	for _, cmd := range newRoot(testEnv("svcscope")).Commands() {
		if cmd.Short == "" || cmd.RunE == nil {
			t.Errorf("%s lacks a description or does nothing", cmd.Name())
		}
		flags := 0
		cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
			flags++
			if f.Usage == "" {
				t.Errorf("%s --%s has no usage text", cmd.Name(), f.Name)
			}
		})
		most := 20
		if cmd.Name() == "agent" { // each is a choice of whoever installs it
			most = 30
		}
		if flags >= most {
			t.Errorf("%s has %d flags, want fewer than %d", cmd.Name(), flags, most)
		}
	}
	if root := newRoot(testEnv("svcscope")); root.HasAvailableLocalFlags() {
		t.Errorf("the root command has flags %s: give them to the commands that use them",
			root.LocalFlags().FlagUsages())
	}
}

// TestExamplesNameAUserWithTheRole: a kubelet, whose kubeconfig is on every
// node, may not list EndpointSlices.
func TestExamplesNameAUserWithTheRole(t *testing.T) {
	for _, cmd := range newRoot(testEnv("svcscope")).Commands() {
		if strings.Contains(cmd.Example, "kubelet") {
			t.Errorf("%s: the example takes a kubelet for the API's user:\n%s", cmd.Name(), cmd.Example)
		}
		if strings.Contains(cmd.Example, "--kubeconfig") && !strings.Contains(cmd.Example+cmd.Long, "deploy/clusterrole.yaml") {
			t.Errorf("%s: the example does not say which role the API's user needs", cmd.Name())
		}
	}
}
