// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/svcscope/svcscope/pkg/internal/kerneltest"
)

// TestWatchFlows makes entries, moves and deletes them, and sees each change.
func TestWatchFlows(t *testing.T) {
	kerneltest.Run(t, func(t *testing.T) {
		const ct = "-p tcp -s 10.244.1.7 -d 10.96.0.10 --sport 40001 --dport 80"
		run := func(args string) { kerneltest.Exec(t, "", "conntrack", strings.Fields(args)...) }
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		seen, started := make(chan string, 100), make(chan struct{})
		done := make(chan error, 1)
		go func() {
			done <- WatchFlows(ctx, func() { close(started) }, func(e *FlowEvent) {
				seen <- fmt.Sprint(e.Change, " ", e.Flow.Orig.Src, " ", e.Flow.Orig.Dst, " ", e.Flow.Reply.Src, " ", e.Flow.StateName())
			}, func(err error) { t.Errorf("lost: %v", err) })
		}()
		next := func() string {
			select {
			case s := <-seen:
				return s
			case <-ctx.Done():
				t.Fatal("no event")
				return ""
			}
		}
		select {
		case <-started:
		case err := <-done:
			t.Fatal(err)
		}
		run("-I " + ct + " -g 10.244.1.5:8080 --state SYN_SENT -t 60")
		run("-U " + ct + " --state ESTABLISHED")
		run("-D " + ct)
		for _, want := range []string{
			"0 10.244.1.7:40001 10.96.0.10:80 10.244.1.5:8080 syn_sent",
			"1 10.244.1.7:40001 10.96.0.10:80 10.244.1.5:8080 established",
			"2 10.244.1.7:40001 10.96.0.10:80 10.244.1.5:8080 ",
		} {
			if got := next(); !strings.HasPrefix(got, want) {
				t.Errorf("got %q, want %q", got, want)
			}
		}
		cancel()
		if err := <-done; err != nil {
			t.Errorf("at its end: %v", err)
		}
	})
}

func TestWatchFlowsNeedsTheCapability(t *testing.T) {
	kerneltest.Run(t, func(t *testing.T) {
		kerneltest.DropCapabilities(t)
		err := WatchFlows(t.Context(), func() { t.Error("it listens") }, func(*FlowEvent) {}, func(err error) { t.Errorf("lost: %v", err) })
		if capability := (*CapabilityError)(nil); !errors.As(err, &capability) {
			t.Errorf("got %v, want a CapabilityError", err)
		}
	})
}

// TestUntold: a node may have the events of connection tracking switched off.
func TestUntold(t *testing.T) {
	file := filepath.Join(t.TempDir(), "nf_conntrack_events")
	if untold(file) {
		t.Error("no file is taken for no events")
	}
	for text, want := range map[string]bool{"0\n": true, "1\n": false, "2\n": false} {
		writeFile(t, file, text)
		if got := untold(file); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
}
