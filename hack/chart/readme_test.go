// SPDX-License-Identifier: Apache-2.0

package main

import (
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
