// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	dto "github.com/prometheus/client_model/go"

	"github.com/svcscope/svcscope/pkg/correlate"
)

// Gatherer formats the newest snapshot as metric families. It implements
// prometheus.Gatherer and is safe for concurrent use.
//
// It makes the families itself, rather than const metrics for a Registry: label
// pairs live as long as their series, samples as long as their values, so that
// a scrape of many Services allocates for what changed only.
type Gatherer struct {
	snapshot func() *correlate.Snapshot
	defs     map[string]*def

	mu       sync.Mutex
	last     *correlate.Snapshot // what ready shows
	ready    []*dto.MetricFamily // immutable once built; nil before the first build
	services *serviceSeries
	policies bool            // svcscope_policy_drop_packets_total too
	kinds    map[string]bool // the values of undecoded_total's kind, at most maxKinds
}

// NewGatherer returns a Gatherer of the snapshot that the function returns at
// each scrape; it may return nil while there is none.
func NewGatherer(snapshot func() *correlate.Snapshot, cfg Config) *Gatherer {
	defs := make(map[string]*def)
	for _, m := range Metrics() {
		defs[m.Name] = newDef(m)
	}
	return &Gatherer{
		snapshot: snapshot,
		defs:     defs,
		services: newServiceSeries(defs, cfg.Endpoints),
		policies: cfg.Policies,
		kinds:    make(map[string]bool),
	}
}

// Gather returns the families of the newest snapshot sorted by name. The error
// is always nil. The families are shared between scrapes: do not write.
func (g *Gatherer) Gather() ([]*dto.MetricFamily, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	// Inside the lock, or a slow scrape would go back to an older snapshot.
	if s := g.snapshot(); g.ready == nil || s != g.last {
		g.ready, g.last = g.build(s), s
	}
	return g.ready, nil
}

func (g *Gatherer) build(s *correlate.Snapshot) []*dto.MetricFamily {
	b := &builder{defs: g.defs, families: make(map[string]*dto.MetricFamily, len(g.defs))}
	if s == nil {
		b.gauge("svcscope_kube_synced", 0)
		return b.sorted()
	}
	g.services.build(b, s)
	buildNode(b, s)
	buildRules(b, s)
	buildDrift(b, s)
	buildConntrack(b, s.Conntrack)
	buildFlows(b, s.Flows)
	g.buildDrops(b, s)
	buildExactness(b, s)
	buildSelf(b, s)
	g.buildUndecoded(b, s)
	return b.sorted()
}

func (g *Gatherer) buildDrops(b *builder, s *correlate.Snapshot) {
	for _, d := range s.Drops {
		b.counter("svcscope_drop_packets_total", d.Packets, d.Created, d.Reason, d.Hook, d.Owner, d.Service.Namespace, d.Service.Name)
	}
	for _, d := range s.Witnessed {
		b.counter("svcscope_drop_witnessed_packets_total", d.Packets, d.Created, string(d.Source), d.Reason, d.Service.Namespace, d.Service.Name)
	}
	for i := range s.LogGroups {
		buildLogGroup(b, &s.LogGroups[i])
	}
	buildTap(b, s.Tap)
	if !g.policies {
		return
	}
	b.counter("svcscope_policy_drop_unnamed_packets_total", s.UnnamedDrops, s.Self.Started)
	for _, d := range s.PolicyDrops {
		b.counter("svcscope_policy_drop_packets_total", d.Packets, d.Created,
			string(d.Direction), d.Policy.Namespace, d.Policy.Name, d.Pod.Namespace, d.Pod.Name, d.Owner)
	}
}

