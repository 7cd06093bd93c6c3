// SPDX-License-Identifier: Apache-2.0

package nodediff

import (
	"fmt"
	"slices"
	"strings"

	"github.com/svcscope/svcscope/pkg/kubeproxy"
	"github.com/svcscope/svcscope/pkg/ruleset"
)

// content compares the rules of one of the port's chains. Where the nodes have other
// endpoints, which is told already, their rules are left out, and so are shares.
func (c *comparison) content(a, b *port, at, bt *ruleset.Chain, whole bool, expected func() bool) []aspect {
	common := func(string) bool { return true }
	if !whole {
		common = func(chain string) bool { return leadsTo(at, chain) && leadsTo(bt, chain) }
	}
	var out []aspect
	all := lines(Chain, shortName(at.Name), a.ruleLines(at, whole, common), b.ruleLines(bt, whole, common))
	for _, d := range all {
		out = append(out, aspect{d, expected()})
	}
	return out
}

// shortName is the name of a chain without the hash.
func shortName(chain string) string {
	_, hash := kubeproxy.ParseChain(chain)
	return strings.TrimSuffix(strings.TrimSuffix(chain, hash), "-")
}

func leadsTo(c *ruleset.Chain, chain string) bool {
	return slices.ContainsFunc(c.Rules, func(r ruleset.Rule) bool { return r.Action.Chain == chain })
}

// ruleLines are the rules of a chain in iptables' words, with endpoints' addresses in the
// place of their chains. In KUBE-SVC and KUBE-SVL the place counts: a rule takes what
// those before it leave.
func (p *port) ruleLines(c *ruleset.Chain, shares bool, common func(chain string) bool) []string {
	var out []string
	for i := range c.Rules {
		r := c.Rules[i]
		if isEndpoint(&r) {
			if !common(r.Action.Chain) {
				continue
			}
			r.Comment = "" // kube-proxy leaves it out where there are many endpoints
			if !shares {
				r.Matches = slices.DeleteFunc(slices.Clone(r.Matches), isShare)
			}
		}
		out = append(out, p.side.general(p.addressed(r.Spec(p.family))))
	}
	return out
}

func isEndpoint(r *ruleset.Rule) bool {
	kind, _ := kubeproxy.ParseChain(r.Action.Chain)
	return kind == kubeproxy.KindEndpoint
}

func isShare(m ruleset.Match) bool {
	_, ok := m.(ruleset.Random)
	return ok
}

// addressed is a text with addresses in the place of the names of endpoints' chains.
func (p *port) addressed(text string) string {
	for i := range p.chains.Endpoints {
		chain := p.chains.Endpoints[i].Chain
		text = strings.ReplaceAll(text, chain, p.endpoint(chain))
	}
	return text
}

// endpointRules are what the chains of endpoints do that both nodes have.
func (p *port) endpointRules(other *port) map[string]string {
	out := make(map[string]string)
	if p.rules == nil || other.rules == nil {
		return out
	}
	// Those that one node alone leads to, too: the chain itself may be the same.
	for _, e := range slices.Concat(p.chains.Endpoints, other.chains.Endpoints) {
		name := e.Chain
		r, known := p.rules.View.EndpointRules(name)
		if _, both := other.rules.View.EndpointRules(name); !known || !both {
			continue
		}
		text := "to " + r.To.String()
		if !r.To.IsValid() {
			text = "to nobody"
		}
		if r.Hairpin {
			text += ", its own masqueraded"
		}
		if r.Remembers {
			text += ", remembers clients"
		}
		if r.Cut {
			text += ", not for every packet"
		}
		out[p.endpoint(name)+", its chain"] = fmt.Sprintf("%s, %d rules", text, r.Rules)
	}
	return out
}
