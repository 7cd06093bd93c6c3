// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const readDuration = "svcscope_collector_read_duration_seconds"

// ReadDurations is svcscope_collector_read_duration_seconds: what readings of
// the kernel took, as a classic histogram in the text formats and as a native
// one too in protobuf. It is the one metric that no snapshot carries, as a
// snapshot has the last reading alone. It is safe for concurrent use.
type ReadDurations struct{ vec *prometheus.HistogramVec }

// NewReadDurations returns the histogram, for Config.Reads and for whoever
// reads the kernel.
func NewReadDurations() *ReadDurations {
	var help string
	for _, m := range costMetrics() {
		if m.Name == readDuration {
			help = m.Help
		}
	}
	return &ReadDurations{vec: prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: readDuration, Help: help,
		// From one cheap call to a dump of a large conntrack table.
		Buckets:                        []float64{.0001, .0005, .001, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 10},
		NativeHistogramBucketFactor:    1.1,
		NativeHistogramMaxBucketNumber: 100,
		// A node whose rules shrink gets its narrow buckets back.
		NativeHistogramMinResetDuration: time.Hour,
	}, []string{"collector"})}
}

// Observe adds a reading of the collector. A nil *ReadDurations takes nothing,
// so that one reading without an agent needs none.
func (d *ReadDurations) Observe(collector string, took time.Duration) {
	if d != nil {
		d.vec.WithLabelValues(collector).Observe(took.Seconds())
	}
}
