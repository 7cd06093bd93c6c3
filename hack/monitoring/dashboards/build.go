// SPDX-License-Identifier: Apache-2.0

package dashboards

import "strings"

// spec is what the author of a panel says; the functions below turn it into a
// panel of one type.
type spec struct {
	title string
	// shows, bad and next become the description: what it shows, what is bad
	// about it, and what to do then.
	shows, bad, next string
	unit             string // Grafana's unit id
	w, h             int
	targets          []Target
	steps            []Step // no steps: no meaning of good and bad
	noValue          string // shown instead of "No data"; for panels that are empty in health
}

// section is a row's heading, which is a question, and its panels.
type section struct {
	question string
	panels   []Panel
}

// promql writes the short forms out:
//
//	@on    the selector of the chosen nodes
//	@ns    @on and the chosen namespaces
//	@its   @on and the one chosen Service
//	@node  the labels that tell nodes apart
//	@svc   the labels that tell Services apart
func promql(text string) string {
	const on = `cluster=~"$cluster", node=~"$node"`
	return strings.NewReplacer(
		"@on", on,
		"@ns", on+`, service_namespace=~"$namespace"`,
		"@its", on+`, service_namespace="$namespace", service_name="$service"`,
		"@node", "cluster, node, instance",
		"@svc", "cluster, service_namespace, service_name",
	).Replace(strings.Join(strings.Fields(text), " "))
}

// Legends of series by node and by Service. Absent labels leave a blank only.
const (
	nodeLegend    = "{{node}} {{instance}} {{cluster}}"
	serviceLegend = "{{service_namespace}}/{{service_name}} {{cluster}}"
)

// over is a query for the whole time range.
func over(expr, legend string) Target {
	return Target{Expr: promql(expr), LegendFormat: legend, Range: true, Format: "time_series"}
}

// now is a query for the range's end alone.
func now(expr, legend string) Target {
	return Target{Expr: promql(expr), LegendFormat: legend, Instant: true, Format: "time_series"}
}

// cells is a query for the cells of a table.
func cells(expr string) Target {
	return Target{Expr: promql(expr), Instant: true, Format: "table"}
}

// anyRate is a rate per second that only rounding stays below.
const anyRate = 0.001

// warnAt colours values from warn on yellow, from bad on red.
func warnAt(warn, bad float64) []Step {
	return []Step{{Color: "green"}, {Color: "yellow", Value: &warn}, {Color: "red", Value: &bad}}
}

func yellowFrom(v float64) []Step {
	return []Step{{Color: "green"}, {Color: "yellow", Value: &v}}
}

func redFrom(v float64) []Step {
	return []Step{{Color: "green"}, {Color: "red", Value: &v}}
}

// badBelow colours values from 0 on red, from warn on green, and between them
// yellow from bad on. The first step, which is also the colour of no value, is
// green.
func badBelow(warn, bad float64) []Step {
	zero := 0.0
	return []Step{{Color: "green"}, {Color: "red", Value: &zero}, {Color: "yellow", Value: &bad}, {Color: "green", Value: &warn}}
}

// plainThenRed leaves a table's cell as it is until there is a rate.
func plainThenRed() []Step {
	rate := anyRate
	return []Step{{Color: "text"}, {Color: "red", Value: &rate}}
}

func newPanel(kind string, s spec) Panel {
	p := Panel{
		Type: kind, Title: s.title,
		Description: s.shows + "\n\n**Bad:** " + s.bad + "\n\n**Next:** " + s.next,
		GridPos:     GridPos{W: s.w, H: s.h},
		Datasource:  prometheus(),
		FieldConfig: &FieldConfig{Defaults: Field{
			Unit: s.unit, NoValue: s.noValue,
			Color:      Color{Mode: "palette-classic"},
			Thresholds: Thresholds{Mode: "absolute", Steps: s.steps},
			Mappings:   []struct{}{},
		}, Overrides: []Override{}},
		Targets: s.targets,
	}
	if len(s.steps) == 0 {
		p.FieldConfig.Defaults.Thresholds.Steps = []Step{{Color: "green"}}
	}
	for i := range p.Targets {
		p.Targets[i].RefID = string(rune('A' + i))
		p.Targets[i].Datasource = prometheus()
	}
	return p
}

func prometheus() *Datasource {
	return &Datasource{Type: "prometheus", UID: "${datasource}"}
}

// timeseries draws lines; thresholds become lines behind them.
func timeseries(s spec) Panel {
	p := newPanel("timeseries", s)
	zero := 0.0
	field := &p.FieldConfig.Defaults
	field.Min = &zero
	field.Custom = &Custom{DrawStyle: "line", LineWidth: 1, FillOpacity: 10, ShowPoints: "never"}
	if len(s.steps) > 0 {
		field.Custom.ThresholdsStyle = &ThresholdsStyle{Mode: "line"}
	}
	p.Options = &Options{
		Legend:  &Legend{DisplayMode: "list", Placement: "bottom", Calcs: []string{}},
		Tooltip: &Tooltip{Mode: "multi", Sort: "desc"},
	}
	return p
}

// stat shows the last value large, coloured where the spec has thresholds.
func stat(s spec) Panel {
	p := newPanel("stat", s)
	p.FieldConfig.Defaults.Color.Mode = "thresholds"
	mode := "none"
	if len(s.steps) > 0 {
		mode = "value"
	}
	graph := "area"
	for _, t := range s.targets {
		if t.Instant {
			graph = "none"
		}
	}
	p.Options = &Options{
		ReduceOptions: lastValue(), Orientation: "auto", ColorMode: mode,
		GraphMode: graph, JustifyMode: "auto", TextMode: "auto",
	}
	return p
}

// bars shows one bar a series, with its last value.
func bars(s spec) Panel {
	p := newPanel("bargauge", s)
	zero, unfilled := 0.0, true
	p.FieldConfig.Defaults.Min = &zero
	p.FieldConfig.Defaults.Color.Mode = "thresholds"
	p.Options = &Options{
		ReduceOptions: lastValue(), Orientation: "horizontal",
		DisplayMode: "basic", ShowUnfilled: &unfilled,
	}
	return p
}

func lastValue() *ReduceOptions {
	return &ReduceOptions{Calcs: []string{"lastNotNull"}, Fields: "", Values: false}
}
