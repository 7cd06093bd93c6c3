// SPDX-License-Identifier: Apache-2.0

package nftables

import (
	"fmt"
	"hash/maphash"
	"math/bits"

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

// RuleScanner reads of rules what changes while they stand, and a sum that
// tells whether they are the same. Make it with NewRuleScanner: sums of
// different scanners can't be compared.
type RuleScanner struct{ seed maphash.Seed }

// NewRuleScanner returns a scanner with sums of its own.
func NewRuleScanner() RuleScanner { return RuleScanner{seed: maphash.MakeSeed()} }

// Scan reads handle, first counter and sum from the payload of an
// NFT_MSG_NEWRULE message. It allocates nothing and does not look into other
// expressions.
func (s RuleScanner) Scan(b []byte) (RuleCounter, error) {
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
		case attrRuleUserdata:
			s.add(&rc, a.Bytes())
		case attrRuleExpressions:
			a.Fail(s.exprs(&rc, a.Nested()))
		}
	}
	a.Require(attrRuleHandle, "NFTA_RULE_HANDLE")
	if err := a.Err(); err != nil {
		return RuleCounter{}, err
	}
	return rc, nil
}

func (s RuleScanner) exprs(rc *RuleCounter, list nlattr.Iter) error {
	for list.Next() {
		name, data, err := splitExpr(list.Nested())
		if err != nil {
			return err
		}
		if string(name) != "counter" {
			s.add(rc, list.Bytes())
			continue
		}
		s.add(rc, name)
		if rc.HasCounter {
			continue
		}
		c, err := decodeCounter(nlattr.Attrs(data))
		if err != nil {
			return err
		}
		rc.Counter, rc.HasCounter = netfilter.Counter(c), true
	}
	return list.Err()
}

// add mixes b into the sum; the order counts.
func (s RuleScanner) add(rc *RuleCounter, b []byte) {
	rc.Sum = bits.RotateLeft64(rc.Sum, 13)*0x9e3779b97f4a7c15 + maphash.Bytes(s.seed, b)
}