// buildTap adds what the agent's own table has counted. Its group of NFLOG is the last of the groups.
func buildTap(b *builder, t *correlate.Tap) {
	if t == nil {
		return
	}
	for i := range t.Totals {
		n := &t.Totals[i]
		add := func(via string, f correlate.TapFlows) {
			labels := []string{n.Port.Namespace, n.Port.Name.Name, n.Port.Port, string(n.Port.Protocol), familyValue(n.Family), via}
			b.counter("svcscope_service_attempts_total", f.Attempts, n.Created, labels...)
			b.counter("svcscope_service_translated_attempts_total", f.Translated, n.Created, labels...)
		}
		add(viaCluster, n.Cluster)
		if n.External != (correlate.TapFlows{}) {
			add(viaExternal, n.External)
		}
	}
	if t.Log != (correlate.LogGroup{}) {
		buildLogGroup(b, &t.Log)
	}
}

// buildLogGroup tells of one group of NFLOG.
func buildLogGroup(b *builder, l *correlate.LogGroup) {
	group := strconv.Itoa(int(l.Group))
	b.gauge("svcscope_nflog_group_state", 1, group, string(l.State))
	if !l.Passed {
		b.gauge("svcscope_nflog_group_bound", boolean(l.Read()), group)
	}
	if !l.Created.IsZero() {
		b.counter("svcscope_nflog_packets_total", l.Packets, l.Created, group)
		b.counter("svcscope_nflog_lost_packets_total", l.Lost, l.Created, group)
	}
}

func buildNode(b *builder, s *correlate.Snapshot) {
	n := s.Node
	b.gauge("svcscope_node_info", 1, n.Name, n.ProxyMode, n.Backend, n.Kernel)
	b.gauge("svcscope_kube_synced", boolean(s.Kube.Synced))
	b.gauge("svcscope_snapshot_timestamp_seconds", unixSeconds(s.Time))
	for _, c := range s.Counting {
		b.gauge("svcscope_counting_method", 1, c.What, c.Method)
	}
}

func buildRules(b *builder, s *correlate.Snapshot) {
	for _, t := range s.Tables {
		b.gauge("svcscope_rules", float64(t.Rules), string(t.Backend), familyValue(t.Family), t.Table, t.Owner)
		b.gauge("svcscope_chains", float64(t.Chains), string(t.Backend), familyValue(t.Family), t.Table, t.Owner)
	}
	for _, d := range s.Dispatch {
		b.gauge("svcscope_dispatch_rules", float64(d.Rules), string(d.Backend), familyValue(d.Family))
	}
	newest := make(map[string]time.Time)
	for _, c := range s.Changes {
		writer := c.Writer
		if writer == "" {
			writer = "unknown"
		}
		b.counter("svcscope_ruleset_changes_total", c.Total, c.Created, string(c.Backend), familyValue(c.Family), writer)
		if c.Last.After(newest[string(c.Backend)]) {
			newest[string(c.Backend)] = c.Last
		}
	}
	for _, backend := range slices.Sorted(maps.Keys(newest)) {
		b.gauge("svcscope_ruleset_last_change_timestamp_seconds", unixSeconds(newest[backend]), backend)
	}
}

func buildFlows(b *builder, f *correlate.Flows) {
	if f == nil {
		return
	}
	for _, s := range f.States {
		b.gauge("svcscope_conntrack_entries_by_state", float64(s.Entries), s.Protocol, s.State)
	}
	for o, n := range f.Owners {
		b.gauge("svcscope_conntrack_entries_by_owner", float64(n), correlate.Owner(o).String())
	}
	worst := 0.0
	if len(f.Ports) > 0 {
		worst = f.Ports[0].Pressure()
	}
	b.gauge("svcscope_conntrack_port_pressure_ratio", worst)
	if f.Interval > 0 {
		b.gauge("svcscope_conntrack_dump_interval_seconds", f.Interval.Seconds())
	}
}

