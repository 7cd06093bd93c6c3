// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

// window and past are what every range and every offset in the rules become:
// a fault must begin and end within a test.
const window, past = "10s", "5s"

var (
	waitsRE  = regexp.MustCompile(`(?m)^(\s*(?:- )?(?:for|keep_firing_for)): *\S+$`)
	everyRE  = regexp.MustCompile(`(?m)^\s*interval: *\S+\n`)
	offsetRE = regexp.MustCompile(`\boffset \d+\w+`)
	rangesRE = regexp.MustCompile(`\[\d+\w+(:(\d+\w+)?)?\]`)
)

// shorten makes rules quick enough for a test: an alert waits one second, not
// minutes, groups have Prometheus' own interval, and ranges and offsets become
// seconds. Nothing else of the expressions changes.
func shorten(rules string) string {
	rules = waitsRE.ReplaceAllString(rules, "$1: 1s")
	rules = everyRE.ReplaceAllString(rules, "")
	rules = offsetRE.ReplaceAllString(rules, "offset "+past)
	return rangesRE.ReplaceAllStringFunc(rules, func(r string) string {
		if m := rangesRE.FindStringSubmatch(r); m[1] != "" {
			return "[" + window + ":1s]"
		}
		return "[" + window + "]"
	})
}

// shortRules writes the project's rules as shorten makes them and returns the
// files.
func shortRules(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("..", "..", "..", "dashboards", "rules", "*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no rules in dashboards/rules: %v", err)
	}
	dir := t.TempDir()
	for i, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		files[i] = filepath.Join(dir, fmt.Sprintf("%d-%s", i, filepath.Base(f)))
		if err := os.WriteFile(files[i], []byte(shorten(string(b))), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return files
}

func TestShorten(t *testing.T) {
	got := shorten(`groups:
- name: a
  interval: 1m
  rules:
  - alert: B
    expr: increase(m[10m]) > 0 and predict_linear(n[1h], 4*3600) > 5 and max_over_time(o[1d:15m] offset 20h) > 1
    for: 15m
    keep_firing_for: 5m
    annotations: {summary: "for: 15m interval: [10m]"}
`)
	want := `groups:
- name: a
  rules:
  - alert: B
    expr: increase(m[10s]) > 0 and predict_linear(n[10s], 4*3600) > 5 and max_over_time(o[10s:1s] offset 5s) > 1
    for: 1s
    keep_firing_for: 1s
    annotations: {summary: "for: 15m interval: [10s]"}
`
	if got != want {
		t.Errorf("shorten gives:\n%s\nwant:\n%s", got, want)
	}
}
