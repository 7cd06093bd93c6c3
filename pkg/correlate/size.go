// SPDX-License-Identifier: Apache-2.0

package correlate

import (
	"github.com/svcscope/svcscope/pkg/kubeproxy"
	"github.com/svcscope/svcscope/pkg/policy"
	"github.com/svcscope/svcscope/pkg/ruleset"
)

// NativeTable is the table of kube-proxy's nftables mode, in the families ip
// and ip6 (kubeProxyTable in pkg/proxy/nftables/proxier.go).
const NativeTable = "kube-proxy"

// nativeBackend is how the metrics call that mode's tables.
const nativeBackend ruleset.Backend = "nftables"

// Sizes counts the rules and chains of each table of rs by owner.
func Sizes(rs *ruleset.Ruleset) []TableSize {
	counts := policy.CountByOwner(rs)
	out := make([]TableSize, 0, len(counts))
	for _, c := range counts {
		s := TableSize{
			Backend: rs.Backend, Family: rs.Family, Table: c.Table, Owner: c.Owner, Rules: c.Rules, Chains: c.Chains,
		}
		if rs.Backend == ruleset.NFT && c.Table == NativeTable {
			s.Backend = nativeBackend
		}
		out = append(out, s)
	}
	return out
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
	r.NFTablesMode = rs.Backend == ruleset.NFT && rs.Table(NativeTable) != nil
}
