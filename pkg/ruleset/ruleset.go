// SPDX-License-Identifier: Apache-2.0

package ruleset

import (
	"net/netip"
	"strings"

	"github.com/svcscope/svcscope/pkg/netfilter"
)

// Backend is the kernel interface that holds a set of rules, in the spelling
// of the metrics' backend label.
type Backend string

// The backends.
const (
	Legacy Backend = "legacy" // x_tables
	NFT    Backend = "nft"    // nf_tables, written by iptables-nft or another tool
)

// Ruleset is all that one backend holds for one family.
type Ruleset struct {
	Backend Backend
	Family  netfilter.Family // IPv4, IPv6, or FamilyINet: nf_tables' tables that both pass
	// Generation is nf_tables' generation id at the reading; 0 in legacy.
	Generation uint32
	Tables     []*Table // in the kernel's order
}

// Table returns the table of that name, or nil.
func (r *Ruleset) Table(name string) *Table {
	if r == nil {
		return nil
	}
	for _, t := range r.Tables {
		if t.Name == name {
			return t
		}
	}
	return nil
}

// Table is one table.
type Table struct {
	Name   string
	Handle uint64 // nf_tables' handle: a re-created table has another; 0 in legacy
	Chains []*Chain
	// Maps are the chains that the elements of nf_tables' verdict maps lead to, by the
	// map's name; nil where there are none, or nobody has asked.
	Maps map[string][]string
	// Sets are the sets and maps of the table, with their elements, by name; nil where
	// nobody has asked. Maps is then made of them.
	Sets   map[string]*Set
	byName map[string]*Chain
	base   []int // where the built-in chains are in Chains, where byName is not nil
}

// NewTable returns a table of these chains, which are not to be added to or
// renamed after: look-ups by name are built here, so that a finished table can
// be read by many at once. Of two chains of one name the first is found.
func NewTable(name string, handle uint64, chains []*Chain) *Table {
	t := &Table{Name: name, Handle: handle, Chains: chains, byName: make(map[string]*Chain, len(chains))}
	for i, c := range chains {
		c.at = i
		if _, twice := t.byName[c.Name]; !twice {
			t.byName[c.Name] = c
		}
	}
	t.findBase()
	return t
}

// findBase notes where the built-in chains are.
func (t *Table) findBase() {
	t.base = nil
	for i, c := range t.Chains {
		if c.Base != nil {
			t.base = append(t.base, i)
		}
	}
}

// BaseChains yields the chains that the kernel calls, in the table's order. They are
// few among many.
func (t *Table) BaseChains(yield func(*Chain) bool) {
	if t == nil {
		return
	}
	if t.byName == nil { // NewTable did not make it
		for _, c := range t.Chains {
			if c.Base != nil && !yield(c) {
				return
			}
		}
		return
	}
	for _, i := range t.base {
		if !yield(t.Chains[i]) {
			return
		}
	}
}

// Chain returns the chain of that name, or nil. A Table that NewTable did not
// make is searched from its start.
func (t *Table) Chain(name string) *Chain {
	if t == nil {
		return nil
	}
	if t.byName != nil {
		return t.byName[name]
	}
	for _, c := range t.Chains {
		if c.Name == name {
			return c
		}
	}
	return nil
}

// ChainNear returns the chain of that name, or nil, fast where it is number i or
// one of the next; after is the number that follows it. Those who look up one
// chain after another in the table's order spare themselves the look-up by name.
func (t *Table) ChainNear(i int, name string) (c *Chain, after int) {
	const near = 4
	if t == nil {
		return nil, 0
	}
	for j := max(i, 0); j < len(t.Chains) && j < i+near; j++ {
		if t.Chains[j].Name == name {
			return t.Chains[j], j + 1
		}
	}
	if c = t.Chain(name); c == nil {
		return nil, i
	}
	return c, c.at + 1
}

