// SPDX-License-Identifier: Apache-2.0

package dashboards

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// lintGrid checks that no two panels overlap and that every line is filled
// with panels of one height.
func lintGrid(d Dashboard) []string {
	var problems []string
	taken := map[[2]int]string{}
	width, heights := map[int]int{}, map[int]int{}
	bottom := 0
	for _, p := range d.Panels {
		g := p.GridPos
		for x := g.X; x < g.X+g.W; x++ {
			for y := g.Y; y < g.Y+g.H; y++ {
				if other := taken[[2]int{x, y}]; other != "" {
					return []string{fmt.Sprintf("%s/%s lies over %s", d.UID, p.Title, other)}
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
		if g.X+g.W > gridWidth || g.W < 4 || g.H < 1 {
			problems = append(problems, fmt.Sprintf("%s/%s is out of the grid or too small", d.UID, p.Title))
		}
		width[g.Y] += g.W
		if h := heights[g.Y]; h != 0 && h != g.H {
			problems = append(problems, fmt.Sprintf("%s/%s is not as high as its neighbours", d.UID, p.Title))
		}
		heights[g.Y] = g.H
		bottom = max(bottom, g.Y+g.H)
	}
	for y, w := range width {
		if w != gridWidth {
			problems = append(problems, fmt.Sprintf("%s: the line at %d is %d wide", d.UID, y, w))
		}
	}
	if len(taken) != bottom*gridWidth {
		problems = append(problems, d.UID+": there is a hole between its panels")
	}
	return problems
}

// lintVariables checks that the variables in use exist and the others are not
// there, and that All matches an absent label.
func lintVariables(d Dashboard) []string {
	var problems []string
	add := func(format string, args ...any) {
		problems = append(problems, d.UID+": "+fmt.Sprintf(format, args...))
	}
	declared, used := map[string]bool{}, map[string]bool{}
	use := func(text string) {
		for _, m := range variableText.FindAllStringSubmatch(text, -1) {
			used[m[1]] = true
		}
	}
	for _, v := range d.Templating.List {
		if v.Datasource != nil {
			use(v.Datasource.UID)
		}
		use(v.Query)
		if v.Type == "query" && v.Refresh != 2 {
			add("%s is not asked for again when the time range changes", v.Name)
		}
		if v.IncludeAll && (v.AllValue != ".*" || !v.Multi) {
			add("All of %s does not match an absent label", v.Name)
		}
		for name := range used {
			if !declared[name] {
				add("%s uses %s, which is not declared before it", v.Name, name)
			}
		}
		declared[v.Name] = true
	}
	for _, p := range d.Panels {
		if p.Type == "row" {
			continue
		}
		if p.Datasource == nil || p.Datasource.UID != "${datasource}" || p.Datasource.Type != "prometheus" {
			add("%s does not use the chosen data source", p.Title)
		}
		for _, url := range links(p) {
			use(url)
		}
		for _, t := range p.Targets {
			use(t.Expr)
			if t.Datasource == nil || *t.Datasource != *p.Datasource {
				add("%s %s does not use the chosen data source", p.Title, t.RefID)
			}
		}
	}
	for name := range used {
		if !declared[name] && !slices.Contains(builtin, name) {
			add("$%s is not declared", name)
		}
	}
	for name := range declared {
		if !used[name] {
			add("nothing uses $%s", name)
		}
	}
	return problems
}

// links returns where a panel's values lead to.
func links(p Panel) []string {
	var urls []string
	for _, o := range p.FieldConfig.Overrides {
		for _, property := range o.Properties {
			if leads, ok := property.Value.([]DataLink); ok {
				for _, l := range leads {
					urls = append(urls, l.URL)
				}
			}
		}
	}
	return urls
}

// TestLinks follows the links: the fields are columns of the table, and the
// variables exist where they lead to.
func TestLinks(t *testing.T) {
	followed := 0
	for _, d := range All() {
		for _, p := range d.Panels {
			if p.Type == "row" {
				continue
			}
			for _, url := range links(p) {
				followed++
				if !strings.HasPrefix(url, "/d/"+serviceUID+"/") {
					t.Errorf("%s/%s leads to %s", d.UID, p.Title, url)
				}
				for _, m := range fieldText.FindAllStringSubmatch(url, -1) {
					if !slices.Contains(slices.Collect(maps.Values(p.Transformations[1].Options.RenameByName)), m[1]) {
						t.Errorf("%s/%s has no column %s to lead from", d.UID, p.Title, m[1])
					}
				}
				for _, m := range choiceText.FindAllStringSubmatch(url, -1) {
					if !slices.ContainsFunc(serviceVariables(), func(v Variable) bool { return v.Name == m[1]+m[2] }) {
						t.Errorf("%s/%s sets %s, which is not there", d.UID, p.Title, m[1]+m[2])
					}
				}
			}
		}
	}
	if followed < 2 {
		t.Errorf("%d links to the Service dashboard", followed)
	}
}

// lintLinks checks that the header of a dashboard leads to all the others with
// the choices that mean the same there. A variable of many values must not
// fill one of a single value, which would take "All" for a name.
func lintLinks(d Dashboard) []string {
	var problems []string
	add := func(format string, args ...any) {
		problems = append(problems, d.UID+": "+fmt.Sprintf(format, args...))
	}
	for _, to := range All() {
		if to.UID == d.UID {
			continue
		}
		i := slices.IndexFunc(d.Links, func(l Link) bool { return strings.HasPrefix(l.URL, "/d/"+to.UID+"/") })
		if i < 0 || d.Links[i].Type != "link" || !d.Links[i].KeepTime {
			add("does not lead to %s at the same time", to.UID)
			continue
		}
		carried := map[string]bool{}
		for _, m := range choiceText.FindAllStringSubmatch(d.Links[i].URL, -1) {
			carried[m[1]+m[2]] = true
		}
		for _, v := range d.Templating.List {
			there := slices.IndexFunc(to.Templating.List, func(o Variable) bool { return o.Name == v.Name })
			sent := carried[v.Name] || d.Links[i].IncludeVars
			delete(carried, v.Name)
			switch {
			case sent && there >= 0 && v.Multi && !to.Templating.List[there].Multi:
				add("%s has many values here and one there, in %s", v.Name, to.UID)
			case !sent && slices.ContainsFunc(nodeVariables(), func(o Variable) bool { return o.Name == v.Name }):
				add("forgets %s on the way to %s", v.Name, to.UID)
			}
		}
		for name := range carried {
			add("the link to %s sets %s, which is not there", to.UID, name)
		}
	}
	return problems
}

// title is the name by which texts call a dashboard.
func title(uid string) string {
	for _, d := range All() {
		if d.UID == uid {
			return strings.TrimPrefix(d.Title, titlePrefix)
		}
	}
	return "dashboard " + uid
}

var (
	fieldText  = regexp.MustCompile(`__data\.fields\.([A-Za-z]+)`)
	choiceText = regexp.MustCompile(`[?&](?:\$\{([a-z]+):queryparam\}|var-([a-z]+)=)`)
)
