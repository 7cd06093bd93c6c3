// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"slices"
	"testing"
	"time"

	"github.com/svcscope/svcscope/hack/lab/labtest"
)

// sides are beside what kube-proxy's syncs are timed. In the lab the API server
// runs on the node's processors, and one more client of it costs a sync some
// hundredths whatever that client does: the agent is compared with one that does nothing.
const (
	besideNone   = "nothing"
	besideClient = "a client of the API"
	besideAgent  = "the agent"
)

// syncCost runs kube-proxy's syncs with the agent and without it by turns, under the
// same traffic, and compares the medians. These are a fiftieth too high or too low now
// and then: where they are not clearly below what is allowed, three times as many
// syncs judge.
func (s *churned) syncCost(i int, p promise, rate int) {
	t := s.t
	t.Helper()
	const most, clearly = 1.05, 1.02
	// Three tenths of the rate, so that the source ports last for all turns of two agents.
	s.startLoads(max(1, rate*3/10), 19000)
	s.startChurn()
	rounds := make(map[string][]time.Duration)
	for _, turns := range []int{4, 8} {
		for range turns {
			s.timeTurn(i, p, rounds)
		}
		if times(median(rounds[besideAgent]), median(rounds[besideClient])) <= clearly {
			break
		}
	}
	s.stopChurn()
	s.stopLoads()
	on, client, off := median(rounds[besideAgent]), median(rounds[besideClient]), median(rounds[besideNone])
	ratio := times(on, client)
	if ratio > most {
		t.Errorf("%s: a sync took %v beside the agent, %v beside %s: %.3f times, want at most %.2f", p.name, on, client, besideClient, ratio, most)
	}
	result(t, "%s: a sync of both families took %.1f ms beside the agent, %.1f ms beside a client of the API that does nothing, %.1f ms beside neither "+
		"(medians of %d, %d and %d, by turns, at %d connections a second): %.3f times the second, %.3f times the third",
		p.name, ms(on), ms(client), ms(off), len(rounds[besideAgent]), len(rounds[besideClient]), len(rounds[besideNone]), s.perSecond(), ratio, times(on, off))
}

// timeTurn adds what syncs take beside each side.
func (s *churned) timeTurn(i int, p promise, rounds map[string][]time.Duration) {
	s.t.Helper()
	syncs := 20
	if s.fillers > 2000 { // seconds each
		syncs = 5
	}
	rounds[besideNone] = append(rounds[besideNone], s.timeSyncs(syncs)...)
	client := s.lab.StartWatcher("node1")
	rounds[besideClient] = append(rounds[besideClient], s.timeSyncs(syncs)...)
	stopped(s.t, besideClient, client)
	w := startWatcher(s.t, s.lab, i, p.name, p.flags...)
	s.waitExact(w, p)
	rounds[besideAgent] = append(rounds[besideAgent], s.timeSyncs(syncs)...)
	stopped(s.t, besideAgent+" "+p.name, w.Process)
}

func stopped(t *testing.T, what string, p *labtest.Process) {
	t.Helper()
	if err := p.Stop(); err != nil {
		t.Errorf("%s after SIGTERM: %v: %s", what, err, p.Output())
	}
}

// timeSyncs returns how long the next n syncs took.
func (s *churned) timeSyncs(n int) []time.Duration {
	s.t.Helper()
	// The first may have begun before whatever changed, and an agent has just
	// been started: what that costs is not what it costs from then on.
	const first = 4
	s.waitSyncs(s.syncs(), first)
	skip := len(s.lab.Syncs())
	s.waitSyncs(s.syncs(), n)
	return syncRounds(s.lab.Syncs()[skip:])
}

// syncRounds returns for how long syncs ran, of either family, from the begin of one
// of IPv4 to that of the next. One family's waits for the lock while the
// other one is written, or doesn't, as it happens: each one's own time says nothing.
func syncRounds(syncs []labtest.Sync) (rounds []time.Duration) {
	syncs = slices.SortedFunc(slices.Values(syncs), func(a, b labtest.Sync) int { return a.Begin().Compare(b.Begin()) })
	type span struct{ begin, end time.Time }
	var ran []span // in which some sync ran
	var begins []time.Time
	for _, one := range syncs {
		if one.Family == "IPv4" {
			begins = append(begins, one.Begin())
		}
		if n := len(ran) - 1; n >= 0 && !one.Begin().After(ran[n].end) {
			ran[n].end = later(ran[n].end, one.End)
		} else {
			ran = append(ran, span{one.Begin(), one.End})
		}
	}
	for i := range len(begins) - 1 {
		var d time.Duration
		for _, r := range ran {
			begin, end := later(r.begin, begins[i]), r.end
			if end.After(begins[i+1]) {
				end = begins[i+1]
			}
			d += max(0, end.Sub(begin))
		}
		rounds = append(rounds, d)
	}
	return rounds
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// TestSyncRounds has the rounds of syncs that wait for each other, and of some that don't.
func TestSyncRounds(t *testing.T) {
	at := func(ms int) time.Time { return time.UnixMilli(int64(ms)) }
	sync := func(family string, begin, end int) labtest.Sync {
		return labtest.Sync{Family: "IPv" + family, End: at(end), Elapsed: at(end).Sub(at(begin))}
	}
	got := syncRounds([]labtest.Sync{
		sync("6", 900, 950), // before the first round
		sync("4", 1000, 1200), sync("6", 1001, 1240),
		sync("6", 2030, 2060), sync("4", 2000, 2190), sync("6", 2400, 2450),
		sync("6", 2990, 3230), sync("4", 3000, 3190),
		sync("4", 4000, 4100), // of the last one the end is not known
	})
	want := []time.Duration{240 * time.Millisecond, 250 * time.Millisecond, 230 * time.Millisecond}
	if !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
