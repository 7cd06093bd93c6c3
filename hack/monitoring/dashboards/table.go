// SPDX-License-Identifier: Apache-2.0

package dashboards

// column is a column of a table. from is a label, or "Value #" and the letter
// of the target.
type column struct {
	from, name string
	unit       string
	steps      []Step
	toService  bool // the cell leads to the Service dashboard
}

// value is the column that holds the values of the target with that letter.
func value(letter, name, unit string) column {
	return column{from: "Value #" + letter, name: name, unit: unit}
}

// label is a column that holds the values of a label.
func label(from, name string) column {
	return column{from: from, name: name}
}

// Columns that say which Service or node the row is about.
func serviceColumns() []column {
	return []column{
		label("service_namespace", "Namespace"),
		{from: "service_name", name: "Service", toService: true},
		label("cluster", "Cluster"),
	}
}

func nodeColumns() []column {
	return []column{label("node", "Node"), label("instance", "Instance"), label("cluster", "Cluster")}
}

// serviceURL leads to the Service dashboard for the row's Service, with the
// choices of this dashboard.
const serviceURL = "/d/" + serviceUID + "/" + serviceUID + "?" + choices +
	"&var-namespace=${__data.fields.Namespace}&var-service=${__data.fields.Service}&${__url_time_range}"

// table joins the targets' values by their common labels and shows the
// columns in order, sorted by the one named sortBy, highest first.
func table(s spec, sortBy string, columns ...column) Panel {
	p := newPanel("table", s)
	header := true
	p.FieldConfig.Defaults.Color.Mode = "thresholds"
	p.FieldConfig.Defaults.Custom = &Custom{DisplayMode: "auto", Align: "auto"}
	p.Options = &Options{ShowHeader: &header, SortBy: []SortBy{{DisplayName: sortBy, Desc: true}}}
	organize := OrganizeOptions{
		ExcludeByName: map[string]bool{"Time": true},
		IndexByName:   map[string]int{},
		RenameByName:  map[string]string{},
	}
	for i, c := range columns {
		organize.IndexByName[c.from] = i
		organize.RenameByName[c.from] = c.name
		if o, ok := c.override(); ok {
			p.FieldConfig.Overrides = append(p.FieldConfig.Overrides, o)
		}
	}
	p.Transformations = []Transformation{{ID: "merge"}, {ID: "organize", Options: organize}}
	return p
}

func (c column) override() (Override, bool) {
	o := Override{Matcher: Matcher{ID: "byName", Options: c.name}}
	if c.unit != "" {
		o.Properties = append(o.Properties, Property{ID: "unit", Value: c.unit})
	}
	if len(c.steps) > 0 {
		o.Properties = append(o.Properties,
			Property{ID: "thresholds", Value: Thresholds{Mode: "absolute", Steps: c.steps}},
			Property{ID: "custom.displayMode", Value: "color-text"})
	}
	if c.toService {
		o.Properties = append(o.Properties, Property{ID: "links", Value: []DataLink{{
			Title: "Show this Service", URL: serviceURL,
		}}})
	}
	return o, len(o.Properties) > 0
}
