// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"slices"
	"sync/atomic"
	"time"

	"github.com/svcscope/svcscope/pkg/correlate"
)

// publishDrops adds what rules have refused, and what witnesses saw of it.
func (s *sampler) publishDrops(in *correlate.Inputs, now time.Time) {
	if s.tap.on {
		s.publishTap(in, now)
	}
	in.Drops, in.PolicyDrops, in.UnnamedDrops = s.drops.Totals(s.names.Exists), s.drops.Policies(), s.drops.Unnamed()
	s.tellLosses(in.PolicyDrops, now)
	switch {
	case s.since:
		s.noteLoggers()
		in.LogGroups = s.groups.once(s.dropInputs().loggers)
	case !s.groups.choice.none():
		s.noteLoggers()
		s.witnessed.Add(s.groups.events.take(), now)
		in.LogGroups = s.groups.states()
		in.Self.Collectors = append(in.Self.Collectors, s.groups.collector())
	}
	in.NoGroups = s.noGroups()
	if s.host.queues != nil {
		queues, err := s.host.queues()
		if err != nil {
			s.log.Debug("who decides on packets in user space is not known", "err", err)
		}
		in.Queues = queues
	}
	in.Witnessed = s.witnessed.Totals(s.names.Exists)
	if n := s.groups.undecoded() + s.tap.groups.undecoded(); n > 0 {
		in.Self.Undecoded["packet"] = n
	}
}

// noGroups is why there are no groups of NFLOG to be told of, where there are none.
func (s *sampler) noGroups() correlate.NoEvents {
	switch {
	case s.since:
		return correlate.NoEventsOneLook
	case s.groups.choice.none():
		return correlate.NoEventsDeclined
	case s.groups.choice.auto && s.readRules() != nil:
		return correlate.NoEventsUnread
	case s.groups.choice.auto && len(s.dropInputs().loggers) == 0:
		return correlate.NoEventsRule
	}
	return correlate.NoEventsNotRead // yet
}

// publishTap adds what the tap has counted.
func (s *sampler) publishTap(in *correlate.Inputs, now time.Time) {
	taken, state := s.tap.take()
	s.tap.totals.Add(taken.Flows, now)
	s.witnessed.Add(taken.Refused, now)
	s.drops.Tapped(taken.Drops, now)
	state.Totals = s.tap.totals.Totals(s.names.Exists)
	in.Tap = &state
	in.Self.Collectors = append(in.Self.Collectors, tapCollector(&state))
}

// tapInputs is what the tap is to count now. It may be called from any goroutine.
func (s *sampler) tapInputs() tapInputs {
	in := tapInputs{catalog: s.kube.catalog(), refusals: s.tap.refusals.ways.Load()}
	if snapshot := s.latest.Load(); snapshot != nil {
		in.rows = snapshot.Services
	}
	return in
}

// refusalWays are the ways by which packets are refused, of a version and names.
type refusalWays struct {
	ways    atomic.Pointer[[]correlate.TapRefusal]
	version uint64
	names   *correlate.Names
}

// noteRefusals publishes the ways by which packets are refused, where some have changed.
func (s *sampler) noteRefusals() {
	if !s.tap.on {
		return
	}
	r, version, natives := &s.tap.refusals, s.refusedVersion(), s.natives()
	for i := range natives {
		version += natives[i].View.Version
	}
	if old := r.ways.Load(); old != nil && r.version == version && s.names.SameServices(r.names) {
		return
	}
	var all []correlate.TapRefusal
	for _, src := range s.sources {
		for _, f := range src.families() {
			if f.read {
				all = append(all, correlate.TapRefusals(f.rules.View, &f.refused.rules, s.names)...)
			}
		}
	}
	for i := range natives {
		all = append(all, correlate.TapRefusals(natives[i].View, nil, s.names)...)
	}
	r.version, r.names = version, s.names
	r.ways.Store(&all)
}

// refusedVersion grows where a rule that refuses or logs packets may have changed.
func (s *sampler) refusedVersion() (version uint64) {
	for _, src := range s.sources {
		for _, f := range slices.Concat(src.families(), src.refusers()) {
			version += f.refused.version
		}
	}
	return version
}

// noteLoggers publishes the rules that log, where some have changed.
func (s *sampler) noteLoggers() {
	version := s.refusedVersion()
	if old := s.loggers.Load(); old != nil && s.loggersAt == version {
		return
	}
	var all []correlate.FamilyLogger
	for _, src := range s.sources {
		for _, f := range slices.Concat(src.families(), src.refusers()) {
			for l := range f.refused.rules.Loggers() {
				all = append(all, correlate.FamilyLogger{Family: f.set.Family, Logger: *l})
			}
		}
	}
	s.loggersAt = version
	s.loggers.Store(&all)
	select {
	case s.groups.look <- struct{}{}:
	default:
	}
}

// dropInputs is what logged packets are held against now. It may be called from any
// goroutine.
func (s *sampler) dropInputs() dropInputs {
	in := dropInputs{catalog: s.kube.catalog(), flows: s.flowInputs}
	in.pods, in.policies = s.kube.pods()
	if all := s.loggers.Load(); all != nil {
		in.loggers = *all
	}
	if snapshot := s.latest.Load(); snapshot != nil {
		in.rows, in.calico = snapshot.Services, calicoPresent(snapshot)
	}
	return in
}
