// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"maps"
	"sync"

	"github.com/svcscope/svcscope/pkg/correlate"
)

// maxDrops is how many events of drops are kept.
const maxDrops = 10_000

// dropLog keeps the last events, in memory only, and counts all. Its readers lag behind
// as far as it reaches back; what they miss they are told.
type dropLog struct {
	mu     sync.Mutex
	ring   []correlate.DropEvent // event number n is at n % maxDrops
	end    uint64                // the number of the next event
	more   chan struct{}         // closed when there is one
	counts map[correlate.WitnessKey]uint64
	// losses counts what pods lose to policies; nil where nobody wants to know.
	losses map[correlate.LossKey]uint64
}

func newDropLog() *dropLog {
	return &dropLog{more: make(chan struct{}), counts: make(map[correlate.WitnessKey]uint64)}
}

// add takes events in the order in which they came.
func (l *dropLog) add(events []correlate.DropEvent) {
	if len(events) == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range events {
		if e := &events[i]; e.Refused && e.Source != correlate.SourceTap { // which counts itself
			l.counts[e.Key()]++
			l.lose(e)
		}
		if len(l.ring) < maxDrops {
			l.ring = append(l.ring, events[i])
		} else {
			l.ring[l.end%maxDrops] = events[i]
		}
		l.end++
	}
	close(l.more)
	l.more = make(chan struct{})
}

// lose counts an event as a pod's loss, if it is one. Needs mu.
func (l *dropLog) lose(e *correlate.DropEvent) {
	if l.losses == nil {
		return
	}
	if key, ok := e.Loss(); ok {
		l.losses[key]++
	}
}

// takeLosses returns what pods have lost since the last call.
func (l *dropLog) takeLosses() map[correlate.LossKey]uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	losses := maps.Clone(l.losses)
	clear(l.losses)
	return losses
}

// take returns what was counted since the last call.
func (l *dropLog) take() map[correlate.WitnessKey]uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	counts := maps.Clone(l.counts)
	clear(l.counts)
	return counts
}

// newest returns the number from which on there are n events, or all.
func (l *dropLog) newest(n int) uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.end - min(uint64(n), uint64(len(l.ring)))
}

// after returns up to most events from number from on, how many before them are no
// longer there, and the number to go on from. Where there are none yet, more is
// closed when there are.
func (l *dropLog) after(from uint64, most int) (events []correlate.DropEvent, missed, next uint64, more <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if first := l.end - uint64(len(l.ring)); from < first {
		missed, from = first-from, first
	}
	next = min(l.end, from+uint64(most))
	for n := from; n < next; n++ {
		events = append(events, l.ring[n%maxDrops])
	}
	return events, missed, next, l.more
}