// Chain is one chain of a table.
type Chain struct {
	Name   string
	Base   *Base // nil for a user-defined chain
	Rules  []Rule
	Handle uint64 // nf_tables' handle; 0 in legacy
	// Unread is true for a chain whose rules were not asked for: Rules is
	// then nil and says nothing.
	Unread bool
	// Use is nf_tables' count of the chain's rules and of the jumps and
	// gotos to it; 0 in legacy.
	Use uint32

	at    int         // in its table's Chains
	state *chainState // what a Mirror knows of it
}

// Base is what makes a chain one that the kernel calls.
type Base struct {
	Hook     netfilter.Hook
	Priority int32 // nf_tables only
	Policy   ActionKind
}

// Rule is one rule.
type Rule struct {
	// Handle is nf_tables' rule handle, unique in its table; 0 in legacy.
	Handle  uint64
	Counter netfilter.Counter
	// HasCounter is false for rules of native nft tables without one. CountsMore is
	// true where a condition comes after it: it counts packets that the rule does not
	// take, too.
	HasCounter, CountsMore bool
	// CommentAt is how many of Matches come before the comment, 0 without
	// one: iptables-save prints it there.
	CommentAt uint8
	Comment   string // the first one
	// Matches are in the kernel's order, the comment left out; addresses,
	// interfaces and the protocol at their head in iptables-save's order.
	Matches []Match
	Action  Action
}

// ActionKind is what a rule does with a packet that it matches.
type ActionKind uint8

// The kinds of action. Continue is a rule without a target.
const (
	Continue ActionKind = iota
	Accept
	Drop
	Return
	Queue
	Jump
	Goto
	DNAT
	SNAT
	Masquerade
	SetMark
	Reject
	Log       // NFLOG, LOG
	Map       // nf_tables: what the packet's element of a verdict map says; Details.Name is the map
	OtherKind // a target or statement that is not decoded; Details.Name says which
)

// Action is what a rule does; the fields that belong to Kind are set.
type Action struct {
	Kind   ActionKind
	Random bool   // Masquerade: --random-fully
	Group  uint16 // Log: NFLOG's group
	// Value is of SetMark: mark = mark &^ Mask ^ Value. Of Map and of a DNAT by a map it is
	// how many numbers are looked up there at random; 0: it is no such number.
	Value uint32
	Mask  uint32 // SetMark
	Chain string // Jump, Goto
	// More is what few rules of many have; nil where all of it is zero.
	More *Details
}

// Details are the larger part of an Action, of which most have nothing.
type Details struct {
	To     netip.AddrPort // DNAT, SNAT: the first address and port of the range
	With   string         // Reject: icmp-port-unreachable, ...
	Prefix string         // Log
	// Name is of OtherKind and Log the target's or expression's name; of Map the map's,
	// and of DNAT that of the map which has the addresses, if one has.
	Name string
	// Args is the target's arguments in iptables' words where the fields
	// above do not hold all of them: a range of addresses, --persistent,
	// LOG's level; of Map, in nft's, what is looked up. "" otherwise.
	Args string
}

// Details returns a copy of More, zero where that is nil.
func (a Action) Details() Details {
	if a.More == nil {
		return Details{}
	}
	return *a.More
}

// Ends reports whether no rule that comes after in the chain sees the packet. Where the
// packet goes to another chain it may come back.
func (a *Action) Ends() bool {
	switch a.Kind {
	case Accept, Drop, Return, Queue, DNAT, SNAT, Masquerade, Reject:
		return true
	case OtherKind:
		switch strings.ToUpper(a.Details().Name) {
		case "REDIRECT", "REDIR", "NETMAP", "TPROXY":
			return true
		}
	}
	return false
}

// SetDetails sets More.
func (a *Action) SetDetails(d Details) {
	a.More = nil
	if d != (Details{}) {
		a.More = &d
	}
}

// Match is one condition of a rule. The concrete types are in match.go; what
// is not decoded is an Unknown.
type Match interface {
	// String is the condition in iptables' words: "-p tcp", "! -s 10.0.0.0/8".
	String() string
}
