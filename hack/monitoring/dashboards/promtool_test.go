// SPDX-License-Identifier: Apache-2.0

package dashboards

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/svcscope/svcscope/internal/promtool"
)

// The types of promtool's test files, as far as they are used.
type (
	toolFile struct {
		FuzzyCompare bool       `json:"fuzzy_compare"`
		Tests        []toolTest `json:"tests"`
	}
	toolTest struct {
		Name     string       `json:"name"`
		Interval string       `json:"interval"`
		Series   []toolSeries `json:"input_series"`
		Exprs    []toolExpr   `json:"promql_expr_test"`
	}
	toolSeries struct {
		Series string `json:"series"`
		Values string `json:"values"`
	}
	toolExpr struct {
		Expr    string       `json:"expr"`
		At      string       `json:"eval_time"`
		Samples []toolSample `json:"exp_samples"`
	}
	toolSample struct {
		Labels string  `json:"labels"`
		Value  float64 `json:"value"`
	}
)

// resolved returns the expression of a target with All chosen everywhere and
// default/web as the one Service.
func resolved(t *testing.T, uid, panel string, target int) string {
	t.Helper()
	for _, d := range All() {
		for _, p := range d.Panels {
			if d.UID == uid && p.Title == panel {
				return strings.NewReplacer(
					"$cluster", ".*", "$node", ".*", `="$namespace"`, `="default"`, "$namespace", ".*", "$service", "web",
					"$__rate_interval", "4m", "$__range", "1h",
				).Replace(p.Targets[target].Expr)
			}
		}
	}
	t.Fatalf("no panel %s/%s", uid, panel)
	return ""
}

func runPromtool(t *testing.T, path string, tests ...toolTest) (string, error) {
	t.Helper()
	text, err := json.Marshal(toolFile{FuzzyCompare: true, Tests: tests})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "test.yaml")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), path, "test", "rules", file).CombinedOutput()
	return string(out), err
}

// TestAllParse lets Prometheus' own parser read every expression.
func TestAllParse(t *testing.T) {
	path := promtool.Path(t)
	test := toolTest{Name: "parse", Interval: "1m"}
	for _, d := range All() {
		for _, p := range d.Panels {
			for i := range p.Targets {
				test.Exprs = append(test.Exprs, toolExpr{Expr: resolved(t, d.UID, p.Title, i), At: "1m"})
			}
		}
	}
	if out, err := runPromtool(t, path, test); err != nil {
		t.Errorf("promtool test rules: %v\n%s", err, out)
	}
	test.Exprs = []toolExpr{{Expr: "sum by (", At: "1m"}}
	if _, err := runPromtool(t, path, test); err == nil {
		t.Error("promtool reads what is no expression")
	}
}

// TestValues checks what the less obvious expressions compute. Most series
// have neither the label cluster nor node.
func TestValues(t *testing.T) {
	path := promtool.Path(t)
	var right, wrong []toolTest
	for _, tt := range valueTests() {
		test := toolTest{Name: tt.name, Interval: tt.interval, Series: tt.series}
		e := toolExpr{Expr: resolved(t, tt.uid, tt.panel, tt.target), At: tt.at, Samples: tt.want}
		test.Exprs = []toolExpr{e}
		right = append(right, test)
		e.Samples = []toolSample{{Labels: `{wrong="yes"}`, Value: 1}}
		test.Exprs = []toolExpr{e}
		wrong = append(wrong, test)
	}
	if out, err := runPromtool(t, path, right...); err != nil {
		t.Errorf("promtool test rules: %v\n%s", err, out)
	}
	out, err := runPromtool(t, path, wrong...)
	if err == nil {
		t.Error("promtool accepts wrong results")
	}
	if n := strings.Count(out, "exp: {wrong="); n != len(wrong) {
		t.Errorf("promtool finds %d of %d wrong results:\n%s", n, len(wrong), out)
	}
}
