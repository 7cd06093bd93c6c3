// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// dashboard is what of Grafana's model decides which queries run.
type dashboard struct {
	UID, Title  string
	Panels      []panel
	Templating  struct{ List []variable }
	Annotations struct{ List []annotation }
}

type panel struct {
	ID      int
	Title   string
	Type    string
	Targets []target
	Panels  []panel // of a collapsed row
}

type target struct {
	RefID        string
	Expr         string
	Instant      bool
	LegendFormat string
}

type annotation struct {
	Name, Expr string
}

type variable struct {
	Name, Type string
	Multi      bool
	IncludeAll bool
	AllValue   string
	Regex      string
	Query      query
}

// query is a text, or an object that has one.
type query string

// UnmarshalJSON implements json.Unmarshaler.
func (q *query) UnmarshalJSON(b []byte) error {
	var object struct{ Query string }
	if err := json.Unmarshal(b, &object); err == nil {
		*q = query(object.Query)
		return nil
	}
	return json.Unmarshal(b, (*string)(q))
}

// readDashboards returns the dashboards of a folder by file name.
func readDashboards(dir string) (map[string]dashboard, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		return nil, err
	}
	out := map[string]dashboard{}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			return nil, err
		}
		var d dashboard
		if err := json.Unmarshal(b, &d); err != nil {
			return nil, fmt.Errorf("%s: %w", f, err)
		}
		out[filepath.Base(f)] = d
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s: %w", dir, fs.ErrNotExist)
	}
	return out, nil
}

// queries returns the panels that ask something, those in rows too.
func (d dashboard) queries() []panel {
	var out []panel
	for _, p := range d.Panels {
		for _, inner := range append([]panel{p}, p.Panels...) {
			if len(inner.Targets) > 0 {
				out = append(out, inner)
			}
		}
	}
	return out
}

// The times that Grafana would put in for a dashboard that shows the last three
// minutes of a Prometheus which scrapes every few seconds.
const (
	shown        = 3 * time.Minute
	step         = 5 * time.Second
	rateInterval = 15 * time.Second
)

// values are the texts for what is chosen in a dashboard, by variable.
type values map[string]string

var (
	labelValuesRE = regexp.MustCompile(`^label_values\(\s*(?:(.+?)\s*,\s*)?([a-zA-Z_]\w*)\s*\)$`)
	referenceRE   = regexp.MustCompile(`\$(\w+)|\$\{(\w+)(?::\w+)?\}|\[\[(\w+)\]\]`)
)

// expand puts values and time macros into an expression, as Grafana does.
func (v values) expand(expr string) (string, error) {
	var unknown []string
	out := referenceRE.ReplaceAllStringFunc(expr, func(ref string) string {
		m := referenceRE.FindStringSubmatch(ref)
		name := m[1] + m[2] + m[3]
		switch name {
		case "__interval":
			return step.String()
		case "__rate_interval":
			return rateInterval.String()
		case "__range":
			return fmt.Sprintf("%ds", int(shown.Seconds()))
		case "__range_s":
			return fmt.Sprint(int(shown.Seconds()))
		}
		if _, err := strconv.Atoi(name); err == nil {
			return ref // of label_replace
		}
		value, ok := v[name]
		if !ok {
			unknown = append(unknown, name)
		}
		return value
	})
	if len(unknown) > 0 {
		return "", fmt.Errorf("%s: no variable %s", expr, strings.Join(unknown, ", "))
	}
	return out, nil
}

