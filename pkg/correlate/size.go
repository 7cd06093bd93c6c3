// SPDX-License-Identifier: Apache-2.0

package correlate

import (
	"github.com/svcscope/svcscope/pkg/kubeproxy"
	"github.com/svcscope/svcscope/pkg/policy"
	"github.com/svcscope/svcscope/pkg/ruleset"
)

// Sizes counts the rules and chains of each table of rs by owner.
func Sizes(rs *ruleset.Ruleset) []TableSize {
	counts := policy.CountByOwner(rs)
	out := make([]TableSize, 0, len(counts))
	for _, c := range counts {
		s := TableSize{
			Backend: rs.Backend, Family: rs.Family, Table: c.Table, Owner: c.Owner, Rules: c.Rules, Chains: c.Chains,
		}
		if rs.Backend == ruleset.NFT && c.Table == kubeproxy.NativeTable {
			s.Backend = kubeproxy.Native
		}
		out = append(out, s)
	}
	return out
}

// NewNativeRules makes what Build takes of a reading in which kube-proxy's nftables mode
// has a table, beside NewRules.
func NewNativeRules(rs *ruleset.Ruleset) Rules {
	return Rules{View: kubeproxy.NewNativeView(rs), NFTablesMode: true}
}

// NewRules makes what Build takes of a reading.
func NewRules(rs *ruleset.Ruleset) Rules {
	r := Rules{View: kubeproxy.NewView(rs)}
	r.Resize(rs)
	return r
}

// Resize counts the rules again.
func (r *Rules) Resize(rs *ruleset.Ruleset) {
	r.Sizes = Sizes(rs)
	r.NFTablesMode = rs.Backend == ruleset.NFT && rs.Table(kubeproxy.NativeTable) != nil
}
