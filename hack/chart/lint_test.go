// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"
)

// TestLint has helm judge the chart with its defaults and with the values of
// each file in ci.
func TestLint(t *testing.T) {
	h := needHelm(t)
	if _, err := h.run("lint", "--strict", chartDir); err != nil {
		t.Error(err)
	}
	for name, path := range ciValues(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if out, err := h.run("lint", "--strict", "--values", path, chartDir); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

// TestEveryRendering decodes what each file in ci renders to, with and without
// the Prometheus operator, and holds it against rules that no value may break.
func TestEveryRendering(t *testing.T) {
	files := ciValues(t)
	files["defaults"] = chartDir + "/values.yaml"
	for name, path := range files {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			render(t, "--values="+path)
			// The user's own manifests are not to be judged.
			objects := render(t, "--values="+path, operator, "--set-json=extraManifests=[]")
			checkNames(t, objects)
			checkLabels(t, objects)
			checkVolumes(t, objects)
			checkFlags(t, container(t, objects))
			checkSecurity(t, objects)
		})
	}
}
