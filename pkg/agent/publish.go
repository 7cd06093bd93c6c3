// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"maps"
	"time"

	"github.com/svcscope/svcscope/pkg/correlate"
	"github.com/svcscope/svcscope/pkg/kernel"
	"github.com/svcscope/svcscope/pkg/netfilter"
)

// publish makes the snapshot of what is known now.
func (s *sampler) publish(table *correlate.Conntrack) {
	state := s.kube.state()
	in := correlate.Inputs{
		NodeName: s.cfg.NodeName, Kernel: s.host.kernel,
		Kube: correlate.KubeState{
			Enabled: state.enabled, Synced: s.catalog != nil && s.catalog.Synced, NodeMissing: state.noNode, Err: state.err,
		},
		Names: s.names, Rules: s.rules(), Unread: s.unread(), IPVS: s.host.ipvs(),
		Ledger: s.ledger, SinceRule: s.since, Conntrack: table,
		Self: correlate.Self{
			Undecoded: maps.Clone(s.undecoded), EventsLost: map[string]uint64{"nftables": s.nft.notices.told()}, SeriesLimit: s.cfg.MaxServices, Started: s.started,
		},
	}
	in.Drift = s.drift.state
	s.publishDrops(&in, time.Now())
	s.exactness(&in)
	for _, src := range s.sources {
		if r := src.stats(); r != (kernel.ReadStats{}) {
			in.Self.Reads = append(in.Self.Reads, correlate.KernelReads{
				Collector: src.Name, Bytes: r.Bytes, Messages: r.Messages, Interrupted: r.Interrupted,
			})
		}
		in.Changes = append(in.Changes, src.changes()...)
		in.Self.Collectors = append(in.Self.Collectors, src.CollectorState)
	}
	in.Self.Collectors = append(append(in.Self.Collectors, s.accounts.states()...), s.table.CollectorState)
	if f := s.flows.latest.Load(); f != nil {
		s.publishFlows(&in, f)
	}
	if state.enabled {
		in.Self.Collectors = append(in.Self.Collectors, correlate.CollectorState{
			Name: "kube", Success: state.current, Err: state.err, LastSuccess: state.last,
		})
	}
	s.latest.Store(s.builder.Build(in, time.Now()))
}

// publishFlows adds what the last reading of the entries had.
func (s *sampler) publishFlows(in *correlate.Inputs, f *flowsState) {
	in.Flows = f.told(time.Now())
	in.Self.Collectors = append(in.Self.Collectors, f.collector)
	in.Self.Reads = append(in.Self.Reads, correlate.KernelReads{
		Collector: f.collector.Name, Bytes: f.stats.Bytes, Messages: f.stats.Messages, Interrupted: f.stats.Interrupted,
	})
	if f.undecoded > 0 {
		in.Self.Undecoded["flow"] = f.undecoded
	}
}

// unread lists the families whose rules are not known. One is known for good
// once a source that holds kube-proxy's rules has its baseline, or all have.
func (s *sampler) unread() []netfilter.Family {
	var unread []netfilter.Family
	for _, f := range families() {
		all, present := true, false
		for _, src := range s.sources {
			for _, r := range src.families() {
				if r.set.Family == f {
					counted := r.read && s.ledger.Baselined(r.source)
					all = all && counted
					present = present || counted && r.rules.View.Present
				}
			}
		}
		s.known[f] = s.known[f] || all || present
		if !s.known[f] {
			unread = append(unread, f)
		}
	}
	return unread
}
