// SPDX-License-Identifier: Apache-2.0

// Package promtool finds Prometheus' promtool for tests.
package promtool

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Path returns the path of a promtool: SVCSCOPE_PROMTOOL, the one on PATH, or
// one that the lab has built into the user's cache. Without one the test is
// skipped, or fails where SVCSCOPE_REQUIRE_LAB is 1.
func Path(t testing.TB) string {
	t.Helper()
	if path := os.Getenv("SVCSCOPE_PROMTOOL"); path != "" {
		return path
	}
	if path, err := exec.LookPath("promtool"); err == nil {
		return path
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	var found string
	// Unreadable folders and a missing cache are as good as no promtool.
	_ = filepath.WalkDir(filepath.Join(cache, "svcscope", "lab"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Name() != "promtool" || d.IsDir() {
			return nil //nolint:nilerr // see above
		}
		if info, err := d.Info(); err == nil && info.Mode()&0o111 != 0 {
			found = path
			return fs.SkipAll
		}
		return nil
	})
	if found != "" {
		return found
	}
	const why = "no promtool: set SVCSCOPE_PROMTOOL, put it on PATH or let the lab build it"
	if os.Getenv("SVCSCOPE_REQUIRE_LAB") == "1" {
		t.Fatal(why)
	}
	t.Skip(why)
	return ""
}
