// SPDX-License-Identifier: Apache-2.0

package nodediff

import (
	"fmt"
	"slices"
	"strings"

	"github.com/svcscope/svcscope/pkg/drift"
	"github.com/svcscope/svcscope/pkg/netfilter"
)

// gaps are what could not be compared: rules of Services where kube-proxy works in a
// mode whose rules are not understood, and rules that could not be read.
func (c *comparison) gaps() []Gap {
	var out []Gap
	for _, f := range ipFamilies() {
		var why []string
		for _, s := range []*side{c.a, c.b} {
			if mode := s.otherMode(f); mode != "" {
				why = append(why, fmt.Sprintf("kube-proxy works in %s mode on %s", mode, s.node.Name))
			}
		}
		if len(why) > 0 {
			out = append(out, Gap{"rules of Services, " + f.String(), strings.Join(slices.Compact(why), ", ")})
		}
	}
	for _, b := range backends() {
		for _, s := range []*side{c.a, c.b} {
			if why := s.node.Unread[b]; why != "" {
				out = append(out, Gap{fmt.Sprintf("%s rules of %s", b, s.node.Name), "not read: " + why})
			}
		}
	}
	return slices.Compact(out) // of two readings of one node
}

// otherMode is the mode in which kube-proxy works in a family where that is not the
// iptables mode; empty where it is, or there is none.
func (s *side) otherMode(f netfilter.Family) string {
	native := func(r drift.Rules) bool { return r.Set.Family == f && r.NFTablesMode }
	switch {
	case slices.ContainsFunc(s.rules, native):
		return "nftables"
	case s.node.IPVS && !s.balances():
		return "IPVS"
	}
	return ""
}
