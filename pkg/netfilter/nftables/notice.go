// SPDX-License-Identifier: Apache-2.0

package nftables

import (
	"fmt"

	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/nlattr"
)

// NoticeKind is what a Notice tells of.
type NoticeKind uint8

// The kinds of notices.
const (
	// NoticeOther is any other message: of sets, elements, objects,
	// flowtables, and of types that are not known.
	NoticeOther NoticeKind = iota
	NewTable               // NFT_MSG_NEWTABLE
	DelTable               // NFT_MSG_DELTABLE, NFT_MSG_DESTROYTABLE
	NewChain               // NFT_MSG_NEWCHAIN
	DelChain               // NFT_MSG_DELCHAIN, NFT_MSG_DESTROYCHAIN
	NewRule                // NFT_MSG_NEWRULE
	DelRule                // NFT_MSG_DELRULE, NFT_MSG_DESTROYRULE
	NewGen                 // NFT_MSG_NEWGEN: the end of a commit
)

// String returns a short name: "new rule".
func (k NoticeKind) String() string {
	switch k {
	case NewTable:
		return "new table"
	case DelTable:
		return "deleted table"
	case NewChain:
		return "new chain"
	case DelChain:
		return "deleted chain"
	case NewRule:
		return "new rule"
	case DelRule:
		return "deleted rule"
	case NewGen:
		return "new generation"
	}
	return "other"
}

// Notice is one message of the multicast group NFNLGRP_NFTABLES. The kernel
// sends one for each object that a commit made or deleted, in the order of
// the transaction, after the new rules are in force; the last of a commit is
// NewGen (net/netfilter/nf_tables_api.c, nf_tables_commit).
type Notice struct {
	Kind   NoticeKind
	Type   uint16 // nlmsg_type: the subsystem in the high byte
	Family netfilter.Family
	// ResID is the low 16 bits of the generation that the commit made.
	ResID uint16
	// Table is empty for NewGen and NoticeOther.
	Table string
	// Chain is set for chains and rules.
	Chain string
	// TableHandle is set for tables only: messages of chains and rules do not
	// have it, so a reader keeps that of each table.
	TableHandle uint64
	// Handle is the rule's or the chain's.
	Handle uint64
	// Counter is the rule's first counter: its start for NewRule (0:0, but for
	// rules made with counters), its final value for DelRule.
	Counter    netfilter.Counter
	HasCounter bool
	// Gen is the new generation and who committed it, for NewGen.
	Gen Gen
	// Payload is the whole message behind its header: what RuleDecoder.Decode,
	// DecodeChain and DecodeTable take. It shares the message's memory.
	Payload []byte
}

// Message types beside the subsystem, include/uapi/linux/netfilter/nf_tables.h.
const (
	subsystem       = 10 // NFNL_SUBSYS_NFTABLES
	msgNewTable     = 0  // NFT_MSG_NEWTABLE
	msgDelTable     = 2  // NFT_MSG_DELTABLE
	msgNewChain     = 3  // NFT_MSG_NEWCHAIN
	msgDelChain     = 5  // NFT_MSG_DELCHAIN
	msgNewRule      = 6  // NFT_MSG_NEWRULE
	msgDelRule      = 8  // NFT_MSG_DELRULE
	msgNewGen       = 15 // NFT_MSG_NEWGEN
	msgDestroyTable = 26 // NFT_MSG_DESTROYTABLE, Linux 6.3
	msgDestroyChain = 27 // NFT_MSG_DESTROYCHAIN
	msgDestroyRule  = 28 // NFT_MSG_DESTROYRULE
)

// noticeKind is the kind of a message of that type.
func noticeKind(typ uint16) NoticeKind {
	switch typ {
	case subsystem<<8 | msgNewTable:
		return NewTable
	case subsystem<<8 | msgDelTable, subsystem<<8 | msgDestroyTable:
		return DelTable
	case subsystem<<8 | msgNewChain:
		return NewChain
	case subsystem<<8 | msgDelChain, subsystem<<8 | msgDestroyChain:
		return DelChain
	case subsystem<<8 | msgNewRule:
		return NewRule
	case subsystem<<8 | msgDelRule, subsystem<<8 | msgDestroyRule:
		return DelRule
	case subsystem<<8 | msgNewGen:
		return NewGen
	}
	return NoticeOther
}

