// SPDX-License-Identifier: Apache-2.0

package correlate

import (
	"cmp"
	"slices"
	"time"

	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/policy"
	"github.com/svcscope/svcscope/pkg/ruleset"
	"github.com/svcscope/svcscope/pkg/service"
)

// TapCount is what a tap has counted by one way.
type TapCount struct {
	TapFlows
	// Refused are packets to be refused in input and forward, RefusedHere in output, and
	// Outside those from a source that the way is not open to.
	Refused, RefusedHere, Outside uint64
}

// TapFlows counts flows.
type TapFlows struct {
	// Attempts are first packets; Translated are those of them that were sent to an
	// endpoint.
	Attempts, Translated uint64
}

func (f *TapFlows) add(g TapFlows) {
	f.Attempts += g.Attempts
	f.Translated += g.Translated
}

// TapTally makes what Services' ports have counted of the counters of their ways. It is
// for one goroutine; NewTapTally makes it.
type TapTally struct {
	plan    *TapPlan
	last    map[Way]TapCount
	flows   map[TapPort]TapFlows
	refused map[WitnessKey]uint64
	drops   map[DropLabels]uint64
}

// NewTapTally returns one that has counted nothing.
func NewTapTally() *TapTally {
	return &TapTally{
		plan: &TapPlan{}, last: make(map[Way]TapCount), flows: make(map[TapPort]TapFlows), refused: make(map[WitnessKey]uint64),
		drops: make(map[DropLabels]uint64),
	}
}

// Plan takes another plan. What was counted until now is to be told before.
func (t *TapTally) Plan(p *TapPlan) {
	known := make(map[TapPort]struct{}, len(t.plan.Services))
	for _, port := range t.plan.Services {
		known[port] = struct{}{}
	}
	for _, port := range p.Services {
		if _, ok := known[port]; !ok {
			t.flows[port] = t.flows[port] // from 0
		}
	}
	for _, r := range p.Ranges {
		t.drops[r.labels(r.Hooks)] += 0
	}
	for _, r := range p.Refused {
		for _, hooks := range [...]ruleset.Hooks{r.Hooks &^ hereHooks, r.Hooks & hereHooks} {
			if r.Uncounted && hooks != 0 {
				t.drops[r.labels(hooks)] += 0
			}
		}
	}
	t.plan = p
}

// Count takes what a way has counted. A counter that fell has begun anew.
func (t *TapTally) Count(w Way, now TapCount) {
	last := t.last[w]
	t.add(w, now.since(last))
	t.last[w] = now
}

// End takes the last value of what is no longer counted. Of what has gone on the value is
// less than it was, and not taken.
func (t *TapTally) End(w Way, final TapCount) {
	last := t.last[w]
	var more TapCount
	end := func(final uint64, last, more *uint64) {
		if final >= *last {
			*more, *last = final-*last, 0
		}
	}
	end(final.Attempts, &last.Attempts, &more.Attempts)
	end(final.Translated, &last.Translated, &more.Translated)
	end(final.Refused, &last.Refused, &more.Refused)
	end(final.RefusedHere, &last.RefusedHere, &more.RefusedHere)
	end(final.Outside, &last.Outside, &more.Outside)
	t.add(w, more)
	if last == (TapCount{}) {
		delete(t.last, w)
	} else {
		t.last[w] = last
	}
}

// Reset forgets all counters: they begin anew with another table.
func (t *TapTally) Reset() { clear(t.last) }

// since is what was counted since; a counter that fell has begun anew.
func (now TapCount) since(last TapCount) TapCount {
	since := func(now, last uint64) uint64 {
		if now < last {
			return now
		}
		return now - last
	}
	return TapCount{
		TapFlows{since(now.Attempts, last.Attempts), since(now.Translated, last.Translated)},
		since(now.Refused, last.Refused), since(now.RefusedHere, last.RefusedHere), since(now.Outside, last.Outside),
	}
}

