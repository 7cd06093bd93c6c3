// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"runtime/debug"
	"slices"
	"sync/atomic"
	"time"

	"github.com/svcscope/svcscope/pkg/correlate"
	"github.com/svcscope/svcscope/pkg/kubeproxy"
	"github.com/svcscope/svcscope/pkg/ledger"
	"github.com/svcscope/svcscope/pkg/metrics"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/ruleset"
	"github.com/svcscope/svcscope/pkg/service"
)

const (
	// settleAfter is the time after which a value that fell is read again: a
	// writer of x_tables restores its counters well before.
	settleAfter = 100 * time.Millisecond
	// maxAgain bounds the readings that one pass adds to settle what the
	// first one leaves open. A value in doubt stays held for the next pass.
	maxAgain = 4
)

// sampler reads all sources and makes the snapshot. It is for one goroutine;
// others use latest and the health's atomics.
type sampler struct {
	cfg       Config
	host      host
	log       *slog.Logger
	kube      *kube
	ledger    *ledger.Ledger
	sources   []*ruleSource
	nft       *nftablesBackend
	conntrack *conntrack
	table     *collector        // of conntrack
	undecoded map[string]uint64 // since the start
	started   time.Time
	reads     *metrics.ReadDurations
	known     map[netfilter.Family]bool // see unread
	since     bool                      // totals are the rules' own counters
	// freeMemory gives the operating system what is free.
	freeMemory func()

	names    *correlate.Names // of the catalog below
	catalog  *service.Catalog
	builder  correlate.Builder
	latest   atomic.Pointer[correlate.Snapshot]
	lastPass atomic.Int64 // when the last pass ended, in nanoseconds since started
}

// ruleSource is a backend with its newest readings.
type ruleSource struct {
	backend
	collector
	rules     map[ledger.Source]*rulesOf
	undecoded map[string]uint64 // in the newest reading that was whole, or since
	outcome   ledger.Outcome
	tight     bool // a pending outcome had its second reading in this pass
}

// rulesOf is the newest reading of one backend and family.
type rulesOf struct {
	set   *ruleset.Ruleset
	rules correlate.Rules
	fresh bool // not given to the ledger yet
}

func newSampler(cfg Config, h host, k *kube) *sampler {
	log := cfg.logger()
	s := &sampler{
		cfg: cfg, host: h, log: log, kube: k,
		ledger:    ledger.New(cfg.MaxServices),
		nft:       &nftablesBackend{reader: reader[nftablesReader]{open: h.nftables}},
		conntrack: &conntrack{reader: reader[conntrackReader]{open: h.conntrack}},
		undecoded: make(map[string]uint64), known: make(map[netfilter.Family]bool), started: time.Now(),
		freeMemory: debug.FreeOSMemory, reads: metrics.NewReadDurations(),
	}
	named := func(name string) collector {
		return collector{
			log: log, netAdmin: h.netAdmin, reads: s.reads,
			CollectorState: correlate.CollectorState{Name: name, Err: errUnread.Error()},
		}
	}
	legacy := &legacyBackend{reader: reader[legacyReader]{open: h.legacy}}
	s.sources = []*ruleSource{
		{backend: s.nft, collector: named("nftables"), rules: make(map[ledger.Source]*rulesOf)},
		{backend: legacy, collector: named("legacy"), rules: make(map[ledger.Source]*rulesOf)},
	}
	table := named("conntrack")
	s.table = &table
	return s
}

// pass reads everything once and publishes the snapshot. Nothing that fails
// ends it but the end of ctx.
func (s *sampler) pass(ctx context.Context) {
	for _, src := range s.sources {
		src.tight = false
		s.read(ctx, src)
	}
	s.apply()
	for range maxAgain {
		again := s.open()
		if len(again) == 0 || ctx.Err() != nil {
			break
		}
		if slices.ContainsFunc(again, func(src *ruleSource) bool { return src.outcome.Suspect }) {
			wait(ctx, settleAfter)
		}
		for _, src := range again {
			src.tight = src.tight || !src.outcome.Suspect
			s.read(ctx, src)
		}
		s.apply()
	}
	begin := time.Now()
	table, err := s.conntrack.read(ctx)
	if ctx.Err() != nil {
		return
	}
	s.table.report(begin, time.Now(), err)
	s.publish(table)
	s.lastPass.Store(int64(time.Since(s.started)))
}

