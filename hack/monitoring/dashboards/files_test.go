// SPDX-License-Identifier: Apache-2.0

package dashboards

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A ConfigMap holds 1 MiB, its other fields included.
const maxSize = 900 << 10

func files(t *testing.T) map[string][]byte {
	t.Helper()
	all, err := Files()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestFilesAreCurrent compares the files in the tree with the generator's.
func TestFilesAreCurrent(t *testing.T) {
	for path, want := range files(t) {
		got, err := os.ReadFile(filepath.Join("../../..", path))
		if err != nil {
			t.Error(err)
			continue
		}
		if d := cmp.Diff(string(want), string(got)); d != "" {
			t.Errorf("%s is not current; go run ./hack/monitoring (-want +got):\n%s", path, d)
		}
	}
}

func TestFiles(t *testing.T) {
	all := files(t)
	if want := 3 * len(All()); len(all) != want {
		t.Errorf("%d files, want %d", len(all), want)
	}
	for path, content := range all {
		if len(content) > maxSize {
			t.Errorf("%s has %d bytes, more than a ConfigMap takes", path, len(content))
		}
		if !strings.HasSuffix(string(content), "}\n") {
			t.Errorf("%s does not end with a line's end", path)
		}
	}
	for path, content := range files(t) {
		if string(content) != string(all[path]) {
			t.Errorf("%s differs from run to run", path)
		}
	}
}

// dataSources returns all values of the key datasource in a JSON document.
func dataSources(value any) []any {
	var found []any
	switch v := value.(type) {
	case map[string]any:
		for key, child := range v {
			if key == "datasource" {
				found = append(found, child)
			}
			found = append(found, dataSources(child)...)
		}
	case []any:
		for _, child := range v {
			found = append(found, dataSources(child)...)
		}
	}
	return found
}

// TestForms checks what makes a file loadable by its release of Grafana.
func TestForms(t *testing.T) {
	for path, content := range files(t) {
		var d map[string]any
		if err := json.Unmarshal(content, &d); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		old := strings.HasPrefix(path, folder7+"/")
		version := float64(schemaVersion)
		if old {
			version = schemaVersionLegacy
		}
		if d["schemaVersion"] != version {
			t.Errorf("%s has schemaVersion %v, want %v", path, d["schemaVersion"], version)
		}
		sources := dataSources(d)
		if len(sources) < 10 {
			t.Errorf("%s names %d data sources", path, len(sources))
		}
		for _, s := range sources {
			if name, isString := s.(string); isString != old || old && name != "${datasource}" {
				t.Errorf("%s: data source %v", path, s)
			}
		}
		for _, key := range []string{"thresholdsStyle", `"tooltip"`} {
			if old && strings.Contains(string(content), key) {
				t.Errorf("%s: Grafana 7.5 has no %s", path, key)
			}
		}
	}
}

// empty is an entry of testdata/empty.json: a panel, or some of its targets,
// that show nothing while all is well.
type empty struct {
	Dashboard string   `json:"dashboard"` // the uid
	Panel     string   `json:"panel"`     // the title
	Targets   []string `json:"targets"`   // absent: all
	Scenario  string   `json:"scenario"`
	Reason    string   `json:"reason"`
}

// scenarios are the faults by which the lab fills such panels.
var scenarios = []string{
	"no_endpoints", "no_local_endpoints", "conntrack_full", "entries_astray", "series_cap", "api_down", "agent_down", "undecoded",
	"ruleset_change", "ruleset_storm", "proxy_hangs", "proxy_stands", "endpoints_change", "jumps_missing", "rules_edited", "lock_busy", "invalid_packets", "policy_drops", "nflog_lost", "nflog_held",
}

// optional are panels that are empty until something is switched on, which
// the lab does.
var optional = map[string]string{
	"Connections by endpoint, top 20": "--metrics.endpoints",
	"Policies and pods that refuse":   "--metrics.policies",
	"Refused by policies, top 10":     "--metrics.policies",
}

func readEmpty(t *testing.T, path string) []empty {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var list []empty
	if err := json.Unmarshal(text, &list); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return list
}

// TestZeroInHealth keeps testdata/zero.json and the panels in step: those that
// show 0 while all is well, and the fault with which the lab sees more. Where
// there is no such fault the reason tells why.
func TestZeroInHealth(t *testing.T) {
	panels := map[string]Panel{}
	for _, d := range All() {
		for _, p := range d.Panels {
			panels[d.UID+"/"+p.Title] = p
		}
	}
	for _, e := range readEmpty(t, "testdata/zero.json") {
		key := e.Dashboard + "/" + e.Panel
		p, ok := panels[key]
		if !ok || p.Type == "row" {
			t.Errorf("testdata/zero.json: no panel %s", key)
		}
		for _, ref := range e.Targets {
			if !slices.ContainsFunc(p.Targets, func(t Target) bool { return t.RefID == ref }) {
				t.Errorf("%s has no target %s", key, ref)
			}
		}
		shown := slices.Contains(scenarios, e.Scenario)
		if !shown && (e.Scenario != "" || !strings.HasPrefix(e.Reason, "not shown in the lab")) || e.Reason == "" {
			t.Errorf("%s: no reason, or no scenario %q", key, e.Scenario)
		}
	}
}

// TestEmptyInHealth keeps testdata/empty.json and the panels in step: a panel
// says what it shows when it is empty if and only if it may be.
func TestEmptyInHealth(t *testing.T) {
	list := readEmpty(t, "testdata/empty.json")
	listed := map[string]empty{}
	for _, e := range list {
		key := e.Dashboard + "/" + e.Panel
		if _, twice := listed[key]; twice {
			t.Errorf("testdata/empty.json: %s is there twice", key)
		}
		listed[key] = e
	}
	for _, d := range All() {
		for _, p := range d.Panels {
			key := d.UID + "/" + p.Title
			e, ok := listed[key]
			delete(listed, key)
			mayBe := ok && e.Targets == nil || strings.Contains(p.Description, optional[p.Title]) && optional[p.Title] != ""
			if p.FieldConfig != nil && (p.FieldConfig.Defaults.NoValue != "") != mayBe {
				t.Errorf("%s: a noValue text and an entry in testdata/empty.json belong together", key)
			}
			if ok && (e.Reason == "" || !slices.Contains(scenarios, e.Scenario)) {
				t.Errorf("%s: no reason, or no scenario %q", key, e.Scenario)
			}
			for _, ref := range e.Targets {
				if !slices.ContainsFunc(p.Targets, func(t Target) bool { return t.RefID == ref }) {
					t.Errorf("%s has no target %s", key, ref)
				}
			}
		}
	}
	for key := range listed {
		t.Errorf("testdata/empty.json: no panel %s", key)
	}
}