func buildConntrack(b *builder, c *correlate.Conntrack) {
	if c == nil {
		return
	}
	b.gauge("svcscope_conntrack_entries", float64(c.Entries))
	b.gauge("svcscope_conntrack_entries_peak", float64(c.Peak))
	b.gauge("svcscope_conntrack_entries_limit", float64(c.Limit))
	b.gauge("svcscope_conntrack_buckets", float64(c.Buckets))
	if c.Filling {
		b.gauge("svcscope_conntrack_time_to_full_seconds", c.TimeToFull.Seconds())
	}
	if !c.LossesSince.IsZero() {
		for cause, n := range c.Losses {
			b.counter("svcscope_conntrack_losses_total", n, c.LossesSince, correlate.LossCause(cause).String())
		}
	}
	for _, stat := range []struct {
		name  string
		value *uint64
	}{
		{"svcscope_conntrack_found_total", c.Stats.Found},
		{"svcscope_conntrack_invalid_total", c.Stats.Invalid},
		{"svcscope_conntrack_insert_failed_total", c.Stats.InsertFailed},
		{"svcscope_conntrack_drop_total", c.Stats.Drop},
		{"svcscope_conntrack_early_drop_total", c.Stats.EarlyDrop},
		{"svcscope_conntrack_error_total", c.Stats.Error},
		{"svcscope_conntrack_search_restart_total", c.Stats.SearchRestart},
		{"svcscope_conntrack_clash_resolve_total", c.Stats.ClashResolve},
		{"svcscope_conntrack_chain_toolong_total", c.Stats.ChainTooLong},
	} {
		if stat.value != nil {
			// The kernel counts since the namespace was made, a time that it does not tell.
			b.counter(stat.name, *stat.value, time.Time{})
		}
	}
}

func buildExactness(b *builder, s *correlate.Snapshot) {
	for _, e := range s.Exact {
		b.gauge("svcscope_ledger_exact", boolean(e.Exact), string(e.Backend), familyValue(e.Family))
	}
	for _, t := range s.Blind {
		b.seconds("svcscope_counter_blind_seconds_total", t.Total, t.Created, string(t.Backend), familyValue(t.Family), t.Table)
	}
	if s.Lock != nil {
		b.seconds("svcscope_xtables_lock_open_seconds_total", s.Lock.Open, s.Lock.Created)
	}
}

func buildSelf(b *builder, s *correlate.Snapshot) {
	for _, c := range s.Self.Collectors {
		b.gauge("svcscope_collector_success", boolean(c.Success), c.Name)
		if c.Duration > 0 {
			b.gauge("svcscope_collector_duration_seconds", c.Duration.Seconds(), c.Name)
		}
		if !c.LastSuccess.IsZero() {
			b.gauge("svcscope_collector_last_success_timestamp_seconds", unixSeconds(c.LastSuccess), c.Name)
		}
	}
	for _, r := range s.Self.Reads {
		b.counter("svcscope_kernel_read_bytes_total", r.Bytes, s.Self.Started, r.Collector)
		b.counter("svcscope_kernel_messages_total", r.Messages, s.Self.Started, r.Collector)
		b.counter("svcscope_kernel_reads_interrupted_total", r.Interrupted, s.Self.Started, r.Collector)
	}
	for _, source := range slices.Sorted(maps.Keys(s.Self.EventsLost)) {
		b.counter("svcscope_events_lost_total", s.Self.EventsLost[source], s.Self.Started, source)
	}
	b.gauge("svcscope_series_limit", float64(s.Self.SeriesLimit))
	b.counter("svcscope_series_dropped_total", s.Self.SeriesDropped, s.Self.Started)
}

// buildUndecoded bounds the kinds. A kind that has its series keeps it, so
// that neither its total nor that of the rest ever falls.
func (g *Gatherer) buildUndecoded(b *builder, s *correlate.Snapshot) {
	var rest uint64
	more := false
	for _, kind := range slices.Sorted(maps.Keys(s.Self.Undecoded)) {
		if kind != kindOther && !g.kinds[kind] && len(g.kinds) < maxKinds {
			g.kinds[kind] = true
		}
		if !g.kinds[kind] {
			more = true
			rest += s.Self.Undecoded[kind]
			continue
		}
		b.counter("svcscope_undecoded_total", s.Self.Undecoded[kind], s.Self.Started, kind)
	}
	if more {
		b.counter("svcscope_undecoded_total", rest, s.Self.Started, kindOther)
	}
}
