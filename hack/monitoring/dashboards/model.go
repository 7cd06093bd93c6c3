// SPDX-License-Identifier: Apache-2.0

package dashboards

import "encoding/json"

// Dashboard is Grafana's classic dashboard model, as far as it is used here.
type Dashboard struct {
	UID           string     `json:"uid"`
	Title         string     `json:"title"`
	Description   string     `json:"description"`
	Tags          []string   `json:"tags"`
	SchemaVersion int        `json:"schemaVersion"`
	Editable      bool       `json:"editable"`
	GraphTooltip  int        `json:"graphTooltip"` // 1: one crosshair in all panels
	Refresh       string     `json:"refresh"`
	Time          TimeRange  `json:"time"`
	Timezone      string     `json:"timezone"`
	Links         []Link     `json:"links"`
	Templating    Templating `json:"templating"`
	Panels        []Panel    `json:"panels"`
}

// TimeRange is what a dashboard shows at first, in Grafana's notation.
type TimeRange struct {
	From string `json:"from"`
	To   string `json:"to"`
}

// Link leads from a dashboard's header to a page.
type Link struct {
	Type        string   `json:"type"`
	Title       string   `json:"title"`
	URL         string   `json:"url"`
	Tags        []string `json:"tags"`
	AsDropdown  bool     `json:"asDropdown"`
	IncludeVars bool     `json:"includeVars"`
	KeepTime    bool     `json:"keepTime"`
	TargetBlank bool     `json:"targetBlank"`
	Icon        string   `json:"icon"`
}

// Templating holds a dashboard's variables.
type Templating struct {
	List []Variable `json:"list"`
}

// Datasource names the data source of a panel, target or variable. Grafana
// 7.5 wants its name alone, later releases an object.
type Datasource struct {
	Type, UID string
	plain     bool
}

// MarshalJSON writes the form of the dashboard's release.
func (d Datasource) MarshalJSON() ([]byte, error) {
	if d.plain {
		return json.Marshal(d.UID)
	}
	return json.Marshal(struct {
		Type string `json:"type"`
		UID  string `json:"uid"`
	}{d.Type, d.UID})
}

// Variable is a variable of a dashboard. Datasource is nil for one that
// chooses the data source.
type Variable struct {
	Name       string      `json:"name"`
	Label      string      `json:"label"`
	Type       string      `json:"type"`
	Datasource *Datasource `json:"datasource,omitempty"`
	Query      string      `json:"query"`
	Regex      string      `json:"regex"`
	Refresh    int         `json:"refresh"` // 1: on load; 2: when the time range changes too
	Sort       int         `json:"sort"`    // 1: by name
	Hide       int         `json:"hide"`
	Multi      bool        `json:"multi"`
	IncludeAll bool        `json:"includeAll"`
	AllValue   string      `json:"allValue,omitempty"`
	Current    Current     `json:"current"`
	Options    []string    `json:"options"`
}

// Current is a variable's value at first; empty lets Grafana take the first.
type Current struct {
	Selected *bool    `json:"selected,omitempty"`
	Text     []string `json:"text,omitempty"`
	Value    []string `json:"value,omitempty"`
}

// GridPos is a panel's place: Grafana's grid is 24 columns wide, a row of it
// 30 pixels high.
type GridPos struct {
	X int `json:"x"`
	Y int `json:"y"`
	W int `json:"w"`
	H int `json:"h"`
}

// Panel is a panel, or with Type "row" the heading of those below it.
type Panel struct {
	ID              int              `json:"id"`
	Type            string           `json:"type"`
	Title           string           `json:"title"`
	Description     string           `json:"description,omitempty"`
	GridPos         GridPos          `json:"gridPos"`
	Collapsed       *bool            `json:"collapsed,omitempty"` // rows only
	Panels          []Panel          `json:"panels,omitzero"`
	Datasource      *Datasource      `json:"datasource,omitempty"`
	FieldConfig     *FieldConfig     `json:"fieldConfig,omitempty"`
	Options         *Options         `json:"options,omitempty"`
	Targets         []Target         `json:"targets,omitempty"`
	Transformations []Transformation `json:"transformations,omitempty"`
}

// Target is one query of a panel.
type Target struct {
	RefID        string      `json:"refId"`
	Datasource   *Datasource `json:"datasource,omitempty"`
	Expr         string      `json:"expr"`
	LegendFormat string      `json:"legendFormat"`
	Instant      bool        `json:"instant"`
	Range        bool        `json:"range"`
	Format       string      `json:"format"`
}

