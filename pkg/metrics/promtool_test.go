// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"bytes"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// promtool returns the path of a promtool: SVCSCOPE_PROMTOOL, the one on PATH,
// or one that the lab has built into the user's cache. Without one the test is
// skipped, or fails where SVCSCOPE_REQUIRE_LAB is 1.
func promtool(t *testing.T) string {
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
	if os.Getenv("SVCSCOPE_REQUIRE_LAB") == "1" {
		t.Fatal("no promtool: set SVCSCOPE_PROMTOOL, put it on PATH or let the lab build it")
	}
	t.Skip("no promtool: set SVCSCOPE_PROMTOOL, put it on PATH or let the lab build it")
	return ""
}

func checkMetrics(t *testing.T, path string, exposition []byte) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), path, "check", "metrics")
	cmd.Stdin = bytes.NewReader(exposition)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestPromtoolFindsNothing(t *testing.T) {
	path := promtool(t)
	golden, err := os.ReadFile(goldenFile)
	if err != nil {
		t.Fatal(err)
	}
	if out, err := checkMetrics(t, path, golden); err != nil || out != "" {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
	if _, err := checkMetrics(t, path, []byte("# TYPE x_total gauge\nx_total 1\n")); err == nil {
		t.Error("promtool finds nothing in a gauge that is called _total without help either")
	}
}
