// SPDX-License-Identifier: Apache-2.0

package correlate

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// forecasts are what the agent says every 15 s from the begin to the end.
func forecasts(limit uint64, noise float64, from, to time.Duration, entries func(time.Duration) float64) map[time.Duration]time.Duration {
	rng := rand.New(rand.NewPCG(1, 2))
	start := time.Unix(1e9, 0)
	var short, long []Count
	out := make(map[time.Duration]time.Duration)
	for t := from; t <= to; t += time.Second {
		n := entries(t) * (1 + noise*(2*rng.Float64()-1))
		c := Count{At: start.Add(t), Entries: uint64(min(max(0, n), float64(limit)))}
		short = append(short, c)
		short = short[max(0, len(short)-20):]
		if t%(15*time.Second) == 0 {
			long = append(long, c)
			long = long[max(0, len(long)-60):]
			if d, ok := TimeToFull(limit, short, long); ok {
				out[t] = d
			}
		}
	}
	return out
}

func TestTimeToFull(t *testing.T) {
	const limit = 262144
	day := func(t time.Duration) float64 {
		return limit * (0.525 - 0.375*math.Cos(2*math.Pi*t.Hours()/24)) // 15 to 90 % of the table, each day
	}
	t.Run("a daily swing does not cry wolf", func(t *testing.T) {
		got := forecasts(limit, 0.002, 0, 48*time.Hour, day)
		for at, d := range got {
			if d < time.Hour {
				t.Errorf("after %v: full in %v", at, d)
			}
		}
		if len(got) == 0 {
			t.Error("so steep a morning is within the reach of the long window")
		}
	})
	t.Run("nor does noise", func(t *testing.T) {
		for at, d := range forecasts(limit, 0.05, 0, 6*time.Hour, func(time.Duration) float64 { return limit / 2 }) {
			if d < 3*time.Minute {
				t.Errorf("after %v: full in %v", at, d)
			}
		}
	})
	t.Run("a burst is seen within two samplings", func(t *testing.T) {
		const begin = 30 * time.Minute
		got := forecasts(limit, 0.02, 0, begin+30*time.Second, func(t time.Duration) float64 {
			return 0.3*limit + max(0, (t-begin).Seconds())*limit/120 // full after 84 s
		})
		if len(got) == 0 {
			t.Fatal("not seen")
		}
		d, ok := got[begin+30*time.Second]
		if !ok || d < 35*time.Second || d > 80*time.Second {
			t.Errorf("30 s after its begin: full in %v, %v; it is 54 s", d, ok)
		}
	})
	t.Run("what fills slowly is seen", func(t *testing.T) {
		got := forecasts(limit, 0.01, 0, 30*time.Minute, func(t time.Duration) float64 {
			return limit * (0.5 + 0.5*t.Minutes()/120)
		})
		d, ok := got[30*time.Minute]
		if !ok || d < 75*time.Minute || d > 105*time.Minute {
			t.Errorf("after 30 minutes: full in %v, %v; it is 90 minutes", d, ok)
		}
	})
	t.Run("what empties is not", func(t *testing.T) {
		got := forecasts(limit, 0, 0, time.Hour, func(t time.Duration) float64 { return limit * (0.9 - 0.5*t.Hours()) })
		if len(got) != 0 {
			t.Errorf("%v", got)
		}
	})
}

func TestTimeToFullAtTheEdges(t *testing.T) {
	at := func(s int, n uint64) Count { return Count{time.Unix(int64(s), 0), n} }
	line := func(n int) (w []Count) { // 10 a second, up to 100
		for i := range n {
			w = append(w, at(i, uint64(10*i+10)))
		}
		return w
	}
	for _, tt := range []struct {
		name  string
		limit uint64
		w     []Count
		want  time.Duration
		ok    bool
	}{
		{"nothing", 10, nil, 0, false},
		{"no limit", 0, []Count{at(0, 5)}, 0, false},
		{"full", 10, []Count{at(0, 10)}, 0, true},
		{"above", 10, []Count{at(0, 12)}, 0, true},
		{"too few", 100, []Count{at(0, 1), at(1, 2)}, 0, false},
		{"steady growth", 200, line(10), 10 * time.Second, true},
		{"one wild count", 200, slices.Replace(line(10), 4, 5, at(4, 190)), 10 * time.Second, true},
		{"one time", 200, slices.Repeat([]Count{at(0, 10)}, 20), 0, false},
		{"out of reach", 10000, line(10), 0, false},
	} {
		if d, ok := TimeToFull(tt.limit, tt.w); d != tt.want || ok != tt.ok {
			t.Errorf("%s: got %v, %v, want %v, %v", tt.name, d, ok, tt.want, tt.ok)
		}
	}
}
