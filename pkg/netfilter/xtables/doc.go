// SPDX-License-Identifier: Apache-2.0

// Package xtables decodes what the kernel's x_tables (iptables-legacy) answers
// to the socket options IPT_SO_GET_INFO and IPT_SO_GET_ENTRIES, for IPv4 and
// IPv6, and the matches and targets that iptables puts in rules. nf_tables
// carries the same matches and targets in its compat expressions, so
// DecodeMatch and DecodeTarget serve both.
//
//	info, err := xtables.DecodeInfo(infoBytes)
//	table, err := xtables.Decode(netfilter.IPv4, info, entryBytes)
//	for i := range table.Chains {
//		for rule := range table.Chains[i].Rules() {
//			fmt.Println(rule.Counter().Packets, rule.Action().Kind)
//		}
//	}
//
// Tables reach tens of megabytes, so Decode checks the whole blob once and
// copies nothing but chain names: rules are views into the blob and decode
// their parts on demand. Layouts are those of 64-bit kernels, in the machine's
// byte order; a 32-bit process would get the kernel's compat layout, which is
// left out. Nothing here opens a socket.
package xtables
