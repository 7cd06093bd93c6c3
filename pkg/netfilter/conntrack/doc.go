// SPDX-License-Identifier: Apache-2.0

// Package conntrack decodes the messages of ctnetlink (NFNL_SUBSYS_CTNETLINK,
// include/uapi/linux/netfilter/nfnetlink_conntrack.h): the statistics of
// connection tracking per CPU and as a whole, and the entries of the table. It
// is pure: bytes in, values out; pkg/kernel asks for the bytes.
//
// Statistics are 32 bits wide in the kernel, one set for each possible CPU
// and network namespace, and wrap; widening them is the reader's work.
// Attributes that this kernel does not send stay unknown, and attributes
// that this package does not know are left out.
//
//	s, err := conntrack.DecodeCPUStats(payload)
//	if n, ok := s.Get(conntrack.InsertFailed); ok { ... }
package conntrack
