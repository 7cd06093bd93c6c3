// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/collectors/version"
	dto "github.com/prometheus/client_model/go"

	"github.com/svcscope/svcscope/pkg/correlate"
)

// Config says what is exposed.
type Config struct {
	// Endpoints adds svcscope_service_endpoint_connections_total.
	Endpoints bool
	// Policies adds svcscope_policy_drop_packets_total.
	Policies bool
	// Runtime adds the agent's own go_* and process_* metrics.
	Runtime bool
	// Reads is the histogram of readings' durations; nil: none.
	Reads *ReadDurations
	// Programming is the histogram of how long changes take into the kernel; nil: none.
	Programming *ProgrammingDelays
}

// Registry is all that /metrics shows: the families of the newest snapshot and
// those of the agent's own process. It implements prometheus.Gatherer.
type Registry struct {
	process  *prometheus.Registry
	snapshot *Gatherer
}

// NewRegistry returns the registry of the snapshot that the function returns at
// each scrape; it may return nil while there is none.
func NewRegistry(snapshot func() *correlate.Snapshot, cfg Config) *Registry {
	r := &Registry{process: prometheus.NewRegistry(), snapshot: NewGatherer(snapshot, cfg)}
	r.process.MustRegister(version.NewCollector(strings.TrimSuffix(Prefix, "_")))
	if cfg.Reads != nil {
		r.process.MustRegister(cfg.Reads.vec)
	}
	if cfg.Programming != nil {
		r.process.MustRegister(cfg.Programming.vec)
	}
	if cfg.Runtime {
		r.process.MustRegister(
			collectors.NewGoCollector(),
			collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		)
	}
	return r
}

// Gather returns all families sorted by name. It may return families beside an
// error, which then concerns the agent's own process.
func (r *Registry) Gather() ([]*dto.MetricFamily, error) {
	// Not prometheus.Gatherers: it hashes every sample again to find
	// duplicates, and the two sets of names are disjoint.
	process, err := r.process.Gather()
	families, _ := r.snapshot.Gather()
	all := slices.Concat(process, families)
	slices.SortFunc(all, func(a, b *dto.MetricFamily) int { return strings.Compare(a.GetName(), b.GetName()) })
	return all, err
}
