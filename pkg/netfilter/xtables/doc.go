// SPDX-License-Identifier: Apache-2.0

// Package xtables decodes what the kernel's x_tables (iptables-legacy) answers
// to the socket options IPT_SO_GET_INFO and IPT_SO_GET_ENTRIES, for IPv4 and
// IPv6, and the matches and targets that iptables puts in rules. nf_tables
// carries the same matches and targets in its compat expressions, so
// DecodeMatch and DecodeTarget serve both.
//
//	info, err := xtables.DecodeInfo(infoBytes)
//	table, err := xtables.NewTable(netfilter.IPv4, info, entryBytes)
//	err = table.Walk(func(c *xtables.Chain) error {
//		if c.Digest == known[string(c.Name)] { // only its counters can be new
//			c.Counters(func(i int, n netfilter.Counter) { fmt.Println(i, n.Packets) })
//			return nil
//		}
//		if err := c.Check(); err != nil {
//			return err
//		}
//		for rule := range c.Rules() {
//			fmt.Println(rule.Counter().Packets, rule.Action().Kind)
//		}
//		return nil
//	})
//
// Tables reach tens of megabytes and are read again and again: a walk copies
// nothing, and gives each chain a digest by which those that are as before are
// known. Rules are views into the blob and decode their parts on demand. Layouts are those of 64-bit kernels, in the machine's
// byte order; a 32-bit process would get the kernel's compat layout, which is
// left out. Nothing here opens a socket.
package xtables
