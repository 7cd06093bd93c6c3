// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

const dashboardsDir = "../../../dashboards"

// emptyPanel is a panel that shows nothing while all is well.
type emptyPanel struct {
	Dashboard string   // UID
	Panel     string   // title
	Targets   []string // those that are empty; none means all
	Scenario  string   // the fault that fills it
}

func (e emptyPanel) has(q target) bool {
	return len(e.Targets) == 0 || slices.Contains(e.Targets, q.RefID)
}

func readEmpty(t *testing.T) []emptyPanel {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", "monitoring", "dashboards", "testdata", "empty.json"))
	if err != nil {
		t.Fatal(err)
	}
	var list []emptyPanel
	if err := json.Unmarshal(b, &list); err != nil {
		t.Fatalf("empty.json: %v", err)
	}
	return list
}

// form is a Prometheus as operators have it, and what is chosen in its
// dashboards.
type form struct {
	name   string
	prom   *prometheus
	choice map[string][]string
}

// TestDashboards executes every query of every dashboard against a Prometheus
// that scrapes the agent, with and without the labels cluster and node, for all
// and for some values of the variables. Then come the faults which fill the
// panels that are empty in health.
func TestDashboards(t *testing.T) {
	all, err := readDashboards(dashboardsDir)
	if err != nil {
		t.Fatal(err)
	}
	empty := readEmpty(t)
	m := newMonitored(t)
	rules := shortRules(t)
	plain := startPrometheus(t, m.lab, scraping{rules: rules})
	labelled := startPrometheus(t, m.lab, scraping{
		port: 9091, rules: rules, labels: map[string]string{"node": "node1", "namespace": "svcscope", "cluster": "lab"},
	})
	web := map[string][]string{"namespace": {"default"}, "service": {"web"}}
	some := map[string][]string{"cluster": {"lab"}, "node": {"node1"}, "namespace": {"default", "kube-system"}, "service": {"web", "broken"}}
	forms := []form{
		{"all, no labels", plain, nil},
		{"one Service, no labels", plain, web},
		{"all, labels", labelled, nil},
		{"chosen, labels", labelled, some},
	}
	for _, f := range forms {
		f.prom.scraped(6)
	}
	if _, err := plain.query("rate(svcscope_conntrack_entries[15s])"); err == nil {
		t.Error("Prometheus doesn't warn of the rate of a gauge: the test sees no warnings")
	}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		d := all[name]
		t.Run(name, func(t *testing.T) {
			for _, f := range forms {
				d.check(t, f, empty)
			}
		})
	}
	// Where one Service is chosen it is the one that is refused.
	broken := map[string][]string{"namespace": {"default"}, "service": {"broken"}}
	faulty := []form{{"no labels", plain, broken}, {"labels", labelled, broken}}
	for _, scenario := range scenarios(empty) {
		t.Run(scenario, func(t *testing.T) { m.fill(t, scenario, empty, all, faulty) })
	}
}

// asked is a query as a panel sends it.
type asked struct {
	what   string
	target target
	prom   *prometheus
	values values
	// mayBeEmpty allows an answer without a number.
	mayBeEmpty bool
}

func (d dashboard) ask(p panel, q target, f form, v values) asked {
	return asked{what: fmt.Sprintf("%s, %s, panel %q, query %s", d.UID, f.name, p.Title, q.RefID), target: q, prom: f.prom, values: v}
}

// check runs all queries of a dashboard in one form.
func (d dashboard) check(t *testing.T, f form, empty []emptyPanel) {
	t.Helper()
	v, err := d.choose(f.prom, f.choice)
	if err != nil {
		t.Errorf("%s: %v", f.name, err)
		return
	}
	var all []asked
	for _, p := range d.queries() {
		for _, q := range p.Targets {
			one := d.ask(p, q, f, v)
			one.mayBeEmpty = slices.ContainsFunc(empty, func(e emptyPanel) bool { return e.Dashboard == d.UID && e.Panel == p.Title && e.has(q) })
			all = append(all, one)
		}
	}
	for _, a := range d.Annotations.List {
		if a.Expr != "" {
			all = append(all, asked{"annotation " + a.Name, target{Expr: a.Expr}, f.prom, v, true})
		}
	}
	answered(t, all)
}

// answered runs queries and reports what is wrong. What is empty is asked
// again for a while.
func answered(t *testing.T, all []asked) {
	t.Helper()
	deadline := time.Now().Add(soon)
	for len(all) > 0 {
		var again []asked
		for _, a := range all {
			err := a.target.run(a.prom, a.values)
			switch {
			case err == nil || a.mayBeEmpty && errors.Is(err, errEmpty):
			case errors.Is(err, errEmpty) && time.Now().Before(deadline):
				again = append(again, a)
			default:
				t.Errorf("%s: %v", a.what, err)
			}
		}
		if all = again; len(all) > 0 {
			time.Sleep(200 * time.Millisecond)
		}
	}
}

// soon is how long a panel may stay empty after the fault that fills it.
const soon = rateInterval

func scenarios(empty []emptyPanel) []string {
	names := map[string]bool{}
	for _, e := range empty {
		names[e.Scenario] = true
	}
	return slices.Sorted(maps.Keys(names))
}

// fill makes a fault and waits until the panels that it is to fill show it.
func (m *monitored) fill(t *testing.T, scenario string, empty []emptyPanel, all map[string]dashboard, forms []form) {
	m.t = t
	m.during(scenario, func() {
		var queries []asked
		for _, e := range empty {
			if e.Scenario != scenario {
				continue
			}
			d, p, ok := find(all, e)
			if !ok {
				t.Errorf("empty.json names the panel %q of %s, which isn't there", e.Panel, e.Dashboard)
				continue
			}
			for _, f := range forms {
				v, err := d.choose(f.prom, f.choice)
				if err != nil {
					t.Errorf("%s: %v", f.name, err)
					continue
				}
				for _, q := range p.Targets {
					if e.has(q) {
						queries = append(queries, d.ask(p, q, f, v))
					}
				}
			}
		}
		answered(t, queries)
	})
}

func find(all map[string]dashboard, e emptyPanel) (dashboard, panel, bool) {
	for _, d := range all {
		if d.UID != e.Dashboard {
			continue
		}
		for _, p := range d.queries() {
			if p.Title == e.Panel {
				return d, p, true
			}
		}
	}
	return dashboard{}, panel{}, false
}

// TestDashboardsForGrafana7 sees that the old form asks the same, so that one
// run holds for both.
func TestDashboardsForGrafana7(t *testing.T) {
	today, err := readDashboards(dashboardsDir)
	if err != nil {
		t.Fatal(err)
	}
	old, err := readDashboards(filepath.Join(dashboardsDir, "grafana-7"))
	if err != nil {
		t.Fatal(err)
	}
	asks := func(d dashboard) string {
		text := fmt.Sprintf("%+v\n%+v\n", d.Templating, d.Annotations)
		for _, p := range d.queries() {
			text += fmt.Sprintf("%s: %+v\n", p.Title, p.Targets)
		}
		return text
	}
	for name, d := range today {
		if got, want := asks(old[name]), asks(d); got != want {
			t.Errorf("%s of Grafana 7.5 asks\n%s\nwant\n%s", name, got, want)
		}
	}
	if len(old) != len(today) {
		t.Errorf("%d dashboards for Grafana 7.5, %d for today's", len(old), len(today))
	}
}
