// SPDX-License-Identifier: Apache-2.0

package rules

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
)

// threshold is a number that an operator may set.
type threshold struct {
	name  string // prometheusRule.thresholds.<name> in the chart
	value float64
	help  string
}

func thresholds() []threshold {
	return []threshold{
		{"conntrackWarning", 0.75, "share of nf_conntrack_max in use, from which it is a warning"},
		{"conntrackCritical", 0.9, "share of nf_conntrack_max in use, from which it is critical"},
		{"conntrackInsertFailed", 1, "new connections a second that may fail to be inserted"},
		{"sourcePorts", 0.8, "share of the source ports that may be taken toward one destination"},
		{"rulesBudget", 50000, "iptables rules in one table that are acceptable"},
		{"rulesDeviation", 0.1, "share by which a node's kube-proxy rules may differ from the cluster's median"},
		{"rulesetChanges", 5, "commits of an nf_tables ruleset a second"},
		{"lockOpenShare", 0.5, "share of the time in which the xtables lock may be held or waited for"},
		{"blindShare", 0.5, "share of the time whose counts rewrites may take along"},
		{"refusedPackets", 0.1, "packets a second that a Service may refuse"},
		{"invalidDrops", 10, "packets of no known connection a second that a node may drop"},
		{"programmingDelay", 30, "seconds in which 99 % of the changes of endpoints should be in a node's rules"},
	}
}

// token is what stands for the threshold in the chart's files.
func (t *threshold) token() string {
	var b strings.Builder
	for _, r := range t.name {
		if unicode.IsUpper(r) {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToUpper(r))
	}
	return "__" + b.String() + "__"
}

func (t *threshold) number() string {
	return strconv.FormatFloat(t.value, 'f', -1, 64)
}

// withDefaults replaces the tokens by the thresholds' values.
func withDefaults(text []byte) []byte {
	var pairs []string
	for _, t := range thresholds() {
		pairs = append(pairs, t.token(), t.number())
	}
	return []byte(strings.NewReplacer(pairs...).Replace(string(text)))
}

// thresholdsFile lists the names with their defaults.
func thresholdsFile() []byte {
	var b strings.Builder
	b.WriteString(generated + "# Defaults of prometheusRule.thresholds.\n")
	for _, t := range thresholds() {
		fmt.Fprintf(&b, "# %s\n%s: %s\n", t.help, t.name, t.number())
	}
	return []byte(b.String())
}
