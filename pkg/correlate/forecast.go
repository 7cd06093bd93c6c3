// SPDX-License-Identifier: Apache-2.0

package correlate

import (
	"slices"
	"time"
)

// Count is the number of entries at one time.
type Count struct {
	At      time.Time
	Entries uint64
}

// reach is how many times its window a forecast reaches at most: what took a
// minute to see says nothing of tomorrow.
const reach = 15

// TimeToFull forecasts when the table will have limit entries if it goes on
// filling as it does: the soonest of what each window of counts says, oldest
// count first. It is false where none says so within reach. A short window sees
// a burst, a long one what fills slowly; a daily swing is out of the reach of
// both.
func TimeToFull(limit uint64, windows ...[]Count) (time.Duration, bool) {
	soonest, ok := time.Duration(0), false
	for _, w := range windows {
		if d, fills := timeToFull(limit, w); fills && (!ok || d < soonest) {
			soonest, ok = d, true
		}
	}
	return soonest, ok
}

// full is the share of the limit from which on a table is full: what the kernel
// evicts, and what times out, keeps the count a little below the limit.
const full = 0.999

// fewestCounts is of how many counts on a window has a slope.
const fewestCounts = 10

func timeToFull(limit uint64, w []Count) (time.Duration, bool) {
	if limit == 0 || len(w) == 0 {
		return 0, false
	}
	last := w[len(w)-1]
	if float64(last.Entries) >= full*float64(limit) {
		return 0, true
	}
	if len(w) < fewestCounts {
		return 0, false
	}
	rate, grows := slope(w)
	if !grows {
		return 0, false
	}
	seconds := float64(limit-last.Entries) / rate
	if span := last.At.Sub(w[0].At); seconds > reach*span.Seconds() {
		return 0, false
	}
	return time.Duration(seconds * float64(time.Second)), true
}

// slope is the median of the slopes between all pairs of counts, in entries a
// second (Theil and Sen): up to three tenths of the counts may be anything. The
// counts grow where five of six pairs do: noise about a level does not in
// one of 100,000 windows of twenty (Mann and Kendall).
func slope(w []Count) (rate float64, grows bool) {
	slopes := make([]float64, 0, len(w)*(len(w)-1)/2)
	for i := range w {
		for j := i + 1; j < len(w); j++ {
			if d := w[j].At.Sub(w[i].At).Seconds(); d > 0 {
				slopes = append(slopes, (float64(w[j].Entries)-float64(w[i].Entries))/d)
			}
		}
	}
	if len(slopes) == 0 {
		return 0, false
	}
	slices.Sort(slopes)
	return slopes[len(slopes)/2], slopes[len(slopes)/6] > 0
}
