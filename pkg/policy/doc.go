// SPDX-License-Identifier: Apache-2.0

// Package policy knows who writes which chains on a node: kube-proxy, kubelet
// and the network plugins and other tools that put rules beside theirs. Owner
// tells by a chain's name, CountByOwner sums a ruleset up:
//
//	for _, s := range policy.CountByOwner(rs) {
//		fmt.Println(s.Table, s.Owner, s.Rules, s.Chains)
//	}
package policy