// read takes a new reading of one backend.
func (s *sampler) read(ctx context.Context, src *ruleSource) {
	begin := time.Now()
	sets, undecoded, err := src.backend.read(ctx)
	src.outcome = ledger.Outcome{}
	if ctx.Err() != nil {
		return // the agent is ending; the source is not at fault
	}
	for _, rs := range sets {
		src.rules[correlate.LedgerSource(rs.Backend, rs.Family)] = &rulesOf{set: rs, rules: correlate.NewRules(rs), fresh: true}
	}
	// What stands in the rules undecoded is counted once, not at each reading.
	for kind, n := range undecoded {
		if n > src.undecoded[kind] {
			s.undecoded[kind] += n - src.undecoded[kind]
		}
	}
	if err == nil {
		src.undecoded = undecoded
	} else {
		src.undecoded = larger(src.undecoded, undecoded) // it may not have seen all
	}
	src.collector.report(begin, time.Now(), err)
}

// larger returns the larger number of each kind.
func larger(a, b map[string]uint64) map[string]uint64 {
	out := make(map[string]uint64, len(a))
	maps.Copy(out, a)
	for kind, n := range b {
		out[kind] = max(out[kind], n)
	}
	return out
}

// apply gives the new readings to the ledger.
func (s *sampler) apply() {
	now := time.Now()
	var views []*kubeproxy.View
	for _, r := range s.sources[0].rules {
		views = append(views, r.rules.View)
	}
	s.nft.learn(views)
	s.rename(s.kube.catalog())
	s.ledger.Know(correlate.KnownPorts(s.rules(), s.names), now)
	for _, src := range s.sources {
		for _, r := range src.rules {
			if !r.fresh {
				continue
			}
			r.fresh = false
			o := s.ledger.Apply(correlate.Reading(r.set, r.rules.View, s.names), now)
			src.outcome.Suspect = src.outcome.Suspect || o.Suspect
			src.outcome.Pending = src.outcome.Pending || o.Pending
		}
	}
}

// rename makes the names of a catalog, unless they are those of now.
func (s *sampler) rename(c *service.Catalog) {
	if s.names == nil || s.catalog != c {
		s.catalog, s.names = c, correlate.NewNames(c, nil)
	}
	s.names = s.names.WithEndpoints(maps.Clone(s.nft.endpoints))
}

// open returns the backends whose last reading leaves something open that
// another one would settle.
func (s *sampler) open() []*ruleSource {
	var again []*ruleSource
	for _, src := range s.sources {
		if src.Success && (src.outcome.Suspect || src.outcome.Pending && !src.tight) {
			again = append(again, src)
		}
	}
	return again
}

// rules lists the newest readings in a fixed order.
func (s *sampler) rules() []correlate.Rules {
	var all []correlate.Rules
	for _, src := range s.sources {
		for _, b := range []ruleset.Backend{ruleset.NFT, ruleset.Legacy} {
			for _, f := range families() {
				if r := src.rules[correlate.LedgerSource(b, f)]; r != nil {
					all = append(all, r.rules)
				}
			}
		}
	}
	return all
}

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
			Undecoded: maps.Clone(s.undecoded), EventsLost: map[string]uint64{}, SeriesLimit: s.cfg.MaxServices, Started: s.started,
		},
	}
	for _, src := range s.sources {
		in.Changes = append(in.Changes, src.changes()...)
		in.Self.Collectors = append(in.Self.Collectors, src.CollectorState)
	}
	in.Self.Collectors = append(in.Self.Collectors, s.table.CollectorState)
	if state.enabled {
		in.Self.Collectors = append(in.Self.Collectors, correlate.CollectorState{
			Name: "kube", Success: state.current, Err: state.err, LastSuccess: state.last,
		})
	}
	s.latest.Store(s.builder.Build(in, time.Now()))
}

// unread lists the families whose rules are not known. One is known for good
// once a source that holds kube-proxy's rules has its baseline, or all have.
func (s *sampler) unread() []netfilter.Family {
	var unread []netfilter.Family
	for _, f := range families() {
		all, present := true, false
		for i, b := range []ruleset.Backend{ruleset.NFT, ruleset.Legacy} {
			key := correlate.LedgerSource(b, f)
			r := s.sources[i].rules[key]
			counted := r != nil && s.ledger.Baselined(key)
			all = all && counted
			present = present || counted && r.rules.View.Present
		}
		s.known[f] = s.known[f] || all || present
		if !s.known[f] {
			unread = append(unread, f)
		}
	}
	return unread
}

// readRules reports whether any backend of rules was read.
func (s *sampler) readRules() error {
	var errs []error
	for _, src := range s.sources {
		if !src.LastSuccess.IsZero() {
			return nil
		}
		errs = append(errs, errors.New(src.Err))
	}
	return errors.Join(errs...)
}

func (s *sampler) close() error {
	errs := []error{s.conntrack.close()}
	for _, src := range s.sources {
		errs = append(errs, src.backend.close())
	}
	return errors.Join(errs...)
}

// wait waits for d or the end of ctx.
func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
