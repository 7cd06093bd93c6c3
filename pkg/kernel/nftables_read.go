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

// nftablesRead is one attempt at reading the ruleset.
type nftablesRead struct {
	conn  *conn
	sel   Selector
	out   *NFTablesReading
	rules nftables.RuleDecoder
	arena arena
	// damage is the first message of a table of iptables that was skipped.
	damage error
}

// family reads the tables of one family, their chains, then the rules.
func (r *nftablesRead) family(ctx context.Context, family netfilter.Family) error {
	first := len(r.out.Tables)
	err := r.dump(ctx, request{typ: getTable, family: family}, func(b []byte) {
		t, err := nftables.DecodeTable(b)
		if r.decoded(message{"table", nameIn(b, unix.NFTA_TABLE_NAME), "", family}, err) {
			r.out.Tables = append(r.out.Tables, nftables.TableContent{Table: t})
		}
	})
	tables := r.out.Tables[first:]
	if err != nil || len(tables) == 0 {
		return err
	}
	chains := make([][]nftables.Chain, len(tables))
	err = r.dump(ctx, request{typ: getChain, family: family}, func(b []byte) {
		c, err := nftables.DecodeChain(b)
		if !r.decoded(message{"chain", nameIn(b, unix.NFTA_CHAIN_TABLE), "", family}, err) {
			return
		}
		for i := range tables {
			if tables[i].Name == c.Table {
				chains[i] = append(chains[i], c)
			}
		}
	})
	for i := 0; err == nil && i < len(tables); i++ {
		err = r.table(ctx, &tables[i], chains[i])
	}
	return err
}

// table reads the rules of the chains that the selector wants.
func (r *nftablesRead) table(ctx context.Context, t *nftables.TableContent, chains []nftables.Chain) error {
	t.Chains = make([]nftables.ChainContent, len(chains))
	index := make(map[string]int, len(chains))
	for i, c := range chains {
		t.Chains[i].Chain = c
		index[c.Name] = i
	}
	order := chains
	if r.sel != nil {
		order = r.sel(t.Table, slices.Clone(chains))
	}
	for _, c := range order {
		i, ok := index[c.Name]
		if !ok || t.Chains[i].Read {
			continue
		}
		rules, err := r.chain(ctx, &c)
		if err != nil {
			return fmt.Errorf("chain %s of table %s: %w", c.Name, c.Table, err)
		}
		t.Chains[i].Rules, t.Chains[i].Read = rules, true
	}
	return nil
}

func (r *nftablesRead) chain(ctx context.Context, c *nftables.Chain) ([]nftables.Rule, error) {
	// The kernel takes the chain only together with its table.
	attrs := nlattr.AppendString(nil, unix.NFTA_RULE_TABLE, c.Table)
	attrs = nlattr.AppendString(attrs, unix.NFTA_RULE_CHAIN, c.Name)
	var rules []nftables.Rule
	err := r.dump(ctx, request{typ: getRule, family: c.Family, attrs: attrs}, func(b []byte) {
		rule, err := r.rules.Decode(r.arena.keep(b))
		if !r.decoded(message{"rule", c.Table, c.Name, c.Family}, err) {
			return
		}
		r.countOpaque(rule.Exprs)
		rules = append(rules, rule)
	})
	return rules, err
}

// dump sends a request for a dump and hands on the payload of each message,
// once it is known to be of the generation that the attempt began with.
func (r *nftablesRead) dump(ctx context.Context, req request, visit func([]byte)) error {
	req.dump = true
	return r.conn.exchange(ctx, req, func(m *nlattr.Message) error {
		h, _, err := netfilter.DecodeGenMsg(m.Payload)
		if err != nil {
			return err
		}
		if h.ResID != uint16(r.out.Generation) {
			return ErrInterrupted
		}
		visit(m.Payload)
		return nil
	})
}

// decoded counts a message that was not.
func (r *nftablesRead) decoded(m message, err error) bool {
	if err == nil {
		return true
	}
	err = fmt.Errorf("%s: %w", m, err)
	r.out.Skipped[m.kind]++
	if r.out.SkipErr == nil {
		r.out.SkipErr = err
	}
	if r.damage == nil && ofIPTables(m.table) {
		r.damage = err
	}
	return false
}

// message is where a message belongs, as far as that is known.
type message struct {
	kind         string // table, chain or rule
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

// ofIPTables reports whether a table is one of iptables, or might be: its
// name is empty where the message does not tell.
func ofIPTables(table string) bool {
	switch table {
	case "", "nat", "filter", "mangle", "raw", "security":
		return true
	}
	return false
}

func (r *nftablesRead) countOpaque(exprs []nftables.Expr) {
	for _, e := range exprs {
		if o, ok := e.(nftables.Opaque); ok {
			r.out.Undecoded["expression/"+o.Name]++
		}
	}
}

// arena copies what is kept of the receive buffer into pieces of memory that
// many rules share.
type arena struct{ free []byte }

func (a *arena) keep(b []byte) []byte {
	if len(a.free) < len(b) {
		a.free = make([]byte, max(receiveSize, len(b)))
	}
	kept := a.free[:copy(a.free, b):len(b)]
	a.free = a.free[len(b):]
	return kept
}
