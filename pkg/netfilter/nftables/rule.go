// SPDX-License-Identifier: Apache-2.0

package nftables

import (
	"fmt"

	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/nlattr"
)

// DecodeRule decodes the payload of an NFT_MSG_NEWRULE message.
func DecodeRule(b []byte) (Rule, error) {
	var d RuleDecoder
	return d.Decode(b)
}

// RuleDecoder decodes rules and keeps one copy of the names of table and
// chain for all rules of a chain. The zero value is ready.
type RuleDecoder struct{ table, chain string }

// Decode decodes the payload of an NFT_MSG_NEWRULE message. The rule shares
// b's memory, but for its names and its comment.
func (d *RuleDecoder) Decode(b []byte) (Rule, error) {
	h, attrs, err := netfilter.DecodeGenMsg(b)
	if err != nil {
		return Rule{}, fmt.Errorf("rule: %w", err)
	}
	r := Rule{Family: h.Family}
	a := nlattr.Attrs(attrs)
	for a.Next() {
		switch a.Type() {
		case attrRuleTable:
			r.Table = again(&d.table, a.Text())
		case attrRuleChain:
			r.Chain = again(&d.chain, a.Text())
		case attrRuleHandle:
			r.Handle = a.Uint64("NFTA_RULE_HANDLE")
		case attrRulePosition:
			r.Position = a.Uint64("NFTA_RULE_POSITION")
		case attrRuleUserdata:
			r.UserData = a.Bytes()
			r.Comment = comment(r.UserData, 0)
		case attrRuleExpressions:
			r.Exprs, err = decodeExprs(a.Nested(), decodeExpr)
			a.Fail(err)
		}
	}
	a.Require(attrRuleTable, "NFTA_RULE_TABLE")
	a.Require(attrRuleChain, "NFTA_RULE_CHAIN")
	a.Require(attrRuleHandle, "NFTA_RULE_HANDLE")
	if err := a.Err(); err != nil {
		return Rule{}, fmt.Errorf("rule %d: %w", r.Handle, err)
	}
	return r, nil
}

// again returns *last where b is the same text, else makes b the new *last.
func again(last *string, b []byte) string {
	if *last != string(b) {
		*last = string(b)
	}
	return *last
}

// DecodeRuleCounter reads only the handle and the first counter of the
// payload of an NFT_MSG_NEWRULE message. It allocates nothing and does not
// look into other expressions.
func DecodeRuleCounter(b []byte) (RuleCounter, error) {
	_, attrs, err := netfilter.DecodeGenMsg(b)
	if err != nil {
		return RuleCounter{}, err
	}
	var rc RuleCounter
	a := nlattr.Attrs(attrs)
	for a.Next() {
		switch a.Type() {
		case attrRuleHandle:
			rc.Handle = a.Uint64("NFTA_RULE_HANDLE")
		case attrRuleExpressions:
			c, ok, err := findCounter(a.Nested())
			a.Fail(err)
			rc.Counter, rc.HasCounter = c, ok
		}
	}
	a.Require(attrRuleHandle, "NFTA_RULE_HANDLE")
	if err := a.Err(); err != nil {
		return RuleCounter{}, err
	}
	return rc, nil
}

func findCounter(list nlattr.Iter) (netfilter.Counter, bool, error) {
	for list.Next() {
		name, data, err := splitExpr(list.Nested())
		if err != nil {
			return netfilter.Counter{}, false, err
		}
		if string(name) == "counter" {
			c, err := decodeCounter(nlattr.Attrs(data))
			return netfilter.Counter(c), err == nil, err
		}
	}
	return netfilter.Counter{}, false, list.Err()
}
