// SPDX-License-Identifier: Apache-2.0

package rules

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/svcscope/svcscope/internal/promtool"
)

func run(t *testing.T, path string, args ...string) (string, error) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), path, args...).CombinedOutput()
	return string(out), err
}

// plain writes the plain rule files, changed by edit, and the tests beside
// them as in the repository; it returns the folder.
func plain(t *testing.T, edit *strings.Replacer) string {
	t.Helper()
	folder := t.TempDir()
	for path, text := range files(t) {
		if !strings.HasPrefix(path, plainFolder) {
			continue
		}
		write(t, filepath.Join(folder, filepath.Base(path)), edit.Replace(string(text)))
	}
	if err := os.CopyFS(filepath.Join(folder, "tests"), os.DirFS(testsFolder)); err != nil {
		t.Fatal(err)
	}
	return folder
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestPromtoolAcceptsTheRules(t *testing.T) {
	path := promtool.Path(t)
	folder := plain(t, strings.NewReplacer())
	for _, name := range []string{"recording.yaml", "alerts.yaml"} {
		if out, err := run(t, path, "check", "rules", "--lint=all", "--lint-fatal", filepath.Join(folder, name)); err != nil {
			t.Errorf("promtool check rules %s: %v\n%s", name, err, out)
		}
	}
	broken := plain(t, strings.NewReplacer("max by (", "max by (("))
	if out, err := run(t, path, "check", "rules", filepath.Join(broken, "recording.yaml")); err == nil {
		t.Errorf("promtool accepts a broken expression:\n%s", out)
	}
}

func TestPromtoolUnitTests(t *testing.T) {
	path := promtool.Path(t)
	folder := plain(t, strings.NewReplacer())
	for _, file := range testFiles(t) {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			if out, err := run(t, path, "test", "rules", filepath.Join(folder, "tests", filepath.Base(file))); err != nil {
				t.Errorf("promtool test rules: %v\n%s", err, out)
			}
		})
	}
}

// TestUnitTestsNoticeLostGuards takes away what keeps an alert from crying
// wolf; the tests must see it.
func TestUnitTestsNoticeLostGuards(t *testing.T) {
	path := promtool.Path(t)
	tests := []struct {
		name, file string
		group      string // the test in the file that sees it
		edit       *strings.Replacer
	}{
		{"no waiting", "quiet-agent.yaml", "Prometheus is away for 12 minutes", strings.NewReplacer("    for: 10m\n", "", "    for: 5m\n", "", "    for: 15m\n", "")},
		{"clashes count", "quiet-cluster.yaml", "two DNS packets clash once", strings.NewReplacer(`losses_total{cause="table_full"}`, "losses_total", "[5m]))\n      > 10", "[5m])) > 0")},
		{"yesterday is not looked at", "forecast-days.yaml", "a steep morning, the second and third day", strings.NewReplacer("offset 20h", "offset 30d")},
		{"last week is not looked at", "forecast-days.yaml", "a steep Monday after a quiet Sunday", strings.NewReplacer("offset 164h", "offset 30d")},
		{"a step's end is not seen", "forecast.yaml", "a step of half a table in 30 minutes that ends", strings.NewReplacer("svcscope_conntrack_entries[15m]", "svcscope_conntrack_entries[1h]")},
		{"last week's INVALID packets are not looked at", "drops-days.yaml", "they rise on one node, and are as they were on others", strings.NewReplacer("offset 167h", "offset 700h")},
		{"groups that no rule logs to", "drops.yaml", "a group that others hold on two nodes, one to which no rule logs, and a restart", strings.NewReplacer(`svcscope_collector_success{collector="nflog"} == 0`, `svcscope_collector_success{collector="nflog"}`)},
		{"one burst of events", "drops.yaml", "events are lost on one node, a few on another, once on a third", strings.NewReplacer("    for: 15m\n", "    for: 5m\n")},
		{"a node beside others although it is compared with the API", "ruleset.yaml", "where rules are compared with the API, other nodes' say nothing", strings.NewReplacer("unless on (cluster, job, instance) svcscope_drifting_services", "")},
		{"two backends told twice", "ruleset.yaml", "both backends, beyond the half hour in which kube-proxy is moved", strings.NewReplacer(`(svcscope_node_drift{kind="two_backends"} > 0)`, `(svcscope_node_drift{kind="two_backends"} > 1)`)},
		{"one burst of late changes", "drift.yaml", "changes come late on one node, once on another", strings.NewReplacer("svcscope_programming_delay_seconds_bucket[10m]", "svcscope_programming_delay_seconds_bucket[30m]")},
		{"a ruleset that is being mended", "drift.yaml", "what kube-proxy mends, and what it does not yet", strings.NewReplacer("    for: 1m\n", "", "    for: 2m\n", "", "    for: 5m\n", "")},
		{"other modes", "drift.yaml", "nodes that are not judged", strings.NewReplacer(`svcscope_node_info{proxy_mode="iptables"}`, "svcscope_node_info")},
		{"what other alerts tell", "drift.yaml", "nodes that are not judged", strings.NewReplacer(`collector=~"kube|legacy|nftables"`, `collector="kube"`)},
		{"an API that is not wanted", "drift.yaml", "nodes that are not judged", strings.NewReplacer("(svcscope_kube_synced == 1)", "svcscope_kube_synced")},
		{"agents by their job", "agent.yaml", "agents that answer in jobs of other names", strings.NewReplacer("absent(svcscope_build_info)", `absent(up{job="svcscope"})`)},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			folder := plain(t, tc.edit)
			out, err := run(t, path, "test", "rules", "--run=^"+regexp.QuoteMeta(tc.group)+"$", filepath.Join(folder, "tests", tc.file))
			if err == nil || !strings.Contains(out, "FAILED:") {
				t.Errorf("%q of %s does not fail, or there is no such test: %v\n%s", tc.group, tc.file, err, out)
			}
		})
	}
}