func (t *TapTally) add(w Way, more TapCount) {
	if port, ok := t.plan.Services[w]; ok && more.TapFlows != (TapFlows{}) {
		f := t.flows[port]
		f.add(more.TapFlows)
		t.flows[port] = f
	}
	if r, ok := t.plan.Refused[w]; ok {
		t.refuse(&r, r.Hooks&^hereHooks, more.Refused)
		t.refuse(&r, r.Hooks&hereHooks, more.RefusedHere)
	}
	if r, ok := t.plan.Ranges[w]; ok {
		t.refuse(&r, r.Hooks, more.Outside)
	}
}

// hereHooks are those that packets of this host itself pass to a rule that refuses them.
const hereHooks ruleset.Hooks = 1 << netfilter.HookOutput

// labels are what packets that came by some hooks are told by.
func (r *TapRefusal) labels(hooks ruleset.Hooks) DropLabels {
	return DropLabels{Reason: string(r.Reason), Hook: hookOf(hooks), Owner: policy.KubeProxy, Service: r.Port.Name}
}

// refuse counts packets that came by some hooks. The tap is a witness of them, and the only one
// to count them where their rule does not.
func (t *TapTally) refuse(r *TapRefusal, hooks ruleset.Hooks, packets uint64) {
	if packets == 0 {
		return
	}
	t.refused[WitnessKey{Source: SourceTap, Reason: string(r.Reason), Service: r.Port.Name}] += packets
	if r.Uncounted {
		t.drops[r.labels(hooks)] += packets
	}
}

// TapTaken is what a tap has counted.
type TapTaken struct {
	Flows map[TapPort]TapFlows
	// Refused are the packets that the tap saw being refused, and Drops those of them that
	// no rule counts.
	Refused map[WitnessKey]uint64
	Drops   map[DropLabels]uint64
}

// Take returns what was counted since the last call.
func (t *TapTally) Take() TapTaken {
	taken := TapTaken{Flows: t.flows, Refused: t.refused, Drops: t.drops}
	t.flows, t.refused, t.drops = make(map[TapPort]TapFlows), make(map[WitnessKey]uint64), make(map[DropLabels]uint64)
	return taken
}

// TapTotal is what a tap has counted for one port of a Service in one family. It only grows.
type TapTotal struct {
	Port              service.PortName
	Family            Family
	Cluster, External TapFlows
	Created           time.Time
}

// Tapped sums what a tap has counted. It is for one goroutine.
type Tapped struct {
	own    func(service.Name) bool
	totals map[portKey]*TapTotal
}

// NewTapped returns one that has counted nothing. own tells which Services have totals
// of their own; those of others share OtherServices.
func NewTapped(own func(service.Name) bool) *Tapped {
	return &Tapped{own: own, totals: make(map[portKey]*TapTotal)}
}

// Add counts further flows.
func (t *Tapped) Add(more map[TapPort]TapFlows, now time.Time) {
	for port, flows := range more {
		key := portKey{port.PortName, port.Family}
		if key.name.Name = ownOrOther(port.Name, t.own); key.name.Name != port.Name {
			key.name.Port = ""
		}
		total := t.totals[key]
		if total == nil {
			total = &TapTotal{Port: key.name, Family: key.family, Created: now}
			t.totals[key] = total
		}
		if port.External {
			total.External.add(flows)
		} else {
			total.Cluster.add(flows)
		}
	}
}

// Totals returns all since the start, in order. Those of a Service that keep does not
// want are left out, and forgotten.
func (t *Tapped) Totals(keep func(service.Name) bool) []TapTotal {
	out := make([]TapTotal, 0, len(t.totals))
	for key, total := range t.totals {
		if unwanted(key.name.Name, keep) {
			delete(t.totals, key)
			continue
		}
		out = append(out, *total)
	}
	slices.SortFunc(out, func(a, b TapTotal) int {
		return cmp.Or(a.Port.Compare(b.Port), cmp.Compare(a.Family, b.Family))
	})
	return out
}

// Tap is the state of the agent's own table.
type Tap struct {
	Active bool
	// Err is why it is not, or what is amiss with it.
	Err string
	// Ways to Services are counted, and Refused are those by which packets are refused; Left
	// are those that there is no room for.
	Ways, Refused, Left int
	// Log is the group of NFLOG that packets to be refused come by.
	Log    LogGroup
	Totals []TapTotal
}
