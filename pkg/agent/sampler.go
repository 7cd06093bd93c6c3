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
	"github.com/svcscope/svcscope/pkg/drift"
	"github.com/svcscope/svcscope/pkg/ledger"
	"github.com/svcscope/svcscope/pkg/metrics"
	"github.com/svcscope/svcscope/pkg/netfilter"
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
	drops     *correlate.Drops
	accounts  accountReader
	groups    *logGroups
	devices   devices
	witnessed *correlate.Witnessed
	tap       *tapper
	losses    *correlate.PodLosses // nil without --kube.events
	masks     masks
	// loggers are the rules that log, of the version loggersAt.
	loggers   atomic.Pointer[[]correlate.FamilyLogger]
	loggersAt uint64
	sources   []*ruleSource
	conntrack *sizes
	table     *collector // of conntrack
	flows     *flowReader
	undecoded map[string]uint64 // since the start
	started   time.Time
	reads     *metrics.ReadDurations
	known     map[netfilter.Family]bool // see unread
	since     bool                      // totals are the rules' own counters
	// freeMemory gives the operating system what is free.
	freeMemory func()

	names   *correlate.Names // of the catalog below
	catalog *service.Catalog
	builder correlate.Builder
	// What the ledger was told of the Services, and when.
	told        time.Time
	toldNames   *correlate.Names
	toldVersion uint64

	nft               *nftablesBackend
	nftables, xtables *ruleSource // of nft and legacy
	legacy            *legacyBackend
	lockErr           string // why the lock file is not watched, as logged
	gate              gate
	deaf              string // why changes of rules cannot be listened to, as logged
	blinds            []correlate.BlindTime
	drift             *driftWatch
	programming       programming
	history           history
	latest            atomic.Pointer[correlate.Snapshot]
	lastPass          atomic.Int64 // when the last pass ended, in nanoseconds since started
}

// ruleSource is a backend with its newest readings.
type ruleSource struct {
	backend
	collector
	undecoded map[string]uint64 // in the newest reading that was whole, or since
	outcome   ledger.Outcome
	tight     bool          // a pending outcome had its second reading in this pass
	watched   watched       // what the API has announced to change
	cost      time.Duration // of a look at one of these
	rest      time.Time     // until then there is none
}

func newSampler(cfg Config, h host, k *kube) *sampler {
	log := cfg.logger()
	s := &sampler{
		cfg: cfg, host: h, log: log, kube: k,
		ledger:    ledger.New(cfg.MaxServices),
		conntrack: &sizes{reader: reader[conntrackReader]{open: h.conntrack}, interval: cfg.Interval},
		undecoded: make(map[string]uint64), known: make(map[netfilter.Family]bool), started: time.Now(),
		freeMemory: debug.FreeOSMemory, reads: metrics.NewReadDurations(),
	}
	own := func(n service.Name) bool { return s.ledger.Has(ledger.Service{Namespace: n.Namespace, Name: n.Name}) }
	s.drops, s.witnessed = correlate.NewDrops(own), correlate.NewWitnessed(own)
	groups, _ := parseGroups(cfg.NFLOGGroup) // which Validate has refused where it is wrong
	s.groups = newLogGroups(groups, h, log)
	s.tap = newTapper(cfg, h, log, s.groups.events)
	s.tap.totals = correlate.NewTapped(own)
	s.watchLosses()
	named := func(name string) collector {
		return collector{
			log: log, netAdmin: h.netAdmin, reads: s.reads,
			CollectorState: correlate.CollectorState{Name: name, Err: errUnread.Error()},
		}
	}
	s.nft = newNFTablesBackend(h.nftables, h.notices)
	s.legacy = newLegacyBackend(h.legacy)
	s.legacy.lock.path, s.legacy.lock.watch = cfg.LockFile, h.lock
	s.gate.max, s.nft.limit, s.nft.log = cfg.MaxRules, cfg.MaxRules, log
	s.accounts = accountReader{reader: reader[nfacctReader]{open: h.nfacct}, collector: named("nfacct")}
	s.drift = newDriftWatch(cfg.DriftGrace, log)
	s.programming = programming{
		delays: metrics.NewProgrammingDelays(), waiting: make(map[drift.PortFamily]*unprogrammed), brought: make(map[ledger.Source]drift.Commit),
	}
	s.xtables = &ruleSource{backend: s.legacy, collector: named("legacy"), watched: newWatched()}
	s.nftables = &ruleSource{backend: s.nft, collector: named("nftables"), watched: newWatched()}
	s.sources = []*ruleSource{s.nftables, s.xtables}
	for _, src := range s.sources {
		for _, f := range src.families() {
			f.history = &s.history
		}
	}
	table := named("conntrack")
	s.table = &table
	s.flows = &flowReader{
		interval: cfg.ConntrackInterval, reader: reader[conntrackReader]{open: h.conntrack},
		table: named("conntrack_entries"), counter: correlate.FlowCounter{Grace: correlate.StaleGrace},
	}
	return s
}