// DecodeNotice decodes one message of the group.
func DecodeNotice(m *nlattr.Message) (Notice, error) {
	var d NoticeDecoder
	return d.Decode(m)
}

// NoticeDecoder decodes notices and keeps one copy of the names for all
// notices of a chain, so that a burst of rules allocates nothing. The zero
// value is ready.
type NoticeDecoder struct{ table, chain, process string }

// Decode decodes one message of the group. Of a rule it reads names, handle
// and first counter, and does not look into other expressions. A message of a
// type that is not known is a NoticeOther.
func (d *NoticeDecoder) Decode(m *nlattr.Message) (Notice, error) {
	n := Notice{Kind: noticeKind(m.Type), Type: m.Type, Payload: m.Payload}
	h, attrs, err := netfilter.DecodeGenMsg(m.Payload)
	if err != nil {
		return Notice{}, fmt.Errorf("notice (%v): %w", n.Kind, err)
	}
	n.Family, n.ResID = h.Family, h.ResID
	switch n.Kind {
	case NewTable, DelTable:
		err = d.ofTable(attrs, &n)
	case NewChain, DelChain:
		err = d.ofChain(attrs, &n)
	case NewRule, DelRule:
		err = d.ofRule(attrs, &n)
	case NewGen:
		err = d.ofGen(attrs, &n)
	}
	if err != nil {
		return Notice{}, fmt.Errorf("notice (%v): %w", n.Kind, err)
	}
	return n, nil
}

func (d *NoticeDecoder) ofTable(attrs []byte, n *Notice) error {
	a := nlattr.Attrs(attrs)
	for a.Next() {
		switch a.Type() {
		case attrTableName:
			n.Table = again(&d.table, a.Text())
		case attrTableHandle:
			n.TableHandle = a.Uint64("NFTA_TABLE_HANDLE")
		}
	}
	a.Require(attrTableName, "NFTA_TABLE_NAME")
	return a.Err()
}

func (d *NoticeDecoder) ofChain(attrs []byte, n *Notice) error {
	a := nlattr.Attrs(attrs)
	for a.Next() {
		switch a.Type() {
		case attrChainTable:
			n.Table = again(&d.table, a.Text())
		case attrChainName:
			n.Chain = again(&d.chain, a.Text())
		case attrChainHandle:
			n.Handle = a.Uint64("NFTA_CHAIN_HANDLE")
		}
	}
	a.Require(attrChainTable, "NFTA_CHAIN_TABLE")
	a.Require(attrChainName, "NFTA_CHAIN_NAME")
	return a.Err()
}

func (d *NoticeDecoder) ofRule(attrs []byte, n *Notice) error {
	a := nlattr.Attrs(attrs)
	for a.Next() {
		switch a.Type() {
		case attrRuleTable:
			n.Table = again(&d.table, a.Text())
		case attrRuleChain:
			n.Chain = again(&d.chain, a.Text())
		case attrRuleHandle:
			n.Handle = a.Uint64("NFTA_RULE_HANDLE")
		case attrRuleExpressions:
			c, ok, err := findCounter(a.Nested())
			a.Fail(err)
			n.Counter, n.HasCounter = c, ok
		}
	}
	a.Require(attrRuleTable, "NFTA_RULE_TABLE")
	a.Require(attrRuleChain, "NFTA_RULE_CHAIN")
	a.Require(attrRuleHandle, "NFTA_RULE_HANDLE")
	return a.Err()
}

// findCounter looks no further than the first counter.
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

func (d *NoticeDecoder) ofGen(attrs []byte, n *Notice) error {
	a := nlattr.Attrs(attrs)
	for a.Next() {
		switch a.Type() {
		case attrGenID:
			n.Gen.ID = a.Uint32("NFTA_GEN_ID")
		case attrGenProcPID:
			n.Gen.ProcPID = a.Uint32("NFTA_GEN_PROC_PID")
		case attrGenProcName:
			n.Gen.ProcName = again(&d.process, a.Text())
		}
	}
	a.Require(attrGenID, "NFTA_GEN_ID")
	return a.Err()
}
