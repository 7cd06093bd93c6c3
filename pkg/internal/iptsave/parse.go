// SPDX-License-Identifier: Apache-2.0

package iptsave

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/ruleset"
)

// Parse reads the output of iptables-save or ip6tables-save, with or without
// -c, or an iptables-restore file. Chains are in the order of their ":" lines;
// built-in chains that a restore file does not name are added when a rule is
// appended to them. Errors name the line.
func Parse(f netfilter.Family, b ruleset.Backend, text string) (*ruleset.Ruleset, error) {
	p := parser{rs: &ruleset.Ruleset{Backend: b, Family: f}}
	for i, line := range strings.Split(text, "\n") {
		if err := p.line(strings.TrimSpace(line)); err != nil {
			return nil, fmt.Errorf("line %d: %w", i+1, err)
		}
	}
	if p.table != "" {
		return nil, fmt.Errorf("table %s: no COMMIT", p.table)
	}
	return p.rs, nil
}

type parser struct {
	rs     *ruleset.Ruleset
	table  string
	chains []*ruleset.Chain
	byName map[string]*ruleset.Chain
}

func (p *parser) line(line string) error {
	switch {
	case line == "" || line[0] == '#':
		return nil
	case line[0] == '*':
		if p.table != "" {
			return fmt.Errorf("table %s inside table %s", line[1:], p.table)
		}
		p.table, p.chains, p.byName = line[1:], nil, map[string]*ruleset.Chain{}
		return nil
	case p.table == "":
		return fmt.Errorf("%q outside a table", line)
	case line == "COMMIT":
		p.rs.Tables = append(p.rs.Tables, ruleset.NewTable(p.table, 0, p.chains))
		p.table = ""
		return nil
	case line[0] == ':':
		return p.chainLine(line[1:])
	}
	return p.ruleLine(line)
}

func (p *parser) chainLine(line string) error {
	f := strings.Fields(line)
	if len(f) < 2 {
		return fmt.Errorf("chain line %q", line)
	}
	c := p.chain(f[0])
	if f[1] == "-" {
		return nil
	}
	if c.Base == nil {
		return fmt.Errorf("chain %s has a policy and is no built-in chain", f[0])
	}
	if f[1] == "DROP" {
		c.Base.Policy = ruleset.Drop
	}
	return nil
}

// chain returns the chain of that name and makes it if it is new.
func (p *parser) chain(name string) *ruleset.Chain {
	if c := p.byName[name]; c != nil {
		return c
	}
	c := &ruleset.Chain{Name: name, Base: base(p.rs.Backend, p.table, name)}
	p.byName[name] = c
	p.chains = append(p.chains, c)
	return c
}

// base is what iptables makes of a chain of that name, nil for user chains.
func base(b ruleset.Backend, table, chain string) *ruleset.Base {
	for h := range netfilter.Hook(netfilter.NumHooks) {
		if h.String() == chain {
			base := &ruleset.Base{Hook: h, Policy: ruleset.Accept}
			if b == ruleset.NFT {
				base.Priority = priority(table, h)
			}
			return base
		}
	}
	return nil
}

// priority is iptables-nft's, iptables/nft.c xtables_ipv4.
func priority(table string, h netfilter.Hook) int32 {
	switch table {
	case "raw":
		return -300
	case "mangle":
		return -150
	case "nat":
		if h == netfilter.HookPostrouting || h == netfilter.HookInput {
			return 100
		}
		return -100
	case "security":
		return 50
	}
	return 0
}

func (p *parser) ruleLine(line string) error {
	words, err := split(line)
	if err != nil {
		return err
	}
	r := ruleset.Rule{HasCounter: true}
	if strings.HasPrefix(line, "[") {
		if r.Counter, err = counter(words[0].text); err != nil {
			return err
		}
		words = words[1:]
	}
	if len(words) < 2 || words[0].text != "-A" {
		return fmt.Errorf("%q is not a rule to append", line)
	}
	c := p.chain(words[1].text)
	rp := ruleParser{words: words[2:], family: p.rs.Family, table: p, rule: &r}
	if err := rp.parse(); err != nil {
		return err
	}
	c.Rules = append(c.Rules, r)
	return nil
}

func counter(s string) (netfilter.Counter, error) {
	pkts, bytes, ok := strings.Cut(strings.Trim(s, "[]"), ":")
	n, err := strconv.ParseUint(pkts, 10, 64)
	m, err2 := strconv.ParseUint(bytes, 10, 64)
	if !ok || err != nil || err2 != nil {
		return netfilter.Counter{}, fmt.Errorf("counter %q", s)
	}
	return netfilter.Counter{Packets: n, Bytes: m}, nil
}

// word is one argument; raw is as it was written, quotes included.
type word struct{ text, raw string }

// split cuts a line as iptables-restore does: at blanks, double quotes around
// words with blanks, a backslash before a quote inside them.
func split(line string) ([]word, error) {
	var out []word
	for i := 0; i < len(line); {
		if line[i] == ' ' || line[i] == '\t' {
			i++
			continue
		}
		start := i
		if line[i] != '"' {
			for i < len(line) && line[i] != ' ' && line[i] != '\t' {
				i++
			}
			out = append(out, word{line[start:i], line[start:i]})
			continue
		}
		var b strings.Builder
		for i++; i < len(line) && line[i] != '"'; i++ {
			if line[i] == '\\' && i+1 < len(line) {
				i++
			}
			b.WriteByte(line[i])
		}
		if i == len(line) {
			return nil, fmt.Errorf("quote not closed in %q", line)
		}
		i++
		out = append(out, word{b.String(), line[start:i]})
	}
	return out, nil
}
