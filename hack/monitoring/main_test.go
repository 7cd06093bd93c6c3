// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestCurrent compares the tree with what the generator makes.
func TestCurrent(t *testing.T) {
	if err := run("../..", true); err != nil {
		t.Error(err)
	}
}

func TestCheckFinds(t *testing.T) {
	root := t.TempDir()
	if err := run(root, true); err == nil || !strings.Contains(err.Error(), "dashboards/svcscope-overview.json is missing") {
		t.Errorf("check of an empty folder: %v", err)
	}
	if err := run(root, false); err != nil {
		t.Fatal(err)
	}
	if err := run(root, true); err != nil {
		t.Errorf("check of what was just written: %v", err)
	}
	overview := filepath.Join(root, "dashboards", "svcscope-overview.json")
	if err := os.WriteFile(overview, []byte("{}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "dashboards", "old.json"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	err := run(root, true)
	if err == nil {
		t.Fatal("check finds neither a changed nor a left file")
	}
	want := "dashboards/svcscope-overview.json is not current: go run ./hack/monitoring\n" +
		"dashboards/old.json is not generated: remove it"
	if got := err.Error(); got != want {
		t.Errorf("check says\n%s\nwant\n%s", got, want)
	}
}
