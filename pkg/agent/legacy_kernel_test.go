// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"net"
	"os"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/svcscope/svcscope/pkg/correlate"
	"github.com/svcscope/svcscope/pkg/internal/kerneltest"
	"github.com/svcscope/svcscope/pkg/internal/syncrules"
	"github.com/svcscope/svcscope/pkg/ruleset"
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

// TestLegacySyncsUnderTraffic rewrites one Service again and again, as
// kube-proxy does, under steady traffic to it and to another.
func TestLegacySyncsUnderTraffic(t *testing.T) {
	for _, n := range []int{100, 1000} {
		t.Run(strconv.Itoa(n), func(t *testing.T) {
			if testing.Short() && n > 100 {
				t.Skip("the race detector makes a reading last longer than the time between two syncs")
			}
			kerneltest.Run(t, func(t *testing.T) {
				const changes, stays, syncs = 7, 3, 15
				services := syncrules.Services{Number: n, Endpoints: 3, Large: 3*n > 1000}
				restore := func(text string) {
					kerneltest.Exec(t, text, "iptables-legacy-restore", "-w", "5", "--noflush", "--counters")
				}
				kerneltest.Exec(t, "", "ip", "addr", "add", "10.0.0.1/8", "dev", "lo")
				restore(services.Full())
				cfg := testConfig()
				cfg.MaxServices = n
				cfg.Interval = 700 * time.Millisecond // as often as kube-proxy may sync, or a little more
				s := newTestSampler(cfg)
				start(t, s)
				passes(t, s, 2)
				stop := make(chan struct{})
				changed, changedDone := flows(t, net.JoinHostPort(services.VIP(changes).String(), "80"), stop)
				stayed, stayedDone := flows(t, net.JoinHostPort(services.VIP(stays).String(), "80"), stop)
				begin := time.Now()
				for i := range syncs {
					restore(services.Sync(changes, i+1))
					passes(t, s, 1)
				}
				close(stop)
				<-changedDone
				<-stayedDone
				rate := float64(changed.Load()) / time.Since(begin).Seconds()
				passes(t, s, 3)
				snapshot := s.latest.Load()
				got := func(i int) uint64 {
					for _, p := range snapshot.Services {
						if p.Port == services.Port(i) {
							return p.Connections()
						}
					}
					return 0
				}
				if got(stays) != stayed.Load() {
					t.Errorf("a Service that stays: %d connections, want %d", got(stays), stayed.Load())
				}
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
				if float64(lost) > explained {
					t.Errorf("%d lost, the blind time explains %.0f", lost, explained)
				}
			})
		})
	}
}

func blindOf(s *correlate.Snapshot, table string) time.Duration {
	for _, b := range s.Blind {
		if b.Backend == ruleset.Legacy && b.Family == 2 && b.Table == table {
			return b.Total
		}
	}
	return 0
}
