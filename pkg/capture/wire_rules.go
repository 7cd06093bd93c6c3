// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"fmt"
	"maps"
	"slices"

	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/ruleset"
)

// wireRules is rules/<backend>-<family>.json, Rules.
type wireRules struct {
	Backend      ruleset.Backend `json:"backend"`
	Family       string          `json:"family"`
	Generation   uint32          `json:"generation,omitempty"`
	NFTablesMode bool            `json:"nftablesMode,omitempty"`
	Tables       []wireTable     `json:"tables"`
}

type wireTable struct {
	Name   string              `json:"name"`
	Handle uint64              `json:"handle,omitempty"`
	Maps   map[string][]string `json:"maps,omitempty"`
	Chains []wireChain         `json:"chains"`
}

type wireChain struct {
	Name   string     `json:"name"`
	Base   *wireBase  `json:"base,omitempty"`
	Handle uint64     `json:"handle,omitempty"`
	Use    uint32     `json:"use,omitempty"`
	Unread bool       `json:"unread,omitempty"`
	Rules  []wireRule `json:"rules,omitempty"`
}

type wireBase struct {
	Hook     uint8  `json:"hook"` // NF_INET_*
	Priority int32  `json:"priority,omitempty"`
	Policy   string `json:"policy,omitempty"`
}

type wireRule struct {
	Handle     uint64      `json:"handle,omitempty"`
	Packets    uint64      `json:"packets,omitempty"`
	Bytes      uint64      `json:"bytes,omitempty"`
	HasCounter bool        `json:"hasCounter,omitempty"`
	CountsMore bool        `json:"countsMore,omitempty"`
	CommentAt  uint8       `json:"commentAt,omitempty"`
	Comment    string      `json:"comment,omitempty"`
	Matches    []wireMatch `json:"matches,omitempty"`
	Action     wireAction  `json:"action,omitzero"`
}

func newWireRules(r *Rules) wireRules {
	w := wireRules{
		Backend: r.Set.Backend, Family: r.Set.Family.String(), Generation: r.Set.Generation, NFTablesMode: r.NFTablesMode,
		Tables: make([]wireTable, 0, len(r.Set.Tables)),
	}
	for _, t := range r.Set.Tables {
		table := wireTable{
			Name: escape(t.Name), Handle: t.Handle, Maps: eachName(t.Maps, escape), Chains: make([]wireChain, 0, len(t.Chains)),
		}
		for _, c := range t.Chains {
			table.Chains = append(table.Chains, newWireChain(c))
		}
		w.Tables = append(w.Tables, table)
	}
	return w
}

// eachName changes the names of maps and of the chains that they lead to.
func eachName(leads map[string][]string, change func(string) string) map[string][]string {
	if leads == nil {
		return nil
	}
	out := make(map[string][]string, len(leads))
	for name, to := range leads {
		all := make([]string, 0, len(to))
		for _, chain := range to {
			all = append(all, change(chain))
		}
		out[change(name)] = all
	}
	return out
}

func newWireChain(c *ruleset.Chain) wireChain {
	w := wireChain{Name: escape(c.Name), Handle: c.Handle, Use: c.Use, Unread: c.Unread}
	if c.Base != nil {
		w.Base = &wireBase{uint8(c.Base.Hook), c.Base.Priority, actionName(c.Base.Policy)}
	}
	for i := range c.Rules {
		r := &c.Rules[i]
		rule := wireRule{
			Handle: r.Handle, Packets: r.Counter.Packets, Bytes: r.Counter.Bytes, HasCounter: r.HasCounter, CountsMore: r.CountsMore,
			CommentAt: r.CommentAt, Comment: escape(r.Comment), Action: newWireAction(&r.Action),
		}
		for _, m := range r.Matches {
			rule.Matches = append(rule.Matches, wireMatch{m})
		}
		w.Rules = append(w.Rules, rule)
	}
	return w
}

// families are those of rules, in the order of Node.Rules.
func families() []netfilter.Family {
	return []netfilter.Family{netfilter.IPv4, netfilter.IPv6, netfilter.FamilyINet}
}

func parseFamily(s string) (netfilter.Family, error) {
	for _, f := range families() {
		if f.String() == s {
			return f, nil
		}
	}
	return 0, fmt.Errorf("family %q is not known", s)
}

func (w *wireRules) rules() (Rules, error) {
	f, err := parseFamily(w.Family)
	if err != nil {
		return Rules{}, err
	}
	if !slices.Contains([]ruleset.Backend{ruleset.NFT, ruleset.Legacy}, w.Backend) {
		return Rules{}, fmt.Errorf("backend %q is not known", w.Backend)
	}
	set := &ruleset.Ruleset{Backend: w.Backend, Family: f, Generation: w.Generation}
	for i := range w.Tables {
		t := &w.Tables[i]
		chains := make([]*ruleset.Chain, 0, len(t.Chains))
		for j := range t.Chains {
			c, err := t.Chains[j].chain()
			if err != nil {
				return Rules{}, fmt.Errorf("table %q, chain %q: %w", t.Name, t.Chains[j].Name, err)
			}
			chains = append(chains, c)
		}
		table := ruleset.NewTable(unescape(t.Name), t.Handle, chains)
		table.Maps = eachName(t.Maps, unescape)
		set.Tables = append(set.Tables, table)
	}
	return Rules{Set: set, NFTablesMode: w.NFTablesMode}, nil
}

func (w *wireChain) chain() (*ruleset.Chain, error) {
	c := &ruleset.Chain{Name: unescape(w.Name), Handle: w.Handle, Use: w.Use, Unread: w.Unread}
	if w.Base != nil {
		policy, err := parseActionKind(w.Base.Policy)
		if err != nil {
			return nil, fmt.Errorf("policy: %w", err)
		}
		c.Base = &ruleset.Base{Hook: netfilter.Hook(w.Base.Hook), Priority: w.Base.Priority, Policy: policy}
	}
	if len(w.Rules) > 0 {
		c.Rules = make([]ruleset.Rule, 0, len(w.Rules))
	}
	for i := range w.Rules {
		r, err := w.Rules[i].rule()
		if err != nil {
			return nil, fmt.Errorf("rule %d: %w", i+1, err)
		}
		c.Rules = append(c.Rules, r)
	}
	return c, nil
}

func (w *wireRule) rule() (ruleset.Rule, error) {
	action, err := w.Action.action()
	r := ruleset.Rule{
		Handle: w.Handle, Counter: netfilter.Counter{Packets: w.Packets, Bytes: w.Bytes}, HasCounter: w.HasCounter,
		CountsMore: w.CountsMore, CommentAt: w.CommentAt, Comment: unescape(w.Comment), Action: action,
	}
	for i := range w.Matches {
		if w.Matches[i].Match == nil {
			return r, fmt.Errorf("condition %d is none", i+1)
		}
		r.Matches = append(r.Matches, w.Matches[i].Match)
	}
	return r, err
}

// sortedKeys lists a map's keys in order.
func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
