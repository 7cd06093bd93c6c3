// SPDX-License-Identifier: Apache-2.0

// Package metrics holds the catalogue of svcscope's metrics as data and the
// exposition of a correlate.Snapshot in its words. A scrape formats the newest
// snapshot: it never reads the kernel or the API.
//
// The catalogue is the only place that names a metric. What the Gatherer emits,
// docs/metrics.md and the tests all come from it, so a metric or label that is
// not in it cannot be exposed.
//
//	reg := metrics.NewRegistry(newest.Load, metrics.Config{Runtime: true})
//	http.Handle("/metrics", metrics.Handler(reg))
package metrics
