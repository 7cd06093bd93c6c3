// SPDX-License-Identifier: Apache-2.0

// Package ledger keeps totals that only grow, from rule counters that reset.
//
// A kernel counter starts anew whenever its rule is rewritten, and an
// x_tables counter can read 0 for a moment without having been reset. The
// ledger gives each counter an identity, turns readings into deltas, splits
// the connections of a Service port by the way they came in, and adds them to
// totals of the Service, its endpoints and its refusals. No packet is counted
// twice, none is attributed to two ways, and a total never goes down.
//
//	l := ledger.New(500)
//	l.Know(ledger.Known{Ports: ports}, now)
//	outcome := l.Apply(reading, now) // the first is the baseline
//	for p := range l.Ports() { ... }
//
// The package is pure: it reads no clock and knows neither the kernel nor
// Kubernetes. A Ledger is not safe for concurrent use.
package ledger
