// SPDX-License-Identifier: Apache-2.0

// Package capture holds one reading of a node as one value: its rules with their
// counters, what the API wants, tallies of connection tracking. Node is what
// `svcscope explain` is made of and what `svcscope snapshot` writes.
package capture
