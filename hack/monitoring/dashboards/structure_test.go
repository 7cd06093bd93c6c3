// SPDX-License-Identifier: Apache-2.0

package dashboards

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// builtin are the variables that Grafana itself knows.
var builtin = []string{"__rate_interval", "__range", "__data", "__url_time_range"}

// lintStructure returns what is wrong with a dashboard besides its queries.
func lintStructure(d Dashboard) []string {
	var problems []string
	add := func(format string, args ...any) {
		problems = append(problems, d.UID+": "+fmt.Sprintf(format, args...))
	}
	if !slices.Contains(d.Tags, tag) || d.Editable || d.Title == "" || d.Description == "" {
		add("needs a title, a description and the tag, and must not be editable")
	}
	ids, titles, shown := map[int]bool{}, map[string]bool{}, 0
	for _, p := range d.Panels {
		if ids[p.ID] || p.ID < 1 {
			add("%s: id %d is there twice or not positive", p.Title, p.ID)
		}
		if titles[p.Title] {
			add("%s: the title is there twice", p.Title)
		}
		ids[p.ID], titles[p.Title] = true, true
		if p.Type != "row" {
			shown++
			problems = append(problems, lintPanel(d.UID, p)...)
		}
	}
	if shown < 8 || shown > 16 {
		add("%d panels: more than 16 are not read, fewer than 8 answer little", shown)
	}
	return slices.Concat(problems, lintLinks(d), lintGrid(d), lintVariables(d))
}

func lintPanel(uid string, p Panel) []string {
	var problems []string
	add := func(format string, args ...any) {
		problems = append(problems, uid+"/"+p.Title+": "+fmt.Sprintf(format, args...))
	}
	if !slices.Contains([]string{"timeseries", "stat", "bargauge", "table"}, p.Type) {
		add("Grafana 7.5 has no panel %q", p.Type)
	}
	if p.Title == "" || strings.HasSuffix(p.Title, ".") {
		add("needs a title without a full stop")
	}
	if !strings.Contains(p.Description, ".\n\n**Bad:** ") || !strings.Contains(p.Description, ".\n\n**Next:** ") ||
		!strings.HasSuffix(p.Description, ".") {
		add("its description must say what it shows, what is bad and what to do next, in sentences")
	}
	if strings.Contains(p.Description, "Open the "+title(uid)) {
		add("sends its reader to the dashboard that it is on")
	}
	if p.FieldConfig.Defaults.Unit == "" {
		add("has no unit")
	}
	if c := p.FieldConfig.Defaults.Thresholds.Steps[0].Color; p.FieldConfig.Defaults.NoValue != "" && c != "green" && c != "text" {
		add("is %s when it is empty, as in health", c)
	}
	if len(p.Targets) == 0 {
		add("has no query")
	}
	for i, t := range p.Targets {
		if t.RefID != string(rune('A'+i)) || t.Instant == t.Range {
			add("query %q is out of order, or not either instant or over the range", t.RefID)
		}
		if (t.Format == "table") != (p.Type == "table") || p.Type == "table" && !t.Instant {
			add("query %s has the wrong form for a %s", t.RefID, p.Type)
		}
		if t.LegendFormat == "" && p.Type != "table" {
			add("query %s has no legend", t.RefID)
		}
	}
	return append(problems, lintTable(uid, p)...)
}

// lintTable checks that a table's columns come from its queries. With a
// single query Grafana calls its values "Value", not "Value #A".
func lintTable(uid string, p Panel) []string {
	if p.Type != "table" {
		return nil
	}
	var problems []string
	if len(p.Targets) < 2 {
		problems = append(problems, uid+"/"+p.Title+": a table needs two queries")
	}
	have := map[string]bool{}
	for _, t := range p.Targets {
		have["Value #"+t.RefID] = true
		for l := range outermost(t.Expr) {
			have[l] = true
		}
	}
	columns := p.Transformations[1].Options.RenameByName
	names := map[string]bool{}
	for from, name := range columns {
		if !have[from] {
			problems = append(problems, fmt.Sprintf("%s/%s: no query gives the column %s", uid, p.Title, from))
		}
		names[name] = true
	}
	for _, t := range p.Targets {
		if columns["Value #"+t.RefID] == "" {
			problems = append(problems, fmt.Sprintf("%s/%s: no column shows query %s", uid, p.Title, t.RefID))
		}
	}
	for _, o := range p.FieldConfig.Overrides {
		if !names[o.Matcher.Options] {
			problems = append(problems, fmt.Sprintf("%s/%s: no column is called %s", uid, p.Title, o.Matcher.Options))
		}
	}
	for _, s := range p.Options.SortBy {
		if !names[s.DisplayName] {
			problems = append(problems, fmt.Sprintf("%s/%s: cannot sort by %s", uid, p.Title, s.DisplayName))
		}
	}
	return problems
}

func TestStructure(t *testing.T) {
	uids := map[string]bool{}
	for _, d := range All() {
		if uids[d.UID] || !strings.HasPrefix(d.UID, "svcscope-") || len(d.UID) > 40 {
			t.Errorf("%q is no uid, or there twice", d.UID)
		}
		uids[d.UID] = true
		for _, problem := range lintStructure(d) {
			t.Error(problem)
		}
	}
}

