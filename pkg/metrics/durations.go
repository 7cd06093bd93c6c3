// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/svcscope/svcscope/pkg/netfilter"
)

const readDuration = "svcscope_collector_read_duration_seconds"

// ReadDurations is svcscope_collector_read_duration_seconds: what readings of
// the kernel took, as a classic histogram in the text formats and as a native
// one too in protobuf. Like ProgrammingDelays no snapshot carries it, as a
// snapshot has the last reading alone. It is safe for concurrent use.
type ReadDurations struct{ vec *prometheus.HistogramVec }

// NewReadDurations returns the histogram, for Config.Reads and for whoever
// reads the kernel.
func NewReadDurations() *ReadDurations {
	return &ReadDurations{vec: newHistogram(costMetrics(), readDuration,
		// From one cheap call to a dump of a large conntrack table.
		.0001, .0005, .001, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 10)}
}

// Observe adds a reading of the collector. A nil *ReadDurations takes nothing,
// so that one reading without an agent needs none.
func (d *ReadDurations) Observe(collector string, took time.Duration) {
	if d != nil {
		d.vec.WithLabelValues(collector).Observe(took.Seconds())
	}
}

const programmingDelay = "svcscope_programming_delay_seconds"

// ProgrammingDelays is svcscope_programming_delay_seconds. It is safe for concurrent use.
type ProgrammingDelays struct{ vec *prometheus.HistogramVec }

// NewProgrammingDelays returns the histogram, for Config.Programming and for whoever
// measures.
func NewProgrammingDelays() *ProgrammingDelays {
	return &ProgrammingDelays{vec: newHistogram(driftMetrics(), programmingDelay,
		// From a kube-proxy that syncs at once to one that takes minutes for all rules.
		.05, .1, .25, .5, 1, 2, 5, 10, 20, 30, 60, 120, 300)}
}

// Observe adds a change that was in the kernel after a time.
func (d *ProgrammingDelays) Observe(f netfilter.Family, after time.Duration) {
	d.vec.WithLabelValues(familyValue(f)).Observe(after.Seconds())
}

// newHistogram makes the metric of that name with one label, a classic histogram with these
// buckets and a native one.
func newHistogram(of []Metric, name string, buckets ...float64) *prometheus.HistogramVec {
	at := slices.IndexFunc(of, func(m Metric) bool { return m.Name == name })
	return prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: name, Help: of[at].Help, Buckets: buckets,
		NativeHistogramBucketFactor:    1.1,
		NativeHistogramMaxBucketNumber: 100,
		// A node whose rules shrink gets its narrow buckets back.
		NativeHistogramMinResetDuration: time.Hour,
	}, of[at].LabelNames())
}
