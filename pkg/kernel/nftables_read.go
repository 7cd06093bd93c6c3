// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"context"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/nftables"
	"github.com/svcscope/svcscope/pkg/netfilter/nlattr"
)

// Attempt is one try at reading the rules of one generation.
type Attempt struct {
	Retries int // how many attempts a change has spoiled before
	// Skipped counts messages that could not be decoded and are left out,
	// by kind: table, chain, rule, set, element. SkipErr is the first one's error, with
	// family, table and chain.
	Skipped map[string]uint64
	SkipErr error

	conn       *conn
	generation uint32
	attrs      []byte // of the last request for rules
	damage     error  // the first message that was skipped of a table that serves (ofServices)
}

// Generation is that of all that the attempt reads.
func (a *Attempt) Generation() uint32 { return a.generation }

// Heads reads the tables of some families and their chains, without rules: 40,000
// chains in 70 ms. It uses the memory of an earlier result, which nobody needs any
// more, again; that may be nil.
func (a *Attempt) Heads(ctx context.Context, families []netfilter.Family, earlier []nftables.TableContent) ([]nftables.TableContent, error) {
	all := earlier[:0]
	for _, f := range families {
		var err error
		if all, err = a.heads(ctx, f, all); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// Tables reads the tables of a family, without chains.
func (a *Attempt) Tables(ctx context.Context, family netfilter.Family, visit func(nftables.Table)) error {
	return a.dump(ctx, request{typ: getTable, family: family}, func(b []byte) {
		t, err := nftables.DecodeTable(b)
		if a.decoded(message{"table", nameIn(b, unix.NFTA_TABLE_NAME), "", family}, err) {
			visit(t)
		}
	})
}

// maxUse bounds the memory that a table's use is believed to be of chains.
const maxUse = 1 << 17

// heads appends a family's to all, with the memory of what was there.
func (a *Attempt) heads(ctx context.Context, family netfilter.Family, all []nftables.TableContent) ([]nftables.TableContent, error) {
	first := len(all)
	err := a.Tables(ctx, family, func(t nftables.Table) {
		var chains []nftables.ChainContent
		if n := len(all); n < cap(all) {
			chains = all[: n+1 : n+1][n].Chains[:0]
		}
		// Most of what a table uses is chains.
		if n := int(min(t.Use, maxUse)); cap(chains) < n {
			chains = make([]nftables.ChainContent, 0, n)
		}
		all = append(all, nftables.TableContent{Table: t, Chains: chains})
	})
	tables := all[first:]
	if err != nil || len(tables) == 0 {
		return all, err
	}
	at := 0 // the table of the last chain
	var c nftables.Chain
	err = a.dump(ctx, request{typ: getChain, family: family}, func(b []byte) {
		if chains := tables[at].Chains; len(chains) < cap(chains) {
			c.Name = chains[:len(chains)+1][len(chains)].Name
		}
		if err := c.Decode(b); err != nil {
			a.decoded(message{"chain", nameIn(b, unix.NFTA_CHAIN_TABLE), "", family}, err)
			return
		}
		if tables[at].Name != c.Table {
			i := slices.IndexFunc(tables, func(t nftables.TableContent) bool { return t.Name == c.Table })
			if i < 0 {
				return
			}
			at = i
		}
		tables[at].Chains = append(tables[at].Chains, nftables.ChainContent{Chain: c})
	})
	return all, err
}

// Rules reads the rules of one chain, of which it needs family, table and
// name, and hands on the payload of each NFT_MSG_NEWRULE: valid during the
// call only. An error of visit says that it could not be decoded.
//
// Rules are asked for chain by chain, because a dump of a whole table costs the
// kernel time with the square of its rules. A chain that is read later has
// younger counters.
func (a *Attempt) Rules(ctx context.Context, c *nftables.Chain, visit func([]byte) error) error {
	// The kernel takes the chain only together with its table.
	a.attrs = nlattr.AppendString(a.attrs[:0], unix.NFTA_RULE_TABLE, c.Table)
	a.attrs = nlattr.AppendString(a.attrs, unix.NFTA_RULE_CHAIN, c.Name)
	err := a.dump(ctx, request{typ: getRule, family: c.Family, attrs: a.attrs}, func(b []byte) {
		a.decoded(message{"rule", c.Table, c.Name, c.Family}, visit(b))
	})
	if err != nil {
		return fmt.Errorf("chain %s of table %s: %w", c.Name, c.Table, err)
	}
	return nil
}

// dump sends a request for a dump and hands on the payload of each message,
// once it is known to be of the generation that the attempt began with.
func (a *Attempt) dump(ctx context.Context, req request, visit func([]byte)) error {
	req.dump = true
	return a.conn.exchange(ctx, req, func(m *nlattr.Message) error {
		h, _, err := netfilter.DecodeGenMsg(m.Payload)
		if err != nil {
			return err
		}
		if h.ResID != uint16(a.generation) {
			return ErrInterrupted
		}
		visit(m.Payload)
		return nil
	})
}

// decoded counts a message that was not.
func (a *Attempt) decoded(m message, err error) bool {
	if err == nil {
		return true
	}
	err = fmt.Errorf("%s: %w", m, err)
	a.Skipped[m.kind]++
	if a.SkipErr == nil {
		a.SkipErr = err
	}
	if a.damage == nil && m.family != netfilter.FamilyINet && ofServices(m.table) {
		a.damage = err
	}
	return false
}

// message is where a message belongs, as far as that is known.
type message struct {
	kind         string // table, chain, rule, set or element
	table, chain string
	family       netfilter.Family
}

// String is what was read with it.
func (m message) String() string {
	var of string
	if m.chain != "" {
		of += " of chain " + m.chain
	}
	if m.table != "" && m.kind != "table" {
		of += " of table " + m.table
	}
	if m.table != "" && m.kind == "table" {
		return fmt.Sprintf("read table %s (%v)", m.table, m.family)
	}
	return fmt.Sprintf("read %ss%s (%v)", m.kind, of, m.family)
}

// nameIn finds the name of a table in a message that may be damaged; empty
// where it has none that can be read.
func nameIn(b []byte, attr uint16) string {
	_, attrs, err := netfilter.DecodeGenMsg(b)
	if err != nil {
		return ""
	}
	for a := nlattr.Attrs(attrs); a.Next(); {
		if a.Type() == attr {
			return a.String()
		}
	}
	return ""
}

// ofServices reports whether a table is one of iptables or of kube-proxy's nftables mode,
// or might be: its name is empty where the message does not tell.
func ofServices(table string) bool {
	switch table {
	case "", "nat", "filter", "mangle", "raw", "security", "kube-proxy":
		return true
	}
	return false
}
