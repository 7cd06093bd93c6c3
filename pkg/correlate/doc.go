// SPDX-License-Identifier: Apache-2.0

// Package correlate joins what the kernel holds with what the API says.
// Build turns one set of inputs into a Snapshot, the value that metrics, HTTP
// and the command line format. It does no I/O and takes the time as an
// argument.
package correlate
