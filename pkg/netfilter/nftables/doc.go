// SPDX-License-Identifier: Apache-2.0

// Package nftables decodes the messages of nf_tables, the kernel interface
// that iptables-nft and nft write through (NFNL_SUBSYS_NFTABLES,
// include/uapi/linux/netfilter/nf_tables.h): tables, chains, rules with their
// expressions, sets, set elements and the generation; and makes those that a table of
// counters takes. It is pure: bytes in, values out, and back. pkg/kernel asks for the bytes, pkg/ruleset gives rules meaning.
//
// Each Decode function takes the payload of one netlink message (struct
// nfgenmsg and attributes) and returns a value or an error, never both, and
// never panics. Names are copied; byte slices in the values (the data of
// compares, immediates, compat matches and targets, and opaque expressions)
// share the payload's memory, so a caller that reuses its buffer copies the
// payload first.
//
// What is not known is kept: an expression of an unknown name, or a known
// one with an attribute that this package does not know, becomes an Opaque
// with its bytes. A known expression whose bytes are damaged fails its rule.
//
//	rule, err := nftables.DecodeRule(payload)
//	for _, e := range rule.Exprs {
//		if c, ok := e.(nftables.Counter); ok { ... }
//	}
package nftables
