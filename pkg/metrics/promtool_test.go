// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"bytes"
	"os"
	"os/exec"
	"testing"

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
	if out, err := checkMetrics(t, path, golden); err != nil || out != "" {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
	if _, err := checkMetrics(t, path, []byte("# TYPE x_total gauge\nx_total 1\n")); err == nil {
		t.Error("promtool finds nothing in a gauge that is called _total without help either")
	}
}
