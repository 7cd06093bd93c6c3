// SPDX-License-Identifier: Apache-2.0

package drift

import (
	"fmt"
	"testing"
	"time"
)

// TestBegunInTheMiddle: an agent that begins, or begins again, while kube-proxy is behind
// says nothing of Services.
func TestBegunInTheMiddle(t *testing.T) {
	for _, seed := range seeds[:min(15, len(seeds))] {
		for _, slow := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d/slow %v", seed, slow), func(t *testing.T) {
				w := newWorld(t, seed, 12)
				if slow {
					w.proxy.takes = func() time.Duration { return 50*time.Second + w.upTo(20*time.Second) }
				}
				w.churn(10*time.Minute, 8*time.Second)
				w.run(3*time.Minute + w.upTo(time.Minute))
				w.readings(10*time.Minute, func(v *Verdict) { w.only(v, NotSyncing) })
			})
		}
	}
}

// TestFailingRestores: what kube-proxy could not write, it writes half a minute later.
func TestFailingRestores(t *testing.T) {
	for _, seed := range seeds[:min(15, len(seeds))] {
		for _, every := range []time.Duration{2 * time.Second, 40 * time.Second} {
			t.Run(fmt.Sprintf("%d/a change each %s", seed, every/2), func(t *testing.T) {
				w := newWorld(t, seed, 12)
				w.proxy.fails = func() bool { return w.rng.IntN(4) == 0 }
				for burst := range 20 { // with pauses, in which nothing but time makes it try again
					w.after(time.Duration(burst)*time.Minute, func() { w.churn(10*time.Second, every) })
				}
				w.readings(22*time.Minute, func(v *Verdict) { w.only(v, NotSyncing) })
			})
		}
	}
}

// TestRareSyncs: kube-proxy may be told to write rarely.
func TestRareSyncs(t *testing.T) {
	for _, seed := range seeds[:min(15, len(seeds))] {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			w := newWorld(t, seed, 12)
			w.proxy.period = 30 * time.Second
			w.churn(20*time.Minute, 4*time.Second)
			w.readings(21*time.Minute, w.none)
		})
	}
}

// TestBlind: of x_tables every second commit of a small cluster is not seen.
func TestBlind(t *testing.T) {
	for _, seed := range seeds[:min(15, len(seeds))] {
		for _, every := range []time.Duration{300 * time.Millisecond, 4 * time.Second, 40 * time.Second} {
			t.Run(fmt.Sprintf("%d/a change each %s", seed, every/2), func(t *testing.T) {
				w := newWorld(t, seed, 12)
				w.blind = true
				w.churn(100*every, every)
				w.readings(100*every+time.Minute, w.none)
			})
		}
	}
}
