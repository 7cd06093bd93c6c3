// SPDX-License-Identifier: Apache-2.0

// Package ruleset holds iptables rules in one shape, whichever backend they
// were read from: tables of chains of rules, each rule a list of matches, a
// counter and an action. XTables and FromNFTables convert; nothing here opens
// a a socket or knows Kubernetes.
package ruleset
