// SPDX-License-Identifier: Apache-2.0

package main

import (
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestReadmeIsCurrent(t *testing.T) {
	want, err := readme(chartDir)
	if err != nil {
		t.Fatal(err)
	}
	current(t, chartDir+"/README.md", want)
}

// TestEveryValueIsDescribed: by a comment of its own, or of the object that
// it is part of and that is described as a whole.
func TestEveryValueIsDescribed(t *testing.T) {
	values, err := readValues(chartDir)
	if err != nil {
		t.Fatal(err)
	}
	whole := map[string]bool{}
	for _, v := range values {
		whole[v.path] = whole[v.parent] || v.text != "" && !v.group
		if v.leaf && !whole[v.path] {
			t.Errorf("%s has no comment `# -- text`", v.path)
		}
	}
}

func TestDescribe(t *testing.T) {
	for comment, want := range map[string]string{
		"":                                     "",
		"# An aside":                           "",
		"# -- What it is":                      "What it is",
		"# -- What it is,\n# in two lines":     "What it is, in two lines",
		"# An aside\n\n# -- What it is":        "What it is",
		"# -- A section\n# more\n\n# -- A key": "A key",
	} {
		if d := cmp.Diff(want, describe(comment)); d != "" {
			t.Errorf("describe(%q) (-want +got):\n%s", comment, d)
		}
	}
}

func TestRow(t *testing.T) {
	v := value{path: "a.b", kind: "string", def: `"x"`, text: "one|two"}
	if d := cmp.Diff("| `a.b` | string | `\"x\"` | one\\|two |\n", row(v)); d != "" {
		t.Errorf("row (-want +got):\n%s", d)
	}
	v.group = true
	if d := cmp.Diff("| `a.b` | string |  | one\\|two |\n", row(v)); d != "" {
		t.Errorf("row of a group (-want +got):\n%s", d)
	}
}

// TestNamedValuesExist: values that README and notes tell to set are values of
// the chart, or keys in one that takes any.
func TestNamedValuesExist(t *testing.T) {
	values, err := readValues(chartDir)
	if err != nil {
		t.Fatal(err)
	}
	empty := map[string]bool{} // by path: whether it is an object that takes any key
	for _, v := range values {
		empty[v.path] = v.kind == "object" && v.leaf
	}
	text := readmeTemplate + readFile(t, chartDir+"/templates/NOTES.txt") + readFile(t, chartDir+"/templates/_warnings.tpl")
	named := regexp.MustCompile(`[^A-Za-z./-]([a-z][A-Za-z]+(?:\.[a-z][A-Za-z]+)*)=[a-z]`).FindAllStringSubmatch(text, -1)
	if len(named) < 6 {
		t.Fatalf("values are named %d times: %v", len(named), named)
	}
	for _, m := range named {
		parent := m[1][:max(0, strings.LastIndex(m[1], "."))]
		if _, ok := empty[m[1]]; !ok && !empty[parent] && m[1] != "release" { // a label
			t.Errorf("%s is no value", m[1])
		}
	}
}
