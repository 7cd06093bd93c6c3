// SPDX-License-Identifier: Apache-2.0

package ruleset

import (
	"slices"

	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/nftables"
)

// FromNFTables converts the tables of one family, native ones included, and
// counts what is not understood in them (Converter.Undecoded). Chains whose
// rules were not read are there as Unread. The result does not refer to the
// reading's memory.
func FromNFTables(family netfilter.Family, reading *nftables.Ruleset) (*Ruleset, map[string]uint64) {
	c := NewConverter(family)
	rs := &Ruleset{Backend: NFT, Family: family, Generation: reading.Generation}
	for i := range reading.Tables {
		t := &reading.Tables[i]
		if t.Family != family {
			continue
		}
		chains := make([]*Chain, len(t.Chains))
		for j := range t.Chains {
			chains[j] = c.NFTChain(&t.Chains[j])
		}
		rs.Tables = append(rs.Tables, NewTable(c.name(t.Name), t.Handle, chains))
	}
	return rs, c.Undecoded()
}

// NFTChain converts one chain.
func (c *Converter) NFTChain(n *nftables.ChainContent) *Chain {
	out := c.NFTChainHead(&n.Chain)
	out.Unread = !n.Read
	if n.Read {
		out.Rules = make([]Rule, len(n.Rules))
		for i := range n.Rules {
			out.Rules[i] = c.NFTRule(&n.Rules[i])
		}
	}
	return out
}

// NFTChainHead converts a chain without its rules, for callers that take the
// rules one by one and append them.
func (c *Converter) NFTChainHead(n *nftables.Chain) *Chain {
	out := &Chain{Name: c.name(n.Name), Handle: n.Handle, Use: n.Use}
	if n.Base != nil {
		out.Base = &Base{Hook: n.Base.Hook, Priority: n.Base.Priority, Policy: Accept}
		if n.Base.Policy == nftables.Drop {
			out.Base.Policy = Drop
		}
	}
	return out
}

// NFTRule converts one rule. Registers are followed: what was loaded into one
// tells what a comparison means.
func (c *Converter) NFTRule(n *nftables.Rule) Rule {
	c.begin()
	e := &c.evaluator
	e.c, e.rule, e.used, e.fresh, e.family, e.counted = c, Rule{Handle: n.Handle}, 0, 0, c.family, 0
	for _, x := range n.Exprs {
		e.expr(x)
	}
	if e.rule.HasCounter {
		e.rule.CountsMore = slices.ContainsFunc(c.scratch[min(e.counted, len(c.scratch)):], MayFail)
	}
	if e.rule.Comment == "" && n.Comment != "" {
		e.rule.Comment, e.rule.CommentAt = c.name(n.Comment), uint8(min(len(c.scratch), 255))
	}
	e.rule.Matches = c.finish()
	return e.rule
}

// act sets what the rule does. One that did something before does that too:
// a native rule may log and then drop.
func (e *evaluator) act(a Action) {
	if e.rule.Action.Kind != Continue {
		e.c.add(Also{Action: e.rule.Action})
	}
	e.rule.Action = a
}

// verdict is what an immediate verdict does.
func (e *evaluator) verdict(v *nftables.Verdict) {
	switch v.Code {
	case nftables.Accept:
		e.act(Action{Kind: Accept})
	case nftables.Drop:
		e.act(Action{Kind: Drop})
	case nftables.Queue:
		e.act(Action{Kind: Queue})
	case nftables.Return:
		e.act(Action{Kind: Return})
	case nftables.Jump:
		e.act(Action{Kind: Jump, Chain: e.c.name(v.Chain)})
	case nftables.Goto:
		e.act(Action{Kind: Goto, Chain: e.c.name(v.Chain)})
	case nftables.Continue, nftables.Break:
	default:
		e.unknownAction("verdict-" + itoa(uint64(uint32(v.Code))))
	}
}

// unknownAction keeps a statement that is not understood, and counts it.
func (e *evaluator) unknownAction(name string) {
	e.c.undecoded["expression/"+name]++
	e.act(Action{Kind: OtherKind, More: &Details{Name: e.c.name(name)}})
}

// unknown keeps a condition that is not understood, and counts it.
func (e *evaluator) unknown(name string, data []byte) {
	e.c.addUnknown("expression", Unknown{Name: e.c.name(name), Data: data})
}
