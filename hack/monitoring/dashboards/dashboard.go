// SPDX-License-Identifier: Apache-2.0

package dashboards

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
)

// The schema versions of the two forms.
const (
	schemaVersion       = 36 // Grafana 9.0
	schemaVersionLegacy = 27 // Grafana 7.5
)

const (
	tag         = "svcscope"
	titlePrefix = "svcscope / "
)

// Folders that Files writes to, from the repository's root.
const (
	folder      = "dashboards"
	folder7     = "dashboards/grafana-7"
	chartFolder = "charts/svcscope/files/dashboards"
)

// All returns the dashboards in their current form, in the order in which a
// reader would go through them.
func All() []Dashboard {
	all := []Dashboard{overview(), service(), drift(), drops(), conntrack(), ruleGrowth(), agents()}
	for i := range all {
		all[i].Links = linksFrom(all[i].UID, all)
	}
	return all
}

// choices are the parameters of a dashboard's address that mean the same on
// all dashboards. namespace and service are not among them: they have many
// values on one dashboard and one on another, which All would leave with none.
const choices = "${datasource:queryparam}&${cluster:queryparam}&${node:queryparam}"

// linksFrom leads to all dashboards but the one with that uid.
func linksFrom(uid string, all []Dashboard) []Link {
	var links []Link
	for _, d := range all {
		if d.UID != uid {
			links = append(links, Link{
				Type: "link", Title: strings.TrimPrefix(d.Title, titlePrefix),
				URL: "/d/" + d.UID + "/" + d.UID + "?" + choices, Tags: []string{}, KeepTime: true, Icon: "dashboard",
			})
		}
	}
	return links
}

// Files returns what is written for the dashboards, by path from the
// repository's root: both forms, and the chart's copy of the current one.
func Files() (map[string][]byte, error) {
	files := map[string][]byte{}
	for _, d := range All() {
		current, err := encode(d)
		if err != nil {
			return nil, err
		}
		old, err := encode(grafana7(d))
		if err != nil {
			return nil, err
		}
		name := "/" + d.UID + ".json"
		files[folder+name], files[chartFolder+name], files[folder7+name] = current, current, old
	}
	return files, nil
}

func encode(d Dashboard) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(d); err != nil {
		return nil, fmt.Errorf("encode dashboard %s: %w", d.UID, err)
	}
	return b.Bytes(), nil
}

// heading is what tells a dashboard from the others, besides its panels.
type heading struct {
	uid, title, description string
	from                    string // the time range at first
	refresh                 string
	variables               []Variable
}

func newDashboard(h heading, sections ...section) Dashboard {
	return Dashboard{
		UID: h.uid, Title: titlePrefix + h.title, Description: h.description,
		Tags: []string{tag}, SchemaVersion: schemaVersion, GraphTooltip: 1,
		Refresh: h.refresh, Time: TimeRange{From: h.from, To: "now"},
		Templating: Templating{List: h.variables},
		Panels:     layOut(sections),
	}
}

// layOut puts the panels from left to right below their row's heading and
// numbers them. A panel that does not fit begins a new line, below the
// highest panel of the line before.
func layOut(sections []section) []Panel {
	var placed []Panel
	y := 0
	for _, s := range sections {
		open := false
		placed = append(placed, Panel{
			Type: "row", Title: s.question, Collapsed: &open, Panels: []Panel{},
			GridPos: GridPos{Y: y, W: gridWidth, H: 1},
		})
		y++
		x, height := 0, 0
		for _, p := range s.panels {
			if x+p.GridPos.W > gridWidth {
				x, y, height = 0, y+height, 0
			}
			p.GridPos.X, p.GridPos.Y = x, y
			x, height = x+p.GridPos.W, max(height, p.GridPos.H)
			placed = append(placed, p)
		}
		y += height
	}
	for i := range placed {
		placed[i].ID = i + 1
	}
	return placed
}

// gridWidth is the width of Grafana's grid.
const gridWidth = 24

// grafana7 returns the dashboard in the form of Grafana 7.5, which names data
// sources by string and calls a chart's tooltip by another name.
func grafana7(d Dashboard) Dashboard {
	d.SchemaVersion = schemaVersionLegacy
	variables := make([]Variable, len(d.Templating.List))
	for i, v := range d.Templating.List {
		v.Datasource = plain(v.Datasource)
		variables[i] = v
	}
	d.Templating.List = variables
	panels := make([]Panel, len(d.Panels))
	for i, p := range d.Panels {
		panels[i] = panel7(p)
	}
	d.Panels = panels
	return d
}

func panel7(p Panel) Panel {
	p.Datasource = plain(p.Datasource)
	targets := make([]Target, len(p.Targets))
	for i, t := range p.Targets {
		t.Datasource = nil // 7.5: the panel's
		targets[i] = t
	}
	p.Targets = targets
	if p.Options != nil && p.Options.Tooltip != nil {
		o := *p.Options
		o.Tooltip, o.TooltipOptions = nil, &Tooltip{Mode: o.Tooltip.Mode}
		p.Options = &o
	}
	if p.FieldConfig != nil && p.FieldConfig.Defaults.Custom != nil {
		f, c := *p.FieldConfig, *p.FieldConfig.Defaults.Custom
		c.ThresholdsStyle = nil // since 8.0
		f.Defaults.Custom = &c
		p.FieldConfig = &f
	}
	return p
}

func plain(d *Datasource) *Datasource {
	if d == nil {
		return nil
	}
	return &Datasource{Type: d.Type, UID: d.UID, plain: true}
}
