// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/svcscope/svcscope/pkg/correlate"
	"github.com/svcscope/svcscope/pkg/internal/kerneltest"
	"github.com/svcscope/svcscope/pkg/kernel"
)

// tapScene is a node whose agent taps.
type tapScene struct {
	*sampler
	f       family
	backend string
	api     *fakeWatcher
}

// startTap begins to tap, and waits until it does.
func startTap(t *testing.T, f family, backend string, interval time.Duration) *tapScene {
	t.Helper()
	f.serve(t)
	f.restore(t, backend, f.chaosRules(""))
	cfg := testConfig()
	cfg.Kube, cfg.Tap, cfg.Interval = KubeAuto, true, interval
	s := &tapScene{f: f, backend: backend, api: chaosAPI(&f)}
	s.sampler = apiSampler(t, cfg, s.api)
	s.run(t)
	return s
}

// run begins to tap, and waits until it does.
func (s *tapScene) run(t *testing.T) {
	t.Helper()
	for range 3 {
		s.pass(t.Context())
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.sampler.tap.run(ctx, s.tapInputs, s.dropInputs)
	}()
	t.Cleanup(func() {
		stop()
		<-done
	})
	s.until(t, "the tap's group is bound", func() bool { return slices.Contains(bound16(s.sampler.tap.groups), tapGroup) })
}

// until samples until something holds.
func (s *tapScene) until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited for this: %s: %+v", what, s.latest.Load().Tap)
		}
		s.pass(t.Context())
	}
}

func (s *tapScene) sum(t *testing.T, name string, labels ...string) float64 {
	t.Helper()
	return page(t, s.sampler).sum(name, labels...)
}

// TestTapBesideRules: the tap counts what the rules count, and what they refuse, which
// stays one count of packets refused.
func TestTapBesideRules(t *testing.T) {
	eachScene(t, func(t *testing.T, backend string, f family) {
		s := startTap(t, f, backend, 10*time.Millisecond)
		connect(t, f.cluster(), 7)
		connect(t, f.external(), 4)
		refuse(t, f, 9)
		const refused = "svcscope_drop_witnessed_packets_total"
		s.until(t, "all is counted", func() bool {
			return s.sum(t, refused, "source=tap") == 9 && s.sum(t, "svcscope_service_attempts_total", "service_name=web") == 11
		})
		for _, w := range []struct {
			name   string
			labels []string
			want   float64
		}{
			{"svcscope_service_attempts_total", []string{"service_name=web", "via=cluster", "ip_family=" + f.name}, 7},
			{"svcscope_service_attempts_total", []string{"service_name=web", "via=external", "ip_family=" + f.name}, 4},
			{"svcscope_service_translated_attempts_total", []string{"service_name=web"}, 11},
			{"svcscope_service_connections_total", []string{"service_name=web"}, 11},
			{"svcscope_service_translated_attempts_total", []string{"service_name=ghost"}, 0},
			{refused, []string{"source=tap", "reason=no_endpoints", "service_namespace=shop", "service_name=ghost"}, 9},
			{"svcscope_drop_packets_total", []string{"reason=no_endpoints", "service_name=ghost"}, 9},
			{"svcscope_drop_packets_total", nil, 9},
			{"svcscope_collector_success", []string{"collector=tap"}, 1},
			{"svcscope_nflog_group_bound", []string{"group=10988"}, 1},
		} {
			if got := s.sum(t, w.name, w.labels...); got != w.want {
				t.Errorf("%s%v: %v, want %v", w.name, w.labels, got, w.want)
			}
		}
		s.expectEvent(t)
	})
}

// expectEvent: what is refused was logged, by the way it came.
func (s *tapScene) expectEvent(t *testing.T) {
	t.Helper()
	var events []correlate.DropEvent
	s.until(t, "an event came", func() bool {
		events, _, _, _ = s.groups.events.after(0, 100)
		return len(events) == 9
	})
	d := s.dropReport(&events[0])
	if d.Source != "tap" || d.Service == nil || d.Service.Name != "ghost" || d.Reason != "no_endpoints" || d.Hook != "output" ||
		d.SentTo != netip.AddrPortFrom(s.f.ghost, vipPort).String() || d.Table != "filter" || d.Chain == "" {
		t.Errorf("got %+v", d)
	}
}

// TestTapFollows: where a Service gets endpoints its packets are no longer told as
// refused, and nothing that was counted is lost on the way.
func TestTapFollows(t *testing.T) {
	eachScene(t, func(t *testing.T, backend string, f family) {
		s := startTap(t, f, backend, time.Hour) // what was counted comes with changes alone
		refuse(t, f, 5)
		f.restore(t, backend, f.rules("")) // which refuses TCP alone
		s.until(t, "what was refused is counted to its end", func() bool {
			return s.sum(t, "svcscope_drop_witnessed_packets_total", "source=tap") == 5
		})
		connect(t, f.cluster(), 3)
		f.restore(t, backend, f.chaosRules(""))
		s.until(t, "connections are counted on", func() bool {
			return s.sum(t, "svcscope_service_attempts_total", "service_name=web", "via=cluster") == 3
		})
	})
}

// TestTapWaitsForItsTable: while another process taps this one says so, and goes on when that has ended.
func TestTapWaitsForItsTable(t *testing.T) {
	kerneltest.Run(t, func(t *testing.T) {
		other, err := kernel.OpenTap(t.Context(), kernel.TapConfig{})
		if err != nil {
			t.Fatal(err)
		}
		defer other.Close()
		tap := newTapper(Config{Tap: true, Interval: time.Second}, thisHost(), slog.New(slog.DiscardHandler), newDropLog())
		if _, _, err := tap.begin(t.Context()); err == nil || !strings.Contains(err.Error(), "another process") {
			t.Errorf("got %v", err)
		} else {
			tap.failed(err)
		}
		if _, state := tap.take(); state.Active || tapCollector(&state).Success || !strings.Contains(state.Err, "another process") {
			t.Errorf("state %+v", state)
		}
		if err := other.Close(); err != nil {
			t.Fatal(err)
		}
		table, _, err := tap.begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := table.Close(); err != nil {
			t.Error(err)
		}
	})
}
