// SPDX-License-Identifier: Apache-2.0

package dashboards

import (
	"regexp"
	"strings"
)

// selector is one {…} of an expression with what stands around it.
type selector struct {
	metric   string
	matchers map[string]string // label to operator and value, as in `=~"$node"`
	window   string            // the range in brackets; empty for an instant selector
	function string            // the function that it is the whole or last argument of; empty without one
}

var (
	selectorText = regexp.MustCompile(`([a-zA-Z_:][a-zA-Z0-9_:]*)\{([^{}]*)\}(?:\[([^\]]*)\])?`)
	matcherText  = regexp.MustCompile(`([a-z_]+)(=~|!~|!=|=)"([^"]*)"`)
	functionText = regexp.MustCompile(`([a-z_]+)\($`)
	groupingText = regexp.MustCompile(`\b(by|on|without|ignoring|group_left|group_right) ?\(([^)]*)\)`)
	operatorText = regexp.MustCompile(`\b(sum|min|max|avg|count|quantile|group|stddev|count_values)\b( by)? ?\(`)
	legendText   = regexp.MustCompile(`\{\{ *([a-z_]+) *\}\}`)
	variableText = regexp.MustCompile(`\$\{?([a-zA-Z_]+)`)
)

// selectors returns the selectors of an expression. All of the dashboards
// have braces; nameless tells of those that have none.
func selectors(expr string) []selector {
	var all []selector
	for _, at := range selectorText.FindAllStringSubmatchIndex(expr, -1) {
		s := selector{metric: expr[at[2]:at[3]], matchers: map[string]string{}}
		for _, m := range matcherText.FindAllStringSubmatch(expr[at[4]:at[5]], -1) {
			s.matchers[m[1]] = m[2] + `"` + m[3] + `"`
		}
		if at[6] >= 0 {
			s.window = expr[at[6]:at[7]]
		}
		if f := functionText.FindStringSubmatch(expr[:at[0]]); f != nil {
			s.function = f[1]
		}
		all = append(all, s)
	}
	return all
}

// bare returns the names of metrics that stand without braces.
func bare(expr string) []string {
	return regexp.MustCompile(`svcscope_[a-z0-9_]+(?:[^a-z0-9_{]|$)`).FindAllString(expr, -1)
}

// grouped returns the label lists of all by and on clauses.
func grouped(expr string) [][]string {
	var lists [][]string
	for _, m := range groupingText.FindAllStringSubmatch(expr, -1) {
		lists = append(lists, words(m[2]))
	}
	return lists
}

// outermost returns the labels that the expression's results carry at most:
// those of its by clauses, and what count_values adds.
func outermost(expr string) map[string]bool {
	labels := map[string]bool{}
	for _, list := range grouped(expr) {
		for _, l := range list {
			labels[l] = true
		}
	}
	return labels
}

func words(list string) []string {
	return strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' })
}
