// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/svcscope/svcscope/pkg/metrics"
)

func TestDocumentIsUpToDate(t *testing.T) {
	stored, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(stored), document(metrics.Catalog())); diff != "" {
		t.Errorf("docs/metrics.md is stale, run `make generate` (-stored +catalogue):\n%s", diff)
	}
}

func TestDocumentShowsEveryMetricAndLabel(t *testing.T) {
	doc := document(metrics.Catalog())
	for _, m := range metrics.Metrics() {
		for _, word := range append(m.LabelNames(), m.Name) {
			if !strings.Contains(doc, "`"+word+"`") {
				t.Errorf("%s: %q is missing", m.Name, word)
			}
		}
	}
}

func TestRowEscapesPipes(t *testing.T) {
	var b strings.Builder
	row(&b, "a|b", "c")
	if got, want := b.String(), "| a\\|b | c |\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
