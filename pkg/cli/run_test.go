// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/svcscope/svcscope/pkg/internal/kerneltest"
)

// TestRun runs the real agent in a namespace without rules, asks it at its
// default address, and stops it as Kubernetes does.
func TestRun(t *testing.T) {
	kerneltest.Run(t, func(t *testing.T) {
		var log, stdout, stderr bytes.Buffer
		status := make(chan int, 1)
		go func() { status <- Run([]string{"agent", "--kube=never", "--node-name=worker-1"}, &log, &log) }()
		await(t, "http://127.0.0.1:10989/readyz", status)

		if code := Run([]string{"services"}, &stdout, &stderr); code != exitOK {
			t.Errorf("services: exit status %d", code)
		}
		if got := stderr.String(); !strings.HasPrefix(got, "source: agent at "+defaultAgent+", node worker-1, ") ||
			!strings.HasSuffix(got, "\nNo Services found on this node: "+noRules+".\n") {
			t.Errorf("services says %q", got)
		}

		// Run has the signal by now: it listens.
		if err := unix.Kill(unix.Getpid(), unix.SIGTERM); err != nil {
			t.Fatal(err)
		}
		select {
		case code := <-status:
			if code != exitOK {
				t.Errorf("agent: exit status %d after SIGTERM:\n%s", code, &log)
			}
		case <-time.After(20 * time.Second):
			t.Fatal("the agent did not stop")
		}
		stdout.Reset()
		stderr.Reset()
		if code := Run([]string{"services", "--kube=never"}, &stdout, &stderr); code != exitOK {
			t.Errorf("services without an agent: exit status %d", code)
		}
		if got := stderr.String(); !strings.HasPrefix(got, "source: this node's kernel (no agent at ") {
			t.Errorf("services without an agent says %q", got)
		}
	})
}

// await returns when address answers with 200.
func await(t *testing.T, address string, ended <-chan int) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		answer := "nobody listens"
		if resp, err := http.Get(address); err == nil {
			resp.Body.Close()
			answer = resp.Status
		}
		if answer == "200 OK" {
			return
		}
		select {
		case code := <-ended:
			t.Fatalf("the agent ended with %d", code)
		case <-deadline:
			t.Fatalf("%s: %s", address, answer)
		case <-tick.C:
		}
	}
}