// TestStructureFinds shows that each rule can fail.
func TestStructureFinds(t *testing.T) {
	// The first panel is a row, the second a stat.
	tests := []struct {
		name   string
		damage func(d *Dashboard)
		want   string
	}{
		{"editable", func(d *Dashboard) { d.Editable = true }, "must not be editable"},
		{"no links", func(d *Dashboard) { d.Links = nil }, "does not lead"},
		{"all variables", func(d *Dashboard) { d.Links[0].IncludeVars = true }, "has many values here and one there"},
		{"a variable of many values", func(d *Dashboard) { d.Links[0].URL += "&${namespace:queryparam}" }, "has many values here and one there"},
		{"unknown choice", func(d *Dashboard) { d.Links[1].URL += "&${service:queryparam}" }, "sets service, which is not there"},
		{"without the cluster", func(d *Dashboard) {
			d.Links[0].URL = strings.Replace(d.Links[0].URL, "&${cluster:queryparam}", "", 1)
		}, "forgets cluster"},
		{"red in health", func(d *Dashboard) {
			d.Panels[1].FieldConfig.Defaults.NoValue = "none"
			d.Panels[1].FieldConfig.Defaults.Thresholds.Steps[0].Color = "red"
		}, "is red when it is empty"},
		{"to itself", func(d *Dashboard) {
			d.Panels[1].Description = strings.Replace(d.Panels[1].Description, "**Next:** ", "**Next:** Open the Cluster overview dashboard. ", 1)
		}, "that it is on"},
		{"id twice", func(d *Dashboard) { d.Panels[1].ID = d.Panels[2].ID }, "is there twice"},
		{"title twice", func(d *Dashboard) { d.Panels[1].Title = d.Panels[2].Title }, "title is there twice"},
		{"unknown type", func(d *Dashboard) { d.Panels[1].Type = "heatmap" }, "no panel"},
		{"no description", func(d *Dashboard) { d.Panels[1].Description = "" }, "description"},
		{"no unit", func(d *Dashboard) { d.Panels[1].FieldConfig.Defaults.Unit = "" }, "no unit"},
		{"no query", func(d *Dashboard) { d.Panels[1].Targets = nil }, "no query"},
		{"no legend", func(d *Dashboard) { d.Panels[1].Targets[0].LegendFormat = "" }, "no legend"},
		{"table query", func(d *Dashboard) { d.Panels[1].Targets[0].Format = "table" }, "wrong form"},
		{"overlap", func(d *Dashboard) { d.Panels[2].GridPos.X-- }, "lies over"},
		{"out of the grid", func(d *Dashboard) { d.Panels[0].GridPos.W++ }, "out of the grid"},
		{"short line", func(d *Dashboard) { d.Panels[1].GridPos.W-- }, "wide"},
		{"heights", func(d *Dashboard) { d.Panels[1].GridPos.H-- }, "as high as"},
		{"fixed data source", func(d *Dashboard) { d.Panels[1].Datasource = &Datasource{UID: "p"} }, "data source"},
		{"unknown variable", func(d *Dashboard) { d.Panels[1].Targets[0].Expr += "$pod" }, "$pod is not declared"},
		{"unused variable", func(d *Dashboard) {
			d.Templating.List = append(d.Templating.List, anyOf("pod", "Pod", "label_values(svcscope_rules, pod)"))
		}, "nothing uses $pod"},
		{"All", func(d *Dashboard) { d.Templating.List[1].AllValue = "" }, "absent label"},
		{"order", func(d *Dashboard) {
			l := d.Templating.List
			l[1], l[2] = l[2], l[1]
		}, "declared before"},
		{"too many", func(d *Dashboard) { d.Panels = append(d.Panels, d.Panels...) }, "not read"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := All()[0]
			tt.damage(&d)
			if got := strings.Join(lintStructure(d), "\n"); !strings.Contains(got, tt.want) {
				t.Errorf("lint says %q, want something about %q", got, tt.want)
			}
		})
	}
}

func TestTableFinds(t *testing.T) {
	tests := []struct {
		name   string
		damage func(p *Panel)
		want   string
	}{
		{"one query", func(p *Panel) { p.Targets = p.Targets[:1] }, "two queries"},
		{"column of nothing", func(p *Panel) { p.Transformations[1].Options.RenameByName["pod"] = "Pod" }, "column pod"},
		{"query without column", func(p *Panel) { delete(p.Transformations[1].Options.RenameByName, "Value #B") }, "query B"},
		{"override of nothing", func(p *Panel) { p.FieldConfig.Overrides[0].Matcher.Options = "Pod" }, "called Pod"},
		{"sort", func(p *Panel) { p.Options.SortBy[0].DisplayName = "Pod" }, "sort by Pod"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := servicesTable()
			tt.damage(&p)
			if got := strings.Join(lintTable("d", p), "\n"); !strings.Contains(got, tt.want) {
				t.Errorf("lint says %q, want something about %q", got, tt.want)
			}
		})
	}
}
