// SPDX-License-Identifier: Apache-2.0

// Package rules makes the Prometheus rule files: recording rules and alerts on
// the agent's metrics, as plain files and in the form that the chart fills
// with the values' thresholds.
//
// What the rules rely on:
//
//   - Targets may have the labels cluster and node, or not. Nothing is summed
//     over nodes without keeping cluster; what is told of a node keeps cluster,
//     node, job and instance.
//   - No expression names a job but that of SvcscopeDown: a target that cannot
//     be scraped has no metric to know it by.
//   - Alerts read recording rules; the two files are loaded together.
//
// Runbooks are in docs/runbooks.md; the tests for promtool are in
// dashboards/rules/tests.
package rules
