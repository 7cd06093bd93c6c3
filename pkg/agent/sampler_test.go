// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/svcscope/svcscope/pkg/service"
)

func TestLoopSamplesOnTheIntervalAndAtTheFirstList(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &fakeBackend{answers: []answer{{set: webRules(t, "0", "0")}}}
		w := newFakeWatcher()
		s := fakeSampler(b, w, nil)
		ctx, cancel := context.WithCancel(t.Context())
		begin := time.Now()
		var freed []time.Duration
		s.freeMemory = func() { freed = append(freed, time.Since(begin)) }
		go func() { _ = s.kube.run(ctx) }()
		go s.loop(ctx)
		time.Sleep(32 * time.Second) // past two intervals of 15 s
		w.set(&service.Catalog{Synced: true}, apiState{Synced: true, Current: true})
		time.Sleep(time.Second)
		synctest.Wait()
		if len(freed) != 2 || freed[0] != settleAfter || freed[1] != 32*time.Second {
			t.Errorf("memory is freed at %v, want after the first reading and after the first list", freed)
		}
		time.Sleep(13 * time.Second) // past another interval
		cancel()
		synctest.Wait()
		if len(freed) != 2 {
			t.Errorf("memory is freed at %v, want twice", freed)
		}
		var got []time.Duration
		for _, at := range b.reads {
			got = append(got, at.Sub(begin))
		}
		// The baseline takes two readings.
		want := []time.Duration{0, settleAfter, 15 * time.Second, 30 * time.Second, 32 * time.Second, 45 * time.Second}
		if len(got) != len(want) {
			t.Fatalf("readings at %v, want %v", got, want)
		}
		for i := range want {
			if got[i] != want[i] {
				t.Errorf("reading %d at %v, want %v", i, got[i], want[i])
			}
		}
		if s := s.latest.Load(); !s.Kube.Synced || len(s.Services) != 0 {
			t.Errorf("synced %v with %d Services, want the API's none", s.Kube.Synced, len(s.Services))
		}
	})
}

func TestFailuresAreLoggedOnceAndLoseNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &logs{}
		torn := answer{err: errors.New("read legacy table nat (IPv4): torn")}
		b := &fakeBackend{answers: []answer{
			{set: webRules(t, "5", "0")},
			{set: webRules(t, "5", "0")},
			torn, torn, torn,
			{set: webRules(t, "12", "0")},
		}}
		s := fakeSampler(b, nil, l)
		s.pass(t.Context())
		for range 3 {
			s.pass(t.Context())
			if c := s.latest.Load().Self.Collectors[1]; c.Name != "legacy" || c.Success || c.Err == "" {
				t.Errorf("collector while it fails: %+v", c)
			}
			if got := s.latest.Load(); len(got.Services) != 1 || got.Services[0].KernelCount != 1 {
				t.Errorf("what was read last is gone: %+v", got.Services)
			}
		}
		s.pass(t.Context())
		s.pass(t.Context())
		if got, _ := totals(s); got != 7 {
			t.Errorf("cluster %d, want 7", got)
		}
		if n, m := l.count("source cannot be read"), l.count("source is read again"); n != 1 || m != 1 {
			t.Errorf("%d failures and %d recoveries logged, want one each:\n%s", n, m, l.b.String())
		}
	})
}

func TestWhatStandsUndecodedIsCountedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		state := func(limits uint64, err error) answer {
			return answer{set: webRules(t, "0", "0"), undecoded: map[string]uint64{"match/hashlimit": limits}, err: err}
		}
		torn := errors.New("read legacy table nat (IPv4): torn")
		b := &fakeBackend{answers: []answer{
			state(3, nil), state(3, nil), state(3, nil), state(3, torn), state(1, torn), state(5, nil), state(2, nil), state(3, nil),
		}}
		s := fakeSampler(b, nil, nil)
		// Three stand there, then two more, then one that is new.
		for i, want := range []uint64{3, 3, 3, 3, 5, 5, 6} {
			s.pass(t.Context())
			if got := s.latest.Load().Self.Undecoded["match/hashlimit"]; got != want {
				t.Errorf("pass %d: undecoded %d, want %d", i, got, want)
			}
		}
	})
}

func TestDipsAreReadAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &fakeBackend{answers: []answer{
			{set: webRules(t, "70", "20")},
			{set: webRules(t, "70", "20")},
			{set: webRules(t, "0", "0")},
			{set: webRules(t, "73", "21")},
			{set: webRules(t, "73", "21")},
		}}
		s := fakeSampler(b, nil, nil)
		s.pass(t.Context())
		begin := time.Now()
		s.pass(t.Context())
		if c, e := totals(s); c != 2 || e != 1 {
			t.Errorf("cluster %d external %d, want 2 and 1", c, e)
		}
		if took := time.Since(begin); took != settleAfter {
			t.Errorf("read again after %v, want %v", took, settleAfter)
		}
	})
}

func TestASecondReadingTellsTheWays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &fakeBackend{answers: []answer{
			{set: webRules(t, "0", "0")},
			{set: webRules(t, "0", "0")},
			{set: webRules(t, "10", "3")},
			{set: webRules(t, "11", "4")},
		}}
		s := fakeSampler(b, nil, nil)
		s.pass(t.Context())
		begin := time.Now()
		s.pass(t.Context())
		if c, e := totals(s); c != 6 || e != 4 {
			t.Errorf("cluster %d external %d, want 6 of the first reading's 10, and 4", c, e)
		}
		if took := time.Since(begin); took != 0 || len(b.reads) != 4 {
			t.Errorf("%d readings, the last %v after the first, want 4 at once", len(b.reads), took)
		}
	})
}

func TestRereadingIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var answers []answer
		for i := range 50 { // ever falling: never decided
			answers = append(answers, answer{set: webRules(t, string(rune('9'-i%2)), "0")})
		}
		b := &fakeBackend{answers: append([]answer{{set: webRules(t, "70", "0")}, {set: webRules(t, "70", "0")}}, answers...)}
		s := fakeSampler(b, nil, nil)
		s.pass(t.Context())
		before := len(b.reads)
		s.pass(t.Context())
		if n := len(b.reads) - before; n > 1+maxAgain {
			t.Errorf("%d readings in one pass", n)
		}
	})
}

func TestConntrackPeak(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeConntrack{}
		f.entries.Store(10)
		c := &sizes{reader: reader[conntrackReader]{open: func() (conntrackReader, error) { return f, nil }}}
		if _, err := c.read(t.Context(), true); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		go c.watch(ctx)
		f.entries.Store(400)
		time.Sleep(1500 * time.Millisecond)
		synctest.Wait()
		f.entries.Store(20)
		time.Sleep(2 * time.Second)
		cancel()
		synctest.Wait()
		got, err := c.read(t.Context(), true)
		if err != nil || got.Peak != 400 || got.Entries != 20 || *got.Stats.Drop != 3 {
			t.Errorf("%+v, %v; want a peak of 400 and 20 now", got, err)
		}
		time.Sleep(peakFor - 3*time.Second) // whoever scrapes once a minute sees it
		if got, _ = c.read(t.Context(), true); got.Peak != 400 {
			t.Errorf("peak %d within a minute, want 400", got.Peak)
		}
		time.Sleep(3 * time.Second)
		if got, _ = c.read(t.Context(), true); got.Peak != 20 {
			t.Errorf("peak %d, want a new one", got.Peak)
		}
		f.statsErr = errors.New("no capability")
		if got, err = c.read(t.Context(), true); err == nil || got == nil || got.Limit != 1000 {
			t.Errorf("%+v, %v; want the sizes and the error of the statistics", got, err)
		}
		if err := c.close(); err != nil || !f.closed {
			t.Errorf("close: %v, closed %v", err, f.closed)
		}
	})
}

func TestReadOnceNeedsRules(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Kube, cfg.ConntrackInterval = KubeNever, 0
	s := newSampler(cfg, fakeHost(&fakeConntrack{}), newKube(cfg, nil))
	got, err := readOnce(t.Context(), s)
	if !errors.Is(err, errNoHost) && (err == nil || got != nil) {
		t.Errorf("%v, %v; want the reason", got, err)
	}
}
