// SPDX-License-Identifier: Apache-2.0

// Package capture holds one reading of a node as one value: its rules with their
// counters, what the API wants, tallies of connection tracking. Node is what
// `svcscope explain` is made of; with the reports of the same moment it is a
// Snapshot, which `svcscope snapshot` writes and every command can read:
//
//	err := capture.Write(file, &capture.Snapshot{Node: node, Reports: reports})
//	s, err := capture.Read(file)
//
// Mask replaces the addresses in a Snapshot. docs/snapshot.md describes the file,
// whose structures are in the files of this package that begin with wire_: they
// change only with FormatVersion.
package capture
