// SPDX-License-Identifier: Apache-2.0

package rules

import (
	"fmt"
	"strings"

	"sigs.k8s.io/yaml"
)

// RunbookBase is what an alert's name in lower case is added to for its
// runbook_url.
const RunbookBase = "https://github.com/svcscope/svcscope/blob/main/docs/runbooks.md#"

// severity says who has to look: somebody now, somebody today, or nobody yet.
type severity string

const (
	critical severity = "critical"
	warning  severity = "warning"
	info     severity = "info"
)

// The labels that a node's values keep. Those that a target does not have stay
// away; instance is always there.
const byNode = "cluster, node, job, instance"

// onTarget joins metrics of one scrape. The label node is left out:
// svcscope_node_info has one of its own, which a target's label renames.
const onTarget = "cluster, job, instance"

// The words that say of which node, Service or cluster an alert is.
const (
	inCluster  = `{{ with $labels.cluster }} in cluster {{ . }}{{ end }}`
	theNode    = `Node {{ or $labels.node $labels.instance }}` + inCluster
	theService = `Service {{ $labels.service_namespace }}/{{ $labels.service_name }}` + inCluster
)

// file is a Prometheus rule file.
type file struct {
	Groups []group `json:"groups"`
}

// group is evaluated at once, in order.
type group struct {
	Name  string `json:"name"`
	Rules []rule `json:"rules"`
}

// rule is a recording rule or an alert, as Prometheus spells them.
type rule struct {
	Record      string            `json:"record,omitempty"`
	Alert       string            `json:"alert,omitempty"`
	Expr        string            `json:"expr"`
	For         string            `json:"for,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// alert is an alert as it is written down here. Its texts are templates.
type alert struct {
	name        string
	severity    severity
	expr        string
	hold        string // how long the expression must be true; empty: once
	summary     string
	description string
}

func (a *alert) rule() rule {
	return rule{
		Alert:  a.name,
		Expr:   strings.TrimSpace(a.expr),
		For:    a.hold,
		Labels: map[string]string{"severity": string(a.severity)},
		Annotations: map[string]string{
			"summary":     a.summary,
			"description": a.description,
			"runbook_url": RunbookBase + strings.ToLower(a.name),
		},
	}
}

func alertGroup(name string, alerts []alert) group {
	g := group{Name: "svcscope-" + name}
	for i := range alerts {
		g.Rules = append(g.Rules, alerts[i].rule())
	}
	return g
}

func record(name, expr string) rule {
	return rule{Record: name, Expr: strings.TrimSpace(expr)}
}

// text returns the file in YAML, below the comment.
func (f file) text(comment string) ([]byte, error) {
	body, err := yaml.Marshal(f)
	if err != nil {
		return nil, fmt.Errorf("write rules as YAML: %w", err)
	}
	return append([]byte(comment), body...), nil
}
