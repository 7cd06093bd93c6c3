// SPDX-License-Identifier: Apache-2.0

package nftables

import "github.com/svcscope/svcscope/pkg/netfilter"

// Gen is the state of the ruleset of a network namespace, NFT_MSG_NEWGEN.
type Gen struct {
	// ID counts the commits of the namespace, all tables and families alike.
	ID uint32
	// ProcPID and ProcName (at most 15 bytes) are the asking process in an
	// answer to NFT_MSG_GETGEN and the committing process in a notice.
	ProcPID  uint32
	ProcName string
}

// Table is one nf_tables table, NFT_MSG_NEWTABLE.
type Table struct {
	Family netfilter.Family
	Name   string
	// Handle is another one after the table was deleted and made again.
	Handle uint64
	// Use counts the table's chains, sets, objects and flowtables.
	Use   uint32
	Flags TableFlags
	// Owner is the netlink port that owns the table; 0 without TableOwned.
	Owner   uint32
	Comment string
}

// TableFlags are the flags of a table, enum nft_table_flags.
type TableFlags uint32

// The flags of a table.
const (
	TableDormant TableFlags = 1 << 0 // NFT_TABLE_F_DORMANT: its hooks are off
	TableOwned   TableFlags = 1 << 1 // NFT_TABLE_F_OWNER: only its owner may change it
	TablePersist TableFlags = 1 << 2 // NFT_TABLE_F_PERSIST: outlives its owner (Linux 6.9)
)

// Chain is one chain of a table, NFT_MSG_NEWCHAIN.
type Chain struct {
	Family netfilter.Family
	Table  string
	Name   string
	Handle uint64
	// Use counts the chain's rules and the jumps and gotos to it (a jump
	// from a set's element included).
	Use     uint32
	Base    *Base // nil for a chain that only other chains call
	Flags   ChainFlags
	Comment string
}

// Base is what a base chain has: the kernel calls it from a hook.
type Base struct {
	Hook     netfilter.Hook
	Priority int32
	Type     string // filter, nat, route
	Policy   Code   // Accept or Drop
	// Devices are the devices of a netdev or inet ingress chain; nil else.
	Devices []string
	// Counter is the policy's counter, nil where the chain has none (chains
	// of iptables-nft never have).
	Counter *netfilter.Counter
}

// ChainFlags are the flags of a chain, enum nft_chain_flags.
type ChainFlags uint32

// The flags of a chain.
const (
	ChainBase      ChainFlags = 1 << 0 // NFT_CHAIN_BASE
	ChainHWOffload ChainFlags = 1 << 1 // NFT_CHAIN_HW_OFFLOAD
	ChainBinding   ChainFlags = 1 << 2 // NFT_CHAIN_BINDING
)

// Rule is one rule of a chain, NFT_MSG_NEWRULE.
type Rule struct {
	Family netfilter.Family
	Table  string
	Chain  string
	// Handle is unique in the table while the rule stands. A rule that
	// replaces another has its own, but restores of whole tables and
	// iptables -Z make rules anew under the handles they had.
	Handle uint64
	// Position is the handle of the rule before, 0 for a chain's first.
	Position uint64
	// Comment is nft's comment from the rule's user data. Comments of
	// iptables-nft are a CompatMatch "comment" among Exprs.
	Comment  string
	UserData []byte
	Exprs    []Expr // in the kernel's order
}

// Counter returns the rule's first counter expression; false without one.
func (r *Rule) Counter() (netfilter.Counter, bool) {
	for _, e := range r.Exprs {
		if c, ok := e.(Counter); ok {
			return netfilter.Counter(c), true
		}
	}
	return netfilter.Counter{}, false
}

// RuleCounter is what a RuleScanner reads of a rule.
type RuleCounter struct {
	Handle     uint64
	Counter    netfilter.Counter
	HasCounter bool
	// Sum is equal for rules whose expressions and user data are, counters
	// left out.
	Sum uint64
}

// Ruleset is what one reading brought: tables in the kernel's order.
type Ruleset struct {
	// Generation is Gen.ID, the same before and after the reading.
	Generation uint32
	Tables     []TableContent
}

// TableContent is a table with its chains.
type TableContent struct {
	Table
	Chains []ChainContent // all chains of the table, in the kernel's order
}

// ChainContent is a chain with its rules.
type ChainContent struct {
	Chain
	// Read is false for a chain whose rules were not asked for; Rules is
	// then nil.
	Read  bool
	Rules []Rule
}
