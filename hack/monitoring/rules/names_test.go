// SPDX-License-Identifier: Apache-2.0

package rules

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/svcscope/svcscope/pkg/metrics"
)

var (
	stringPattern  = regexp.MustCompile(`"[^"]*"`)
	namePattern    = regexp.MustCompile(`[a-z_]*:?\bsvcscope_\w+(?::\w+)?`)
	selector       = regexp.MustCompile(`([a-z_]*:?svcscope_\w+(?::\w+)?)\{([^}]*)\}`)
	matcher        = regexp.MustCompile(`(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"`)
	grouping       = regexp.MustCompile(`\b(?:by|on|ignoring|without|group_left|group_right)\s*\(([^)]*)\)`)
	labelReference = regexp.MustCompile(`\$labels\.(\w+)`)
)

// catalog returns the metrics by name, histograms by that of their buckets.
func catalog() map[string]metrics.Metric {
	all := map[string]metrics.Metric{}
	for _, section := range metrics.Catalog() {
		for _, m := range section.Metrics {
			if m.Type == metrics.Histogram {
				m.Name += "_bucket"
				m.Labels = append(slices.Clone(m.Labels), metrics.Label{Name: "le"})
			}
			all[m.Name] = m
		}
	}
	return all
}

func allRules() []rule {
	all := alerts()
	for _, g := range recordingRules().Groups {
		all = append(all, g.Rules...)
	}
	return all
}

func recorded() map[string]bool {
	names := map[string]bool{}
	for _, g := range recordingRules().Groups {
		for _, r := range g.Rules {
			names[r.Record] = true
		}
	}
	return names
}

func TestExpressionsNameMetricsThatExist(t *testing.T) {
	known, records := catalog(), recorded()
	used := map[string]bool{}
	for _, r := range allRules() {
		names := namePattern.FindAllString(stringPattern.ReplaceAllString(r.Expr, `""`), -1)
		for _, name := range names {
			used[name] = true
			if _, ok := known[name]; !ok && !records[name] {
				t.Errorf("%s%s: %s is no metric and not recorded", r.Alert, r.Record, name)
			}
		}
		if len(names) == 0 && !strings.Contains(r.Expr, "up{") {
			t.Errorf("%s%s: no metric found in %s", r.Alert, r.Record, r.Expr)
		}
	}
	// For users and dashboards.
	used["service:svcscope_connections:rate5m"] = true
	for name := range records {
		if !used[name] {
			t.Errorf("nothing uses %s", name)
		}
	}
}

// labels returns those of a metric; of a recorded one, all that metrics have.
func labels(known map[string]metrics.Metric, name string) map[string]*metrics.Label {
	out := map[string]*metrics.Label{}
	add := func(m metrics.Metric) {
		for i := range m.Labels {
			out[m.Labels[i].Name] = &m.Labels[i]
		}
	}
	if m, ok := known[name]; ok {
		add(m)
		return out
	}
	for _, m := range known {
		if strings.Contains(name, ":"+m.Name+":") {
			add(m)
			return out
		}
	}
	for _, m := range known {
		add(m)
	}
	for name := range out {
		out[name] = &metrics.Label{Name: name}
	}
	return out
}

func TestSelectorsNameLabelsAndValuesThatExist(t *testing.T) {
	known := catalog()
	found := 0
	for _, r := range allRules() {
		for _, s := range selector.FindAllStringSubmatch(r.Expr, -1) {
			have := labels(known, s[1])
			for _, m := range matcher.FindAllStringSubmatch(s[2], -1) {
				found++
				label := have[m[1]]
				if label == nil {
					t.Errorf("%s%s: %s has no label %s", r.Alert, r.Record, s[1], m[1])
					continue
				}
				for value := range strings.SplitSeq(m[3], "|") {
					if !label.Allows(value) {
						t.Errorf("%s%s: %s of %s is never %q", r.Alert, r.Record, m[1], s[1], value)
					}
				}
			}
		}
	}
	if found == 0 {
		t.Error("no selector found: the pattern is wrong")
	}
}

func TestGroupingsAndTextsNameLabelsThatExist(t *testing.T) {
	have := labels(catalog(), "")
	for _, target := range []string{"cluster", "node", "job", "instance"} {
		have[target] = &metrics.Label{}
	}
	for _, r := range allRules() {
		for _, g := range grouping.FindAllStringSubmatch(r.Expr, -1) {
			for name := range strings.SplitSeq(g[1], ",") {
				if name = strings.TrimSpace(name); name != "" && have[name] == nil {
					t.Errorf("%s%s: there is no label %q", r.Alert, r.Record, name)
				}
			}
		}
		for _, text := range r.Annotations {
			for _, l := range labelReference.FindAllStringSubmatch(text, -1) {
				if have[l[1]] == nil {
					t.Errorf("%s: there is no label %q", r.Alert, l[1])
				}
			}
		}
	}
}

// An aggregation without cluster would mix clusters, one of nodes without
// instance those that have no label node.
func TestAggregationsKeepClusterAndInstance(t *testing.T) {
	by := regexp.MustCompile(`\bby \(([^)]*)\)`)
	for _, r := range allRules() {
		for _, g := range by.FindAllStringSubmatch(r.Expr, -1) {
			if !strings.HasPrefix(g[1], "cluster") {
				t.Errorf("%s%s: by (%s) loses the cluster", r.Alert, r.Record, g[1])
			}
			if strings.Contains(g[1], "node") && !strings.Contains(g[1], "instance") {
				t.Errorf("%s%s: by (%s) loses the instance", r.Alert, r.Record, g[1])
			}
		}
	}
}
