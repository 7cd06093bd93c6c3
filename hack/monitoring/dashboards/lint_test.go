// SPDX-License-Identifier: Apache-2.0

package dashboards

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/svcscope/svcscope/pkg/metrics"
)

// targetLabels are those that a scrape adds.
var targetLabels = []string{"cluster", "node", "instance", "job"}

// rawCounters are counters that are shown as they are, and why.
var rawCounters = map[string]string{
	"svcscope_undecoded_total":      "it counts what stands in the rules once; an increase would miss what was there at the start",
	"svcscope_series_dropped_total": "it rises once a Service; an increase is 0 but at that moment, while the Service stays in _other",
}

// allNodes are panels with a selector that must not follow the chosen nodes,
// and why.
var allNodes = map[string]string{
	"Deviation from the median node, top 10": "the median of the chosen nodes alone would hide a node's deviation",
}

// The functions that may take a range of a gauge.
var gaugeWindows = []string{"deriv", "predict_linear", "delta", "count_over_time", "last_over_time"}

// lintExpressions returns what is wrong with a dashboard's queries.
func lintExpressions(d Dashboard) []string {
	var problems []string
	for _, p := range d.Panels {
		for _, t := range p.Targets {
			for _, problem := range lintTarget(p.Title, t) {
				problems = append(problems, fmt.Sprintf("%s/%s %s: %s", d.UID, p.Title, t.RefID, problem))
			}
		}
	}
	return problems
}

func lintTarget(panel string, t Target) []string {
	var problems []string
	catalogue := map[string]bool{}
	found := selectors(t.Expr)
	if len(found) == 0 {
		problems = append(problems, "has no selector")
	}
	for _, s := range found {
		m := metric(s.metric)
		if m == nil {
			problems = append(problems, s.metric+" is not in the catalogue")
			continue
		}
		for _, l := range m.LabelNames() {
			catalogue[l] = true
		}
		problems = append(problems, lintMatchers(panel, m, s)...)
		problems = append(problems, lintWindow(m, s, t.Instant)...)
	}
	for _, name := range bare(t.Expr) {
		problems = append(problems, "no selector for "+name)
	}
	for _, l := range targetLabels {
		catalogue[l] = true
	}
	return append(problems, lintLabels(t, catalogue)...)
}

// metric finds a metric, and a histogram by its buckets: those are a counter
// with one more label.
func metric(name string) *metrics.Metric {
	base, buckets := strings.CutSuffix(name, "_bucket")
	for _, m := range metrics.Metrics() {
		switch {
		case m.Name == name && m.Type != metrics.Histogram:
			return &m
		case m.Name == base && m.Type == metrics.Histogram && buckets:
			m.Name, m.Type = name, metrics.Counter
			m.Labels = append(slices.Clone(m.Labels), metrics.Label{Name: "le"})
			return &m
		}
	}
	return nil
}

func lintMatchers(panel string, m *metrics.Metric, s selector) []string {
	var problems []string
	if s.matchers["cluster"] != `=~"$cluster"` {
		problems = append(problems, m.Name+" does not follow the chosen clusters")
	}
	if _, exempt := allNodes[panel]; s.matchers["node"] != `=~"$node"` && !exempt {
		problems = append(problems, m.Name+" does not follow the chosen nodes")
	}
	for name, value := range s.matchers {
		if slices.Contains(targetLabels, name) {
			continue
		}
		l := m.Label(name)
		if l == nil {
			problems = append(problems, m.Name+" has no label "+name)
			continue
		}
		for text := range strings.SplitSeq(strings.Trim(strings.TrimLeft(value, "=~!"), `"`), "|") {
			if !strings.HasPrefix(text, "$") && !l.Allows(text) {
				problems = append(problems, fmt.Sprintf("%s never has %s=%q", m.Name, name, text))
			}
		}
	}
	return problems
}

func lintWindow(m *metrics.Metric, s selector, instant bool) []string {
	if m.Type == metrics.Counter {
		if _, exempt := rawCounters[m.Name]; exempt && s.window == "" {
			return nil
		}
		if s.function != "rate" && s.function != "increase" {
			return []string{m.Name + " is a counter without rate or increase"}
		}
		if s.window == "$__rate_interval" || s.window == "$__range" && instant {
			return nil
		}
		return []string{m.Name + " is not taken over $__rate_interval"}
	}
	switch {
	case s.window == "" && (s.function == "rate" || s.function == "increase"):
		return []string{m.Name + " needs a range"}
	case s.window != "" && !slices.Contains(gaugeWindows, s.function):
		return []string{fmt.Sprintf("%s is a gauge in %s", m.Name, s.function)}
	}
	return nil
}

