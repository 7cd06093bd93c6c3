// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/svcscope/svcscope/pkg/metrics"
)

const introduction = `<!-- Made by hack/metricsdoc from pkg/metrics: do not edit. -->

# Metrics

All metrics of ` + "`/metrics`" + `. Their names, labels and meaning are a public contract. A scrape formats the newest snapshot and
never reads the kernel; the agent takes a snapshot every 15 s by default.

* **Counters** only grow while the agent runs. Those of Services start at 0 with a created timestamp at the
  agent's first reading; what happens while no agent runs is not counted. When kube-proxy rewrites a rule, its total goes on.
* **Created timestamps** are part of the protobuf format. The OpenMetrics text carries them as samples of their own, ` + "`*_created`" + `:
  a Prometheus without ` + "`--enable-feature=created-timestamp-zero-ingestion`" + ` stores these as series. Where that is too much, let it
  ask for another format (` + "`scrape_protocols: [PrometheusText0.0.4]`" + `) or drop them with ` + "`metric_relabel_configs`" + `.
* **Cost** is what a metric costs the node at each sampling: *none* (the agent's own state), *call* (one cheap system call
  or a few messages), *rules* (grows with the rules that are read) or *entries* (grows with those of connection tracking, which are read every ` + "`--conntrack.interval`" + `).
* No label holds a client's address, a rule's text or a pod's UID. The node's name is in ` + "`svcscope_node_info`" + ` only.
* The agent's own process shows the usual ` + "`go_*`, `process_*` and `promhttp_*`" + ` metrics beside these.
`

// document returns the Markdown page of the catalogue.
func document(sections []metrics.Section) string {
	var b strings.Builder
	b.WriteString(introduction)
	for _, s := range sections {
		fmt.Fprintf(&b, "\n## %s\n\n%s\n\n", s.Title, s.Intro)
		writeMeaning(&b, s.Metrics)
		writeLabels(&b, s.Metrics)
		writeReading(&b, s.Metrics)
	}
	return b.String()
}

func writeMeaning(b *strings.Builder, ms []metrics.Metric) {
	row(b, "metric", "type", "labels", "meaning", "exists")
	row(b, "---", "---", "---", "---", "---")
	for _, m := range ms {
		when := m.When
		if when == "" {
			when = "always"
		}
		row(b, code(m.Name), string(m.Type), codes(m.LabelNames()), m.Help, when)
	}
}

// writeLabels lists each label once, with the metrics that have it so.
func writeLabels(b *strings.Builder, ms []metrics.Metric) {
	type use struct {
		label metrics.Label
		of    []string
	}
	var uses []*use
	for _, m := range ms {
		for _, l := range m.Labels {
			at := slices.IndexFunc(uses, func(u *use) bool {
				return u.label.Name == l.Name && slices.Equal(u.label.Values, l.Values) && u.label.Bound == l.Bound
			})
			if at < 0 {
				at = len(uses)
				uses = append(uses, &use{label: l})
			}
			uses[at].of = append(uses[at].of, m.Name)
		}
	}
	if len(uses) == 0 {
		return
	}
	b.WriteString("\n")
	row(b, "label", "question", "values", "of")
	row(b, "---", "---", "---", "---")
	for _, u := range uses {
		of := codes(u.of)
		if len(u.of) == len(ms) {
			of = "all above"
		}
		values := "open: " + u.label.Bound
		if u.label.Values != nil {
			values = codes(u.label.Values)
		}
		row(b, code(u.label.Name), u.label.Question, values, of)
	}
}

func writeReading(b *strings.Builder, ms []metrics.Metric) {
	b.WriteString("\n")
	row(b, "metric", "unit", "read from", "Linux", "cost", "stability")
	row(b, "---", "---", "---", "---", "---", "---")
	for _, m := range ms {
		from, since := m.Kernel, m.MinKernel
		if from == "" {
			from = "the agent"
		}
		if since == "" {
			since = "any"
		}
		row(b, code(m.Name), string(m.Unit), from, since, string(m.Cost), string(m.Stability))
	}
}

func row(b *strings.Builder, cells ...string) {
	for _, c := range cells {
		b.WriteString("| " + strings.ReplaceAll(c, "|", `\|`) + " ")
	}
	b.WriteString("|\n")
}

func code(s string) string {
	if s == "" {
		return "(empty)"
	}
	return "`" + s + "`"
}

func codes(values []string) string {
	quoted := make([]string, len(values))
	for i, v := range values {
		quoted[i] = code(v)
	}
	return strings.Join(quoted, ", ")
}
