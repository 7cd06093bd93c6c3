// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"

	"github.com/svcscope/svcscope/pkg/kernel"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/nftables"
)

// maxLeads bounds the elements that are read of one table's verdict maps: Calico has two
// for each pod of the node. They are read once a generation.
const maxLeads = 20_000

// maps reads where the verdict maps of a native table lead: by which hooks packets come
// to its chains is not known without. Tables of iptables have none.
func (b *nftablesBackend) maps(ctx context.Context, p *pass, t *nftables.TableContent) error {
	if !ofOthers(t.Family, t.Name) || int(t.Use) == len(t.Chains) {
		return nil // what a table uses is chains, sets, objects and flow tables
	}
	to, whole, err := p.attempt.VerdictMaps(ctx, t.Family, t.Name, b.leads)
	if err != nil {
		return err
	}
	p.stages[t.Family].Maps(t.Name, to)
	if key := (tableKey{t.Family, t.Name}); b.crowded[key] == whole {
		b.crowded[key] = !whole
		b.tellCrowded(key, whole)
	}
	return nil
}

// tellCrowded logs that a table has too many elements, or no longer.
func (b *nftablesBackend) tellCrowded(key tableKey, whole bool) {
	if whole {
		b.log.Info("verdict maps of a table are read again", "family", key.family.String(), "table", key.name)
		return
	}
	b.log.Warn("verdict maps of a table have too many elements: packets that its rules refuse may be told with hook unknown",
		"family", key.family.String(), "table", key.name, "max", b.leads)
}

// ofIPTables reports whether a table is one of those that iptables makes.
func ofIPTables(f netfilter.Family, table string) bool {
	switch table {
	case "nat", "filter", "mangle", "raw", "security":
		return f != netfilter.FamilyINet
	}
	return false
}

// ofOthers reports whether a table is neither of iptables nor of kube-proxy.
func ofOthers(f netfilter.Family, table string) bool {
	return !ofIPTables(f, table) && !isNative(f, table)
}

// isTap reports whether a table is the agent's own.
func isTap(f netfilter.Family, table string) bool {
	return f == netfilter.FamilyINet && table == kernel.TapTable
}
