// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/svcscope/svcscope/pkg/correlate"
	"github.com/svcscope/svcscope/pkg/kernel"
)

func newCollector(l *logs) *collector {
	return &collector{
		log: slog.New(slog.NewTextHandler(l, nil)), netAdmin: func() (bool, error) { return true, nil },
		CollectorState: correlate.CollectorState{Name: "legacy"},
	}
}

func TestAnotherFailureIsLoggedToo(t *testing.T) {
	l := &logs{}
	c := newCollector(l)
	at := time.Date(2026, 5, 6, 7, 8, 9, 0, time.UTC)
	fail := func(after time.Duration, text string) {
		at = at.Add(after)
		c.report(at, at, errors.New(text))
	}
	expect := func(when string, want int) {
		t.Helper()
		if got := l.count("source cannot be read"); got != want {
			t.Errorf("%s: %d lines, want %d:\n%s", when, got, want, l.b.String())
		}
	}
	fail(0, "needs CAP_NET_ADMIN")
	fail(15*time.Second, "needs CAP_NET_ADMIN")
	fail(2*time.Minute, "needs CAP_NET_ADMIN")
	expect("the same", 1)
	fail(15*time.Second, "table nat: truncated")
	expect("another", 2)
	for i := range 100 {
		fail(time.Second/2, fmt.Sprintf("table nat: damaged at %d", i))
	}
	expect("ever another, for 50 seconds", 2)
	fail(15*time.Second, "table nat: damaged")
	expect("after a minute", 3)
	c.report(at, at, nil)
	fail(time.Second, "table nat: damaged")
	expect("after a success", 4)
}

func TestTornReadingsAreWarnings(t *testing.T) {
	for err, want := range map[error]string{
		&kernel.TornError{Op: "read nf_tables rules", Attempts: 5}: "level=WARN",
		errors.New("read nf_tables rules: EIO"):                    "level=ERROR",
	} {
		l := &logs{}
		newCollector(l).report(time.Now(), time.Now(), err)
		if l.count(want) != 1 || l.count("level=") != 1 {
			t.Errorf("%v: want %s:\n%s", err, want, l.b.String())
		}
	}
}
