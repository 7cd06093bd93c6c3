// SPDX-License-Identifier: Apache-2.0

package rules

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"
)

const testsFolder = root + "/" + plainFolder + "tests"

func testFiles(t *testing.T) []string {
	t.Helper()
	paths, err := filepath.Glob(testsFolder + "/*.yaml")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no tests in %s: %v", testsFolder, err)
	}
	return paths
}

// unitTests is the part of promtool's test files that is looked at.
type unitTests struct {
	Order []string `json:"group_eval_order"`
	Tests []struct {
		Name   string `json:"name"`
		Alerts []struct {
			Name string `json:"alertname"`
			Want []any  `json:"exp_alerts"`
		} `json:"alert_rule_test"`
	} `json:"tests"`
}

// readTests returns the test files by name.
func readTests(t *testing.T) map[string]unitTests {
	t.Helper()
	all := make(map[string]unitTests)
	for _, path := range testFiles(t) {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var u unitTests
		if err := yaml.Unmarshal(text, &u); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		all[filepath.Base(path)] = u
	}
	return all
}

func alerts() []rule {
	var all []rule
	for _, g := range alertRules().Groups {
		all = append(all, g.Rules...)
	}
	return all
}

func TestEveryAlertIsTestedToFireAndNotTo(t *testing.T) {
	fires, silent := map[string]bool{}, map[string]bool{}
	for _, file := range readTests(t) {
		for _, test := range file.Tests {
			for _, a := range test.Alerts {
				fires[a.Name] = fires[a.Name] || len(a.Want) > 0
				silent[a.Name] = silent[a.Name] || len(a.Want) == 0
			}
		}
	}
	known := map[string]bool{}
	for _, a := range alerts() {
		known[a.Alert] = true
		if !fires[a.Alert] {
			t.Errorf("no test lets %s fire", a.Alert)
		}
		if !silent[a.Alert] {
			t.Errorf("no test expects %s not to fire", a.Alert)
		}
	}
	for name := range fires {
		if !known[name] {
			t.Errorf("tests name %s, which is no alert", name)
		}
	}
}

// What a group records must be there when the alerts of the same moment are
// evaluated, and promtool's order is random where it is not given.
func TestUnitTestsGiveTheOrderOfAllGroups(t *testing.T) {
	var want []string
	for _, f := range []file{recordingRules(), alertRules()} {
		for _, g := range f.Groups {
			want = append(want, g.Name)
		}
	}
	for name, u := range readTests(t) {
		if diff := cmp.Diff(want, u.Order); diff != "" {
			t.Errorf("%s: group_eval_order (-want +got)\n%s", name, diff)
		}
	}
}

func TestEveryAlertHasItsRunbook(t *testing.T) {
	text, err := os.ReadFile(root + "/docs/runbooks.md")
	if err != nil {
		t.Fatal(err)
	}
	sections := map[string]string{}
	for _, part := range strings.Split("\n"+string(text), "\n## ")[1:] {
		title, body, _ := strings.Cut(part, "\n")
		sections[title] = body
	}
	for _, a := range alerts() {
		body, ok := sections[a.Alert]
		delete(sections, a.Alert)
		if !ok {
			t.Errorf("docs/runbooks.md has no section %q", a.Alert)
			continue
		}
		if !strings.Contains(body, "\nSeverity: "+a.Labels["severity"]+".") {
			t.Errorf("the runbook of %s does not say that it is %s", a.Alert, a.Labels["severity"])
		}
		for _, item := range []string{"**Means:**", "**How bad:**", "**Confirm:**", "**Do:**", "**False alarms:**"} {
			if !strings.Contains(body, item) {
				t.Errorf("the runbook of %s has no %s", a.Alert, item)
			}
		}
		if want := RunbookBase + strings.ToLower(a.Alert); a.Annotations["runbook_url"] != want {
			t.Errorf("%s: runbook_url is %q, want %q", a.Alert, a.Annotations["runbook_url"], want)
		}
	}
	for title := range sections {
		if strings.HasPrefix(title, "Svcscope") {
			t.Errorf("docs/runbooks.md has a section %s, which is no alert", title)
		}
	}
}

var anyToken = regexp.MustCompile(`__[A-Z0-9_]+__`)

func TestTokensAndThresholdsAgree(t *testing.T) {
	out := files(t)
	used := map[string]bool{}
	for path, text := range out {
		tokens := anyToken.FindAllString(string(text), -1)
		if !strings.HasPrefix(path, chartFolder) && len(tokens) > 0 {
			t.Errorf("%s has the tokens %v", path, tokens)
		}
		for _, token := range tokens {
			used[token] = true
		}
	}
	var defaults map[string]float64
	if err := yaml.UnmarshalStrict(out[chartFolder+"thresholds.yaml"], &defaults); err != nil {
		t.Fatal(err)
	}
	for _, th := range thresholds() {
		if !used[th.token()] {
			t.Errorf("no rule uses %s", th.name)
		}
		delete(used, th.token())
		if got, ok := defaults[th.name]; !ok || got != th.value {
			t.Errorf("thresholds.yaml: %s is %v, want %v", th.name, got, th.value)
		}
	}
	for token := range used {
		t.Errorf("%s has no threshold", token)
	}
	if len(defaults) != len(thresholds()) {
		t.Errorf("thresholds.yaml has %d numbers, want %d", len(defaults), len(thresholds()))
	}
}

// A threshold in an expression and in the text of the same alert are one
// number only if both are the token.
func TestTextsNameTheirThreshold(t *testing.T) {
	for _, a := range alerts() {
		for _, token := range anyToken.FindAllString(a.Expr, -1) {
			if !strings.Contains(a.Annotations["description"], token) {
				t.Errorf("%s: the description does not tell %s", a.Alert, token)
			}
		}
	}
}