// pass reads everything once and publishes the snapshot. Nothing that fails
// ends it but the end of ctx.
func (s *sampler) pass(ctx context.Context) {
	s.watchLock(time.Now())
	for _, src := range s.sources {
		src.tight = false
		s.read(ctx, src)
	}
	s.readAccounts(ctx)
	s.apply(ctx)
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
		s.apply(ctx)
	}
	if s.listen(time.Now()) {
		s.read(ctx, s.nftables)
		s.apply(ctx)
	}
	begin := time.Now()
	table, err := s.conntrack.read(ctx, s.flows.crowded(begin))
	if ctx.Err() != nil {
		return
	}
	s.judge(begin)
	s.table.report(begin, time.Now(), err)
	s.publish(table)
	s.lastPass.Store(int64(time.Since(s.started)))
}

// read takes a new reading of one backend.
func (s *sampler) read(ctx context.Context, src *ruleSource) {
	s.settle(ctx)
	begin := time.Now()
	undecoded, err := src.backend.read(ctx)
	src.outcome = ledger.Outcome{}
	if ctx.Err() != nil {
		return // the agent is ending; the source is not at fault
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
func (s *sampler) apply(ctx context.Context) {
	now := time.Now()
	s.rename(s.kube.catalog())
	s.namePods()
	s.know(now)
	for _, src := range s.sources {
		s.tell(ctx, src, now)
	}
}

// tell gives the ledger the newest readings of one source, and first what
// happened before them.
func (s *sampler) tell(ctx context.Context, src *ruleSource, now time.Time) {
	if !slices.ContainsFunc(src.families(), func(f *familyRules) bool { return f.fresh && !f.away }) {
		return
	}
	listening, err := src.backend.tell(ctx, s.names, s.commit(now))
	if err != nil && ctx.Err() == nil {
		s.log.Warn("changes of rules were missed: what they counted to their end is lost", "source", src.Name, "err", err)
	}
	for _, f := range src.families() {
		if !f.fresh || f.away {
			continue
		}
		if f.waits() {
			src.outcome.Suspect = true
			s.blind(src, f, s.tellDrops(src, f, listening, now).Replaced)
			continue
		}
		f.whole = f.whole || !s.ledger.Baselined(f.source)
		r := f.reading(s.names)
		r.Listening = listening
		o := s.ledger.Apply(r, now)
		f.doubted, f.pending = o.Suspect, o.Pending
		if o.Suspect || o.Pending {
			f.repeat()
		}
		src.outcome.Suspect = src.outcome.Suspect || o.Suspect
		src.outcome.Pending = src.outcome.Pending || o.Pending
		// Which Services have totals of their own is known now.
		s.blind(src, f, s.tellDrops(src, f, listening, now).Replaced, o.Replaced)
		maps.Copy(f.seen, f.sight)
		clear(f.sight)
	}
	s.tellRefusers(src, listening, now)
	s.noteRefusals()
}

// rename makes the names of a catalog, unless they are those of now.
func (s *sampler) rename(c *service.Catalog) {
	if s.names != nil && s.catalog == c {
		return
	}
	s.catalog, s.names = c, s.names.Next(c)
	for _, src := range s.sources {
		for _, f := range src.families() {
			f.rename()
		}
	}
}

// knowEvery is how often the ledger is told which Services exist although
// nothing changed: it forgets what is gone after a time.
const knowEvery = time.Minute

// know tells the ledger which Services exist, where that may have changed.
func (s *sampler) know(now time.Time) {
	var version uint64
	for _, r := range s.rules() {
		version += r.View.Version
	}
	same := s.names.SameServices(s.toldNames) && (s.catalog != nil && s.catalog.Synced || s.toldVersion == version)
	if same && now.Sub(s.told) < knowEvery {
		return
	}
	s.told, s.toldNames, s.toldVersion = now, s.names, version
	s.ledger.Know(correlate.KnownPorts(s.rules(), s.names), now)
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
		for _, f := range src.families() {
			if f.read {
				all = append(all, f.rules)
			}
		}
	}
	return append(all, s.natives()...)
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
	errs := []error{s.conntrack.close(), s.flows.close(), s.accounts.close()}
	for _, src := range s.sources {
		errs = append(errs, src.backend.close())
	}
	return errors.Join(errs...)
}
