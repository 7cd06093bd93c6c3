// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"log/slog"
	"time"

	"github.com/svcscope/svcscope/pkg/correlate"
	"github.com/svcscope/svcscope/pkg/drift"
	"github.com/svcscope/svcscope/pkg/ledger"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/service"
)

// driftWatch tells at each sampling where the rules are not what the API wants.
type driftWatch struct {
	comparer drift.Comparer
	commits  drift.Commits
	judge    *drift.Judge
	arrivals arrivals
	last     map[netfilter.Family]time.Time // kube-proxy's last commit
	state    *correlate.Drift               // nil before the first judgement
	log      *slog.Logger
}

func newDriftWatch(grace time.Duration, log *slog.Logger) *driftWatch {
	return &driftWatch{
		judge: drift.NewJudge(grace), arrivals: arrivals{at: make(map[service.Name]time.Time)},
		last: make(map[netfilter.Family]time.Time), log: log,
	}
}

// arrivals is when the API told of changes.
type arrivals struct {
	at  map[service.Name]time.Time
	all time.Time // that of anything, where nothing said of what
}

// arrivalsFor is how long they are kept: rules of before a change come later by twice
// what a sync of kube-proxy takes.
const arrivalsFor = time.Hour

func (a *arrivals) note(names []service.Name, all bool, now time.Time) {
	if all {
		a.all = now
	}
	for _, n := range names {
		a.at[n] = now
	}
}

func (a *arrivals) of(n service.Name) time.Time {
	if t := a.at[n]; t.After(a.all) {
		return t
	}
	return a.all
}

func (a *arrivals) forget(now time.Time) {
	for n, t := range a.at {
		if now.Sub(t) > arrivalsFor {
			delete(a.at, n)
		}
	}
}

// judge compares the newest readings with the API. Where rules could not be read it says
// so, and nothing is judged: the last ones are of an earlier time.
func (s *sampler) judge(now time.Time) {
	d := s.drift
	for _, src := range s.sources {
		if !src.Success {
			d.state = &correlate.Drift{Unknown: correlate.RulesUnread}
			return
		}
	}
	state, rules := s.kube.state(), s.driftRules()
	result := d.comparer.Compare(&drift.Input{Catalog: s.catalog, NodeMissing: state.unplaced, Rules: rules, IPVS: s.host.ipvs()})
	r := drift.Reading{
		Time: now, Result: result, Current: state.services && s.catalog != nil && s.catalog.Synced,
		Commits: s.programming.commits(d.commits.See(rules, now), now), ChangedAt: d.arrivals.of,
	}
	for i := range r.Commits {
		if c := &r.Commits[i]; !c.Half && result.Writes(c) {
			d.last[c.Family] = c.Seen
		}
	}
	v := d.judge.Judge(&r)
	d.arrivals.forget(now)
	d.state = correlate.NewDrift(v, result, d.last, func(n service.Name) bool {
		return s.ledger.Has(ledger.Service{Namespace: n.Namespace, Name: n.Name})
	})
	d.tell(v)
}

// driftRules are the newest rules.
func (s *sampler) driftRules() []drift.Rules {
	var all []drift.Rules
	for _, src := range s.sources {
		for _, f := range src.families() {
			if f.read && !f.away {
				all = append(all, drift.Rules{View: f.rules.View, Set: f.set, NFTablesMode: f.rules.NFTablesMode, Age: time.Since(f.at)})
			}
		}
	}
	return all
}

// maxDriftLines is how many drifts are logged at once.
const maxDriftLines = 20

// tell logs what has begun and ended.
func (d *driftWatch) tell(v *drift.Verdict) {
	lines := func(level slog.Level, what string, drifts []drift.Drift) {
		for i := range drifts[:min(len(drifts), maxDriftLines)] {
			d.log.Log(context.Background(), level, what, driftAttrs(&drifts[i])...)
		}
		if more := len(drifts) - maxDriftLines; more > 0 {
			d.log.Log(context.Background(), level, what+": more of them", "count", more)
		}
	}
	lines(slog.LevelWarn, "rules are not what the API wants", v.Began)
	lines(slog.LevelInfo, "rules are what the API wants again", v.Ended)
}

// driftAttrs are the attributes of a line.
func driftAttrs(d *drift.Drift) []any {
	attrs := []any{"kind", string(d.Kind), "family", d.Family.String()}
	if !d.OfNode() {
		attrs = append(attrs, "service", d.Port.String(), "protocol", string(d.Port.Protocol))
	}
	if d.Frontend != "" {
		attrs = append(attrs, "frontend", string(d.Frontend))
	}
	return append(attrs, "detail", d.Detail, "since", d.Since.UTC().Format(time.RFC3339))
}
