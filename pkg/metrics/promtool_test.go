// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/svcscope/svcscope/internal/promtool"
)

func checkMetrics(t *testing.T, path string, exposition []byte) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), path, "check", "metrics")
	cmd.Stdin = bytes.NewReader(exposition)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestPromtoolFindsNothing(t *testing.T) {
	path := promtool.Path(t)
	golden, err := os.ReadFile(goldenFile)
	if err != nil {
		t.Fatal(err)
	}
	// It fails where it finds anything, an exception too.
	out, err := checkMetrics(t, path, golden)
	if diff := cmp.Diff(strings.Join(lintExceptions(), "\n")+"\n", out); diff != "" {
		t.Errorf("promtool check metrics: %v (-want +got)\n%s", err, diff)
	}
	if _, err := checkMetrics(t, path, []byte("# TYPE x_total gauge\nx_total 1\n")); err == nil {
		t.Error("promtool finds nothing in a gauge that is called _total without help either")
	}
}
