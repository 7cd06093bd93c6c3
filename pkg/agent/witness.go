// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"time"

	"github.com/svcscope/svcscope/pkg/correlate"
)

// publishDrops adds what rules have refused, and what witnesses saw of it.
func (s *sampler) publishDrops(in *correlate.Inputs, now time.Time) {
	in.Drops, in.PolicyDrops = s.drops.Totals(s.names.Exists), s.drops.Policies()
	if s.groups.choice.none() {
		return
	}
	s.noteLoggers()
	s.witnessed.Add(s.groups.events.take(), now)
	in.Witnessed, in.LogGroups = s.witnessed.Totals(s.names.Exists), s.groups.states()
	in.Self.Collectors = append(in.Self.Collectors, s.groups.collector())
	if n := s.groups.undecoded(); n > 0 {
		in.Self.Undecoded["packet"] = n
	}
}

// noteLoggers publishes the rules that log, where some have changed.
func (s *sampler) noteLoggers() {
	var version uint64
	for _, src := range s.sources {
		for _, f := range src.families() {
			version += f.refused.version
		}
	}
	if old := s.loggers.Load(); old != nil && s.loggersAt == version {
		return
	}
	var all []correlate.FamilyLogger
	for _, src := range s.sources {
		for _, f := range src.families() {
			for l := range f.refused.rules.Loggers() {
				all = append(all, correlate.FamilyLogger{Family: f.set.Family, Logger: *l})
			}
		}
	}
	s.loggersAt = version
	s.loggers.Store(&all)
}

// dropInputs is what logged packets are held against now. It may be called from any
// goroutine.
func (s *sampler) dropInputs() dropInputs {
	in := dropInputs{catalog: s.kube.catalog(), flows: s.flowInputs}
	if all := s.loggers.Load(); all != nil {
		in.loggers = *all
	}
	if snapshot := s.latest.Load(); snapshot != nil {
		in.rows, in.calico = snapshot.Services, calicoPresent(snapshot)
	}
	return in
}