func lintLabels(t Target, known map[string]bool) []string {
	var problems []string
	for _, list := range grouped(t.Expr) {
		for _, l := range list {
			if !known[l] {
				problems = append(problems, "no metric of it has the label "+l)
			}
		}
		if len(list) > 0 && !slices.Contains(list, "cluster") {
			problems = append(problems, fmt.Sprintf("(%s) mixes clusters", strings.Join(list, ", ")))
		}
	}
	for _, m := range operatorText.FindAllStringSubmatch(t.Expr, -1) {
		if m[2] == "" {
			problems = append(problems, m[1]+" has no by")
		}
	}
	carried := outermost(t.Expr)
	for _, m := range legendText.FindAllStringSubmatch(t.LegendFormat, -1) {
		if !carried[m[1]] {
			problems = append(problems, "the legend shows "+m[1]+", which the result does not have")
		}
	}
	return problems
}

func TestExpressions(t *testing.T) {
	for _, d := range All() {
		for _, problem := range lintExpressions(d) {
			t.Error(problem)
		}
	}
}

// TestVariableQueries holds the variables to the catalogue as the panels are.
func TestVariableQueries(t *testing.T) {
	for _, d := range All() {
		for _, v := range d.Templating.List {
			if v.Type != "query" {
				continue
			}
			body := strings.TrimSuffix(strings.TrimPrefix(v.Query, "label_values("), ")")
			name, rest, _ := strings.Cut(body, "{")
			cut := strings.LastIndex(body, ", ")
			if rest == "" {
				name = body[:cut]
			}
			m, wanted := metric(name), body[cut+2:]
			if m == nil {
				t.Errorf("%s: variable %s asks for %q, which is not in the catalogue", d.UID, v.Name, name)
				continue
			}
			if m.Label(wanted) == nil && !slices.Contains(targetLabels, wanted) {
				t.Errorf("%s: variable %s: %s has no label %s", d.UID, v.Name, name, wanted)
			}
			for _, s := range selectors(body) {
				for label := range s.matchers {
					if m.Label(label) == nil && !slices.Contains(targetLabels, label) {
						t.Errorf("%s: variable %s: %s has no label %s", d.UID, v.Name, name, label)
					}
				}
			}
		}
	}
}

// TestExemptionsAreUsed keeps the lists of exemptions short.
func TestExemptionsAreUsed(t *testing.T) {
	panels, expressions := map[string]bool{}, ""
	for _, d := range All() {
		for _, p := range d.Panels {
			panels[p.Title] = true
			for _, target := range p.Targets {
				expressions += target.Expr + "\n"
			}
		}
	}
	for name := range rawCounters {
		if !strings.Contains(expressions, name) {
			t.Errorf("no panel shows %s", name)
		}
	}
	for title := range allNodes {
		if !panels[title] {
			t.Errorf("no panel is called %q", title)
		}
	}
}

// TestLintFinds shows that each rule can fail.
func TestLintFinds(t *testing.T) {
	const on = `{cluster=~"$cluster", node=~"$node"}`
	tests := []struct {
		name, expr, legend string
		instant            bool
		want               string
	}{
		{"unknown metric", `sum by (cluster) (svcscope_ruels` + on + `)`, "", false, "not in the catalogue"},
		{"no selector", `sum by (cluster) (svcscope_rules)`, "", false, "has no selector"},
		{"one without selector", `svcscope_rules / svcscope_chains` + on, "", false, "no selector for svcscope_rules"},
		{"no cluster", `sum by (cluster) (svcscope_rules{node=~"$node"})`, "", false, "chosen clusters"},
		{"no node", `sum by (cluster) (svcscope_rules{cluster=~"$cluster"})`, "", false, "chosen nodes"},
		{"unknown matcher", `svcscope_rules{cluster=~"$cluster", node=~"$node", via="cluster"}`, "", false, "has no label via"},
		{"unknown value", `svcscope_rules{cluster=~"$cluster", node=~"$node", ip_family="ipv4"}`, "", false, "never has"},
		{"raw counter", `sum by (cluster) (svcscope_conntrack_drop_total` + on + `)`, "", false, "without rate"},
		{"fixed window", `rate(svcscope_conntrack_drop_total` + on + `[5m])`, "", false, "$__rate_interval"},
		{"range over a range", `increase(svcscope_conntrack_drop_total` + on + `[$__range])`, "", false, "$__rate_interval"},
		{"rate of a gauge", `rate(svcscope_rules` + on + `[$__rate_interval])`, "", false, "gauge in rate"},
		{"unknown label", `sum by (cluster, service) (svcscope_rules` + on + `)`, "", false, "has the label service"},
		{"mixed clusters", `sum by (node) (svcscope_rules` + on + `)`, "", false, "mixes clusters"},
		{"no by", `sum(svcscope_rules` + on + `)`, "", false, "has no by"},
		{"legend", `sum by (cluster) (svcscope_rules` + on + `)`, "{{owner}}", false, "legend shows owner"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := strings.Join(lintTarget("", Target{Expr: tt.expr, LegendFormat: tt.legend, Instant: tt.instant}), "\n")
			if !strings.Contains(got, tt.want) {
				t.Errorf("lint says %q, want something about %q", got, tt.want)
			}
		})
	}
	good := Target{Expr: `sum by (cluster, owner) (svcscope_rules` + on + `)`, LegendFormat: "{{owner}}"}
	if got := lintTarget("", good); len(got) > 0 {
		t.Errorf("lint of a good target: %q", got)
	}
}
