// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/svcscope/svcscope/pkg/agent"
	"github.com/svcscope/svcscope/pkg/kernel"
)

func TestAgentEndsWithItsContext(t *testing.T) {
	var stdout, stderr bytes.Buffer
	e := testEnv("svcscope")
	e.stdout, e.stderr = &stdout, &stderr
	ctx, cancel := context.WithCancel(t.Context())
	ended := false
	e.runAgent = func(ctx context.Context, _ agent.Config) error {
		cancel() // as the signal does
		<-ctx.Done()
		ended = true
		return nil
	}
	if code := run(ctx, e, []string{"agent"}); code != exitOK {
		t.Errorf("exit status %d, want 0: %s", code, &stderr)
	}
	if !ended {
		t.Error("the agent did not see the end of its context")
	}
	if stdout.Len()+stderr.Len() > 0 {
		t.Errorf("output of a quiet stop: %s%s", &stdout, &stderr)
	}
}

func TestAgentErrors(t *testing.T) {
	tests := []struct {
		name string
		err  error
		want string
	}{
		{
			"an error has one line", errors.New("listen on 127.0.0.1:10988: address already in use"),
			"svcscope: listen on 127.0.0.1:10988: address already in use\n",
		},
		{
			"a missing capability has a remedy",
			fmt.Errorf("sample: %w", &kernel.CapabilityError{Op: "read table nat (IPv4)", Cap: "CAP_NET_ADMIN"}),
			"svcscope: sample: read table nat (IPv4): needs CAP_NET_ADMIN\n" +
				"  run svcscope as root (UID 0 with CAP_NET_ADMIN) in the node's network namespace\n",
		},
		{
			"several errors have a line each", errors.Join(errors.New("a: b"), errors.New("c: d")),
			"svcscope: a: b\nsvcscope: c: d\n",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			e := testEnv("svcscope")
			e.stdout, e.stderr = &stdout, &stderr
			e.runAgent = func(context.Context, agent.Config) error { return tt.err }
			if code := run(t.Context(), e, []string{"agent"}); code != exitError {
				t.Errorf("exit status %d, want %d", code, exitError)
			}
			if got := stderr.String(); got != tt.want {
				t.Errorf("stderr %q, want %q", got, tt.want)
			}
		})
	}
}

func TestAgentWithoutAName(t *testing.T) {
	var stderr bytes.Buffer
	e := testEnv("svcscope")
	e.stdout, e.stderr = &stderr, &stderr
	e.hostname = func() (string, error) { return "", errors.New("no such file") }
	if code := run(t.Context(), e, []string{"agent"}); code != exitError {
		t.Errorf("exit status %d, want %d", code, exitError)
	}
	if got := stderr.String(); !strings.HasPrefix(got, "svcscope: read host name: no such file\n") ||
		!strings.Contains(got, "--node-name") {
		t.Errorf("stderr %q names neither cause nor remedy", got)
	}
}
