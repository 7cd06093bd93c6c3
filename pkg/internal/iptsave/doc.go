// SPDX-License-Identifier: Apache-2.0

// Package iptsave reads and writes the text of iptables-save, for tests: rules
// can be written as text, and what was read from a kernel can be compared with
// what iptables-save says of it. It knows what kube-proxy and network plugins
// write; other conditions become ruleset.Unknown and other targets
// ruleset.OtherKind, both with their text, so that nothing is lost in print.
//
//	rs, err := iptsave.Parse(netfilter.IPv4, ruleset.Legacy, text)
//	fmt.Print(iptsave.Format(rs))
package iptsave