// escapeRegexp prepares a chosen value for =~ in a quoted text.
var escapeRegexp = strings.NewReplacer(`\`, `\\\\`, `$`, `\\$`, `^`, `\\^`, `*`, `\\*`, `{`, `\\{`, `}`, `\\}`, `[`, `\\[`, `]`, `\\]`,
	`+`, `\\+`, `?`, `\\?`, `.`, `\\.`, `(`, `\\(`, `)`, `\\)`, `|`, `\\|`, `'`, `\\'`)

// chosen is the text for some of a variable's values.
func (o variable) chosen(picked ...string) string {
	if !o.Multi && !o.IncludeAll {
		return strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(strings.Join(picked, ""))
	}
	for i, p := range picked {
		picked[i] = escapeRegexp.Replace(p)
	}
	if len(picked) == 1 {
		return picked[0]
	}
	return "(" + strings.Join(picked, "|") + ")"
}

// all is the text for all of a variable's values.
func (o variable) all(options []string) string {
	if o.AllValue != "" {
		return o.AllValue
	}
	return o.chosen(slices.Clone(options)...)
}

// options are a variable's values; v are those of the variables before it.
func (o variable) options(p *prometheus, v values) ([]string, error) {
	var found []string
	switch o.Type {
	case "constant", "textbox":
		return []string{string(o.Query)}, nil
	case "custom", "interval":
		for one := range strings.SplitSeq(string(o.Query), ",") {
			// "name : value"
			if _, value, ok := strings.Cut(one, " : "); ok {
				one = value
			}
			found = append(found, strings.TrimSpace(one))
		}
		return found, nil
	case "query":
	default:
		return nil, fmt.Errorf("variable %s is of type %q", o.Name, o.Type)
	}
	m := labelValuesRE.FindStringSubmatch(string(o.Query))
	if m == nil {
		return nil, fmt.Errorf("variable %s: %q is no label_values()", o.Name, o.Query)
	}
	selector, err := v.expand(m[1])
	if err != nil {
		return nil, err
	}
	found, err = p.labelValues(m[2], selector)
	if err != nil || o.Regex == "" {
		return found, err
	}
	filter, err := regexp.Compile(strings.Trim(o.Regex, "/"))
	if err != nil {
		return nil, fmt.Errorf("variable %s: %w", o.Name, err)
	}
	return slices.DeleteFunc(found, func(s string) bool { return !filter.MatchString(s) }), nil
}

// choose sets a dashboard's variables in their order: to those of want that
// exist, else to all of them, else to the usual one or the first.
func (d dashboard) choose(p *prometheus, want map[string][]string) (values, error) {
	usual := map[string]string{"namespace": "default", "service": "web"}
	v := values{}
	for _, o := range d.Templating.List {
		if o.Type == "datasource" {
			v[o.Name] = "prometheus"
			continue
		}
		options, err := o.options(p, v)
		if err != nil {
			return nil, err
		}
		picked := slices.DeleteFunc(slices.Clone(want[o.Name]), func(s string) bool { return !slices.Contains(options, s) })
		if !o.Multi && len(picked) > 1 {
			picked = picked[:1]
		}
		switch {
		case len(picked) < min(1, len(want[o.Name])):
			return nil, fmt.Errorf("variable %s has the values %q, want one of %q", o.Name, options, want[o.Name])
		case len(picked) > 0:
			v[o.Name] = o.chosen(picked...)
		case o.IncludeAll:
			v[o.Name] = o.all(options)
		case slices.Contains(options, usual[o.Name]):
			v[o.Name] = o.chosen(usual[o.Name])
		case len(options) > 0:
			v[o.Name] = o.chosen(options[0])
		default:
			return nil, fmt.Errorf("variable %s has no values and no All", o.Name)
		}
	}
	return v, nil
}

var legendRE = regexp.MustCompile(`{{\s*(\w+)\s*}}`)

// run executes a target and says what is wrong with the answer, which covers
// the time since a moment where the target asks for a range. An answer without
// a number is errEmpty, one without a number above 0 is errZero.
func (o target) run(p *prometheus, v values, since time.Time) error {
	expr, err := v.expand(o.Expr)
	if err != nil {
		return err
	}
	var found []series
	if o.Instant {
		found, err = p.query(expr)
	} else {
		found, err = p.rangeQuery(expr, since, step)
	}
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(found, series.isNumber) {
		return fmt.Errorf("%w: %d series of %s", errEmpty, len(found), expr)
	}
	for _, m := range legendRE.FindAllStringSubmatch(o.LegendFormat, -1) {
		if (m[1] == "cluster" || m[1] == "node") && p.labels[m[1]] == "" {
			continue
		}
		if !slices.ContainsFunc(found, func(s series) bool { return s.Metric[m[1]] != "" }) {
			return fmt.Errorf("the legend %q: no series of %s has that label", o.LegendFormat, expr)
		}
	}
	if !slices.ContainsFunc(found, above0) {
		return fmt.Errorf("%w: %d series of %s", errZero, len(found), expr)
	}
	return nil
}

// above0 reports whether any of a series' values is more than 0.
func above0(s series) bool {
	return slices.ContainsFunc(append(s.Values, s.Value), func(v [2]any) bool { return number(v) > 0 })
}

var (
	errEmpty = errors.New("no number")
	errZero  = errors.New("no number above 0")
)

func TestExpand(t *testing.T) {
	multi, one := variable{Name: "service", Multi: true}, variable{Name: "node"}
	all := variable{Name: "cluster", IncludeAll: true, AllValue: ".*"}
	v := values{
		"service": multi.chosen("web", "a.b"), "node": one.chosen(`n"1`), "cluster": all.all([]string{"x"}),
		"namespace": multi.all([]string{"default", "kube-system"}),
	}
	got, err := v.expand(`rate(m{s=~"$service",n="${node}",c=~"${cluster:regex}",ns=~"[[namespace]]"}[$__rate_interval]) / $__range_s`)
	if want := `rate(m{s=~"(web|a\\.b)",n="n\"1",c=~".*",ns=~"(default|kube-system)"}[15s]) / 180`; err != nil || got != want {
		t.Errorf("expand gives %s, %v, want %s", got, err, want)
	}
	if got, err := v.expand("$other"); err == nil {
		t.Errorf("an unknown variable gives %q, want an error", got)
	}
}
