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

// quietPanel is a panel that shows nothing, or 0, while all is well.
type quietPanel struct {
	Dashboard string   // UID
	Panel     string   // title
	Targets   []string // those that are quiet; none means all
	Scenario  string   // the fault that fills it; none if nothing in the lab does
	Service   string   // what is chosen then; none means broken
	zero      bool     // it shows 0 in health, and more with the fault
}

func (e quietPanel) is(d dashboard, p panel, q target) bool {
	return e.Dashboard == d.UID && e.Panel == p.Title && (len(e.Targets) == 0 || slices.Contains(e.Targets, q.RefID))
}

// readQuiet returns the panels that are empty in health, then those that show
// 0.
func readQuiet(t *testing.T) []quietPanel {
	t.Helper()
	var all []quietPanel
	for _, name := range []string{"empty.json", "zero.json"} {
		b, err := os.ReadFile(filepath.Join("..", "..", "monitoring", "dashboards", "testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		var list []quietPanel
		if err := json.Unmarshal(b, &list); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for i := range list {
			list[i].zero = name == "zero.json"
		}
		all = append(all, list...)
	}
	return all
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
// panels that are empty or 0 in health.
func TestDashboards(t *testing.T) {
	all, err := readDashboards(dashboardsDir)
	if err != nil {
		t.Fatal(err)
	}
	quiet := readQuiet(t)
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
				d.check(t, f, quiet)
			}
		})
	}
	faulty := []form{{"no labels", plain, nil}, {"labels", labelled, nil}}
	for _, scenario := range scenarios(quiet) {
		t.Run(scenario, func(t *testing.T) { m.fill(t, scenario, quiet, all, faulty) })
	}
}

// asked is a query as a panel sends it.
type asked struct {
	what   string
	target target
	prom   *prometheus
	values values
	since  time.Time
	// mayBeEmpty allows an answer without a number, mayBe0 one without a number
	// above 0.
	mayBeEmpty, mayBe0 bool
}

func (d dashboard) ask(p panel, q target, f form, v values) asked {
	return asked{what: fmt.Sprintf("%s, %s, panel %q, query %s", d.UID, f.name, p.Title, q.RefID), target: q, prom: f.prom, values: v, since: f.prom.started}
}

// check runs all queries of a dashboard in one form.
func (d dashboard) check(t *testing.T, f form, quiet []quietPanel) {
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
			for _, e := range quiet {
				if e.is(d, p, q) {
					one.mayBe0 = true
					one.mayBeEmpty = one.mayBeEmpty || !e.zero
				}
			}
			all = append(all, one)
		}
	}
	for _, a := range d.Annotations.List {
		if a.Expr != "" {
			all = append(all, asked{"annotation " + a.Name, target{Expr: a.Expr}, f.prom, v, f.prom.started, true, true})
		}
	}
	answered(t, all)
}

// answered runs queries and reports what is wrong. What is empty or 0 is
// asked again for a while.
func answered(t *testing.T, all []asked) {
	t.Helper()
	deadline := time.Now().Add(soon)
	for len(all) > 0 {
		var again []asked
		for _, a := range all {
			err := a.target.run(a.prom, a.values, a.since)
			empty, zero := errors.Is(err, errEmpty), errors.Is(err, errZero)
			switch {
			case err == nil || a.mayBeEmpty && empty || a.mayBe0 && zero:
			case (empty || zero) && time.Now().Before(deadline):
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

// soon is how long a panel may stay empty or 0 after the fault that fills it.
const soon = 2 * rateInterval

func scenarios(quiet []quietPanel) []string {
	names := map[string]bool{}
	for _, e := range quiet {
		if e.Scenario != "" {
			names[e.Scenario] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// fill makes a fault and waits until the panels that it is to fill show it.
func (m *monitored) fill(t *testing.T, scenario string, quiet []quietPanel, all map[string]dashboard, forms []form) {
	m.t = t
	begun := time.Now()
	m.during(func() {
		var queries []asked
		for _, e := range quiet {
			if e.Scenario != scenario {
				continue
			}
			d, p, ok := find(all, e)
			if !ok {
				t.Errorf("there is no panel %q of %s", e.Panel, e.Dashboard)
				continue
			}
			for _, f := range forms {
				v := d.chooseQuiet(t, f.prom, e)
				for _, q := range p.Targets {
					if e.is(d, p, q) {
						one := d.ask(p, q, f, v)
						one.since, one.mayBe0 = begun, !e.zero
						queries = append(queries, one)
					}
				}
			}
		}
		answered(t, queries)
	}, scenario)
}

// chooseQuiet chooses the Service that shows a fault, as soon as it is known.
// Usually it is the one that is refused.
func (d dashboard) chooseQuiet(t *testing.T, p *prometheus, e quietPanel) values {
	t.Helper()
	service := e.Service
	if service == "" {
		service = "broken"
	}
	var v values
	eventually(t, "the Service "+service+" can be chosen", func() (err error) {
		v, err = d.choose(p, map[string][]string{"namespace": {"default"}, "service": {service}})
		return err
	})
	return v
}

func find(all map[string]dashboard, e quietPanel) (dashboard, panel, bool) {
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
