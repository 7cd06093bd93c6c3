// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/svcscope/svcscope/pkg/correlate"
	"github.com/svcscope/svcscope/pkg/internal/kerneltest"
	"github.com/svcscope/svcscope/pkg/internal/syncrules"
	"github.com/svcscope/svcscope/pkg/ruleset"
	"github.com/svcscope/svcscope/pkg/service"
)

// flows begins connections to a Service's address until stop is closed, and
// counts them. They are refused: nobody listens at the endpoints.
func flows(t *testing.T, address string, stop chan struct{}) (sent *atomic.Uint64, done chan struct{}) {
	t.Helper()
	sent, done = new(atomic.Uint64), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(2 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
			}
			c, err := net.DialTimeout("tcp", address, time.Second)
			sent.Add(1) // refused or not, the rules have seen its first packet
			if err == nil {
				_ = c.Close()
			}
		}
	}()
	return sent, done
}

// longDip is how long the writer waits for a processor in every fourth sync of a row
// with long dips, between its replacement of nat and the call that adds the old counters.
// Sessions before were so much shorter that it is taken to be over.
const longDip, dipSampling = 700 * time.Millisecond, 100 * time.Millisecond

// TestLegacySyncsUnderTraffic rewrites one Service again and again, as
// kube-proxy does, under steady traffic to it and to another.
func TestLegacySyncsUnderTraffic(t *testing.T) {
	for _, tt := range []struct {
		name     string
		services int
		dips     bool
	}{{"100", 100, false}, {"100 with long dips", 100, true}, {"1000", 1000, false}} {
		t.Run(tt.name, func(t *testing.T) {
			if testing.Short() && tt.services > 100 {
				t.Skip("the race detector makes a reading last longer than the time between two syncs")
			}
			kerneltest.Run(t, func(t *testing.T) { legacySyncs(t, tt.services, tt.dips) })
		})
	}
}

func legacySyncs(t *testing.T, n int, dips bool) {
	const changes, stays, syncs = 7, 3, 15
	services := syncrules.Services{Number: n, Endpoints: 3, Large: 3*n > 1000}
	kerneltest.Exec(t, "", "ip", "addr", "add", "10.0.0.1/8", "dev", "lo")
	restore(t, services.Full(), 0)
	cfg := testConfig()
	cfg.MaxServices = n
	cfg.Interval = 700 * time.Millisecond // as often as kube-proxy may sync, or a little more
	if dips {
		cfg.Interval = dipSampling
	}
	s := newTestSampler(cfg)
	start(t, s)
	passes(t, s, 2)
	stop := make(chan struct{})
	changed, changedDone := flows(t, net.JoinHostPort(services.VIP(changes).String(), "80"), stop)
	stayed, stayedDone := flows(t, net.JoinHostPort(services.VIP(stays).String(), "80"), stop)
	begin := time.Now()
	for i := range syncs {
		var dip time.Duration
		if dips && i%4 == 1 {
			dip = longDip
		}
		restore(t, services.Sync(changes, i+1), dip)
		passes(t, s, 1)
	}
	close(stop)
	<-changedDone
	<-stayedDone
	rate := float64(changed.Load()) / time.Since(begin).Seconds()
	got := func(i int) uint64 { return connectionsOf(s.latest.Load(), services.Port(i)) }
	// What was counted last is told by the next reading: on a busy machine none is made
	// for a while of a table that takes long.
	for end := time.Now().Add(3 * dearRecent); got(stays) < stayed.Load() && time.Now().Before(end); {
		passes(t, s, 1)
	}
	passes(t, s, 3)
	if got(stays) != stayed.Load() {
		t.Errorf("a Service that stays: %d connections, want %d", got(stays), stayed.Load())
	}
	snapshot := s.latest.Load()
	blind := blindOf(snapshot, "nat")
	lost := int64(changed.Load()) - int64(got(changes))
	t.Logf("%d Services: %d of %d lost in %d syncs, %.0f/s, blind for %v (%v a sync), lock open for %v",
		n, lost, changed.Load(), syncs, rate, blind, blind/syncs, snapshot.Lock)
	if lost < 0 {
		t.Errorf("%d connections more than opened", -lost)
	}
	// Beside other tests a reading waits for a processor, and so does what is told of it.
	explained := rate*blind.Seconds()*3 + 3*syncs
	if os.Getenv("SVCSCOPE_LONG") == "1" {
		explained = rate*blind.Seconds()*1.5 + syncs
	}
	if !dips && float64(lost) > explained {
		t.Errorf("%d lost, the blind time explains %.0f", lost, explained)
	}
}

// restore writes rules as kube-proxy does, and waits within the dip of the second table.
func restore(t *testing.T, text string, dip time.Duration) {
	t.Helper()
	cmd := []string{"iptables-legacy-restore", "-w", "5", "--noflush", "--counters"}
	if dip > 0 { // tables are written with two calls each
		inject := fmt.Sprintf("inject=setsockopt:delay_exit=%d:when=3", dip.Microseconds())
		cmd = append([]string{"strace", "-qq", "-o", os.DevNull, "-e", inject}, cmd...)
	}
	kerneltest.Exec(t, text, cmd[0], cmd[1:]...)
}

func connectionsOf(s *correlate.Snapshot, port service.PortName) uint64 {
	for _, p := range s.Services {
		if p.Port == port {
			return p.Connections()
		}
	}
	return 0
}

func blindOf(s *correlate.Snapshot, table string) time.Duration {
	for _, b := range s.Blind {
		if b.Backend == ruleset.Legacy && b.Family == 2 && b.Table == table {
			return b.Total
		}
	}
	return 0
}
