// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/svcscope/svcscope/pkg/internal/kerneltest"
	"github.com/svcscope/svcscope/pkg/internal/realcluster"
	"github.com/svcscope/svcscope/pkg/netfilter"
)

// kernelRules loads what the real kube-proxy wrote, with its counters, and returns the
// tool.
func kernelRules(t *testing.T, r realcluster.Rules) (tool string) {
	t.Helper()
	text, err := r.Text()
	if err != nil {
		t.Fatal(err)
	}
	// The objects of nfacct are not there, and the rules that count with them cannot be.
	text = regexp.MustCompile("-m nfacct --nfacct-name +[a-z_]+ ").ReplaceAllString(text, "")
	tool = "iptables-" + string(r.Backend)
	kerneltest.Exec(t, text, tool+"-restore", "-c")
	return tool
}

// ran is what a command prints on stdout.
func ran(t *testing.T, status int, args ...string) string {
	t.Helper()
	var stdout, stderr bytes.Buffer
	if code := Run(args, &stdout, &stderr); code != status {
		t.Errorf("%q: exit status %d, want %d: %s", args, code, status, &stderr)
	}
	return stdout.String()
}

// TestReplayOfTheKernel takes snapshots of real rules, by what an agent has and without
// one: the other commands print of them, byte for byte, what they print of the node.
func TestReplayOfTheKernel(t *testing.T) {
	for _, r := range realcluster.All() {
		if r.Family != netfilter.IPv4 {
			continue
		}
		t.Run(r.File, func(t *testing.T) {
			kerneltest.Run(t, func(t *testing.T) {
				tool := kernelRules(t, r)
				kerneltest.Exec(t, "", "conntrack", "-I", "-p", "tcp", "-s", "10.244.1.5", "-d", "10.96.1.12", "--sport", "40000",
					"--dport", "80", "--state", "ESTABLISHED", "-t", "100", "--dst-nat", "10.244.1.11:8080")
				dir := t.TempDir()
				var log bytes.Buffer
				status := make(chan int, 1)
				go func() {
					status <- Run([]string{"agent", "--kube=never", "--node-name=worker-1", "--interval=1h", "--conntrack.interval=1h"}, &log, &log)
				}()
				await(t, "http://127.0.0.1:10989/readyz", status)
				replays(t, filepath.Join(dir, "agent.tgz"), []string{"table", "wide", "json", "yaml"}, "--agent", defaultAgent)
				if err := unix.Kill(unix.Getpid(), unix.SIGTERM); err != nil {
					t.Fatal(err)
				}
				select {
				case <-status:
				case <-time.After(20 * time.Second):
					t.Fatal("the agent did not stop")
				}
				// The times in two readings of the kernel are not the same ones.
				file := filepath.Join(dir, "kernel.tgz")
				replays(t, file, []string{"table", "wide"}, "--agent", noAgent, "--kube=never", "--node-name=worker-1")

				again := filepath.Join(dir, "again.tgz")
				if err := os.WriteFile(again, []byte(ran(t, exitOK, "snapshot", "--from", file)), 0o600); err != nil {
					t.Fatal(err)
				}
				if got := ran(t, exitOK, "diff", file, again); !strings.HasSuffix(got, "\nnothing differs\n") {
					t.Errorf("a file differs from itself:\n%s", got)
				}
				kerneltest.Exec(t, "", tool, "-t", "nat", "-I", "PREROUTING", "-d", "10.96.0.0/12", "-j", "ACCEPT")
				if err := os.WriteFile(again, []byte(ran(t, exitOK, "snapshot", "--agent", noAgent, "--kube=never")), 0o600); err != nil {
					t.Fatal(err)
				}
				if got := ran(t, exitError, "diff", file, again); !strings.Contains(got, "    + -d 10.96.0.0/12 -j ACCEPT\n") {
					t.Errorf("a rule above the jump is not told:\n%s", got)
				}
			})
		})
	}
}

// replays takes a snapshot and compares what commands print of it with what they print of
// the node.
func replays(t *testing.T, file string, formats []string, source ...string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(ran(t, exitOK, append([]string{"snapshot"}, source...)...)), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{"services", "conntrack", "drops"} {
		for _, format := range formats {
			live := ran(t, exitOK, append([]string{command, "-o", format}, source...)...)
			if got := ran(t, exitOK, command, "-o", format, "--from", file); got != live || len(live) < 10 {
				t.Errorf("%s %s: live:\n%s\nreplayed:\n%s", command, format, live, got)
			}
		}
	}
}
