// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

func TestLogger(t *testing.T) {
	tests := []struct {
		name string
		args []string
		want []string // words of the records, a line each
		json bool
	}{
		{"by default", nil, []string{"INFO", "WARN", "ERROR"}, false},
		{"everything", []string{"--log.level=debug"}, []string{"DEBUG", "INFO", "WARN", "ERROR"}, false},
		{"errors for a machine", []string{"--log.level", "error", "--log.format", "json"}, []string{"ERROR"}, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var o logOptions
			cmd := &cobra.Command{}
			o.bind(cmd)
			if err := cmd.ParseFlags(tt.args); err != nil {
				t.Fatal(err)
			}
			var out bytes.Buffer
			l := o.logger(&out)
			l.Debug("source back", "source", "nftables")
			l.Info("source back", "source", "nftables")
			l.Warn("source lost", "source", "nftables")
			l.Error("source lost", "source", "nftables")
			lines := strings.Split(strings.TrimSpace(out.String()), "\n")
			if len(lines) != len(tt.want) {
				t.Fatalf("%d records, want %d:\n%s", len(lines), len(tt.want), &out)
			}
			for i, line := range lines {
				if !strings.Contains(line, tt.want[i]) {
					t.Errorf("record %d is %q, want %s", i, line, tt.want[i])
				}
				if got := json.Valid([]byte(line)); got != tt.json {
					t.Errorf("record %q: JSON %t, want %t", line, got, tt.json)
				}
			}
		})
	}
}