// FieldConfig says how values are shown.
type FieldConfig struct {
	Defaults  Field      `json:"defaults"`
	Overrides []Override `json:"overrides"`
}

// Field is how one field is shown.
type Field struct {
	Unit       string     `json:"unit"`
	Decimals   *int       `json:"decimals,omitempty"`
	Min        *float64   `json:"min,omitempty"`
	NoValue    string     `json:"noValue,omitempty"`
	Color      Color      `json:"color"`
	Thresholds Thresholds `json:"thresholds"`
	Custom     *Custom    `json:"custom,omitempty"`
	Mappings   []struct{} `json:"mappings"`
}

// Color says where a field's colour comes from.
type Color struct {
	Mode string `json:"mode"`
}

// Thresholds are the steps of colour.
type Thresholds struct {
	Mode  string `json:"mode"`
	Steps []Step `json:"steps"`
}

// Step is a colour from a value on; the first has none.
type Step struct {
	Color string   `json:"color"`
	Value *float64 `json:"value"`
}

// Custom holds what only one type of panel knows.
type Custom struct {
	DrawStyle       string           `json:"drawStyle,omitempty"`
	LineWidth       int              `json:"lineWidth,omitempty"`
	FillOpacity     int              `json:"fillOpacity,omitempty"`
	ShowPoints      string           `json:"showPoints,omitempty"`
	ThresholdsStyle *ThresholdsStyle `json:"thresholdsStyle,omitempty"`
	DisplayMode     string           `json:"displayMode,omitempty"` // tables
	Align           string           `json:"align,omitempty"`       // tables
}

// ThresholdsStyle says how thresholds are drawn behind lines.
type ThresholdsStyle struct {
	Mode string `json:"mode"`
}

// Override changes the fields that the matcher finds.
type Override struct {
	Matcher    Matcher    `json:"matcher"`
	Properties []Property `json:"properties"`
}

// Matcher finds fields.
type Matcher struct {
	ID      string `json:"id"`
	Options string `json:"options"`
}

// Property is a changed property of a field.
type Property struct {
	ID    string `json:"id"`
	Value any    `json:"value"`
}

// DataLink leads from a value to a page.
type DataLink struct {
	Title       string `json:"title"`
	URL         string `json:"url"`
	TargetBlank bool   `json:"targetBlank"`
}

// Options holds the options of all types of panels in use.
type Options struct {
	Legend         *Legend        `json:"legend,omitempty"`
	Tooltip        *Tooltip       `json:"tooltip,omitempty"`
	TooltipOptions *Tooltip       `json:"tooltipOptions,omitempty"` // Grafana 7.5's name
	ReduceOptions  *ReduceOptions `json:"reduceOptions,omitempty"`
	Orientation    string         `json:"orientation,omitempty"`
	ColorMode      string         `json:"colorMode,omitempty"`
	GraphMode      string         `json:"graphMode,omitempty"`
	JustifyMode    string         `json:"justifyMode,omitempty"`
	TextMode       string         `json:"textMode,omitempty"`
	DisplayMode    string         `json:"displayMode,omitempty"`
	ShowUnfilled   *bool          `json:"showUnfilled,omitempty"`
	ShowHeader     *bool          `json:"showHeader,omitempty"`
	SortBy         []SortBy       `json:"sortBy,omitempty"`
}

// Legend says where a chart's legend is and what it computes.
type Legend struct {
	DisplayMode string   `json:"displayMode"`
	Placement   string   `json:"placement"`
	Calcs       []string `json:"calcs"`
}

// Tooltip says what a chart's tooltip holds.
type Tooltip struct {
	Mode string `json:"mode"`
	Sort string `json:"sort,omitempty"`
}

// ReduceOptions turns a series into the one value that is shown.
type ReduceOptions struct {
	Calcs  []string `json:"calcs"`
	Fields string   `json:"fields"`
	Values bool     `json:"values"`
}

// SortBy sorts a table by a column.
type SortBy struct {
	DisplayName string `json:"displayName"`
	Desc        bool   `json:"desc"`
}

// Transformation changes a panel's data after the queries.
type Transformation struct {
	ID      string          `json:"id"`
	Options OrganizeOptions `json:"options"`
}

// OrganizeOptions are the options of the transformation organize; merge has
// none.
type OrganizeOptions struct {
	ExcludeByName map[string]bool   `json:"excludeByName,omitempty"`
	IndexByName   map[string]int    `json:"indexByName,omitempty"`
	RenameByName  map[string]string `json:"renameByName,omitempty"`
}
