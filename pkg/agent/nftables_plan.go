// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"maps"
	"slices"

	"github.com/svcscope/svcscope/pkg/kubeproxy"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/nftables"
	"github.com/svcscope/svcscope/pkg/policy"
	"github.com/svcscope/svcscope/pkg/ruleset"
)

// plan reads all that may have changed since the last reading.
func (b *nftablesBackend) plan(ctx context.Context, p *pass) error {
	p.whole = true
	if b.seen && b.generation == p.generation() {
		return b.planCounters(ctx, p)
	}
	return b.planRules(ctx, p)
}

// planRules lists what exists and reads the chains that carry information:
// kube-proxy's but for endpoints' chains that were read once, the built-in
// ones, and others' that are new or have another size, or that are of a small
// native table or of that of kube-proxy's nftables mode, with the sets of that one; and
// where the verdict maps of other native tables lead.
func (b *nftablesBackend) planRules(ctx context.Context, p *pass) error {
	var earlier []nftables.TableContent
	if kept, ok := b.heads.Get().(*[]nftables.TableContent); ok {
		earlier = *kept
	}
	tables, err := p.attempt.Heads(ctx, tableFamilies(), earlier)
	if err != nil {
		return err
	}
	p.head(tables)
	var chains []*nftables.Chain
	for i := range tables {
		t := &tables[i]
		if isTap(t.Family, t.Name) {
			continue
		}
		native := isNative(t.Family, t.Name)
		load := b.maps
		if native {
			load = b.sets
		}
		if err := load(ctx, p, t); err != nil {
			return err
		}
		whole := native || ofOthers(t.Family, t.Name) && len(t.Chains) <= fewChains
		f := b.known[t.Family]
		known := f.set.Table(t.Name)
		if known != nil && known.Handle != t.Handle {
			known = nil
		}
		next := 0
		for j := range t.Chains {
			c := &t.Chains[j].Chain
			var as *ruleset.Chain
			if as, next = known.ChainNear(next, c.Name); whole || wants(c, as) || f.rules.View.Stale(c.Name) || f.refused.rules.Known(t.Name, c.Name) {
				chains = append(chains, c)
			}
		}
	}
	return p.readAll(ctx, chains)
}

// fewChains are so few in a native table that all are read whenever something has
// changed: rules that were replaced by as many others are seen.
const fewChains = 256

// wants reports whether the rules of a chain are to be read; known is what is
// known of it, or nil.
func wants(c *nftables.Chain, known *ruleset.Chain) bool {
	kind, _ := kubeproxy.ParseChain(c.Name)
	ofKubeProxy := c.Table == "nat" || c.Table == "filter"
	if c.Base != nil || policy.OfPolicy(c.Name) || ofKubeProxy && kind != kubeproxy.KindOther && kind != kubeproxy.KindEndpoint {
		return true
	}
	same := known != nil && known.Handle == c.Handle && known.Use == c.Use
	// An endpoint's was read when it was found, and is unread since (forget).
	return !same || known.Unread && kind != kubeproxy.KindEndpoint
}

// planCounters reads counters of rules that stand as they did. A packet passes
// the built-in chain's jump, the dispatch rule and the Service's rules in this
// order, and so does the reading: what is in between is found by the next one,
// which looks again at what moved in this one.
func (b *nftablesBackend) planCounters(ctx context.Context, p *pass) error {
	for _, f := range families() {
		if err := b.dispatch(ctx, p, f); err != nil {
			return err
		}
	}
	if err := b.refused(ctx, p); err != nil {
		return err
	}
	again := maps.Clone(b.moved)
	maps.Copy(again, p.moved)
	return b.ports(ctx, p, again)
}

// refused reads the chains that refuse packets, but for what dispatch reads, and for
// those in which nothing counts.
func (b *nftablesBackend) refused(ctx context.Context, p *pass) error {
	ofServices := kubeproxy.RefusalChains()
	for _, f := range tableFamilies() {
		for table, chain := range b.known[f].refused.rules.Chains() {
			if table == "filter" && slices.Contains(ofServices[:], chain) || isNative(f, table) {
				continue
			}
			if err := p.chains(ctx, f, table, chain); err != nil {
				return err
			}
		}
	}
	return nil
}

// dispatch reads the refusals of one family and notes the ports whose dispatch
// rules have moved.
func (b *nftablesBackend) dispatch(ctx context.Context, p *pass, f netfilter.Family) error {
	set := b.known[f].set
	refusals := kubeproxy.RefusalChains()
	if err := p.chains(ctx, f, "filter", refusals[:]...); err != nil {
		return err
	}
	nat := set.Table("nat")
	if nat == nil || !b.known[f].rules.View.Present {
		return nil
	}
	entered := len(b.moved) > 0
	for c := range nat.BaseChains {
		staged, err := p.chain(ctx, &nftables.Chain{Family: f, Table: "nat", Name: c.Name})
		if err != nil {
			return err
		}
		for r := range staged.Moved {
			entered = entered || r.Action.Kind == ruleset.Jump
		}
	}
	if !entered {
		return nil
	}
	for _, name := range kubeproxy.DispatchChains() {
		if nat.Chain(name) == nil {
			continue
		}
		if _, err := p.chain(ctx, &nftables.Chain{Family: f, Table: "nat", Name: name}); err != nil {
			return err
		}
	}
	return nil
}

// ports reads the chains of ports by the hash in their names.
func (b *nftablesBackend) ports(ctx context.Context, p *pass, hashes map[string]bool) error {
	var chains []*nftables.Chain
	for _, f := range families() {
		nat := b.known[f].set.Table("nat")
		for hash := range hashes {
			for _, name := range kubeproxy.ChainsOf(hash) {
				if nat.Chain(name) != nil {
					chains = append(chains, &nftables.Chain{Family: f, Table: "nat", Name: name})
				}
			}
		}
	}
	return p.readAll(ctx, chains)
}
