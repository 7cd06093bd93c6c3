// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// branch is a line of the tree with what is below it.
type branch struct {
	text    string
	note    string // after the text, or below it where it does not fit
	rule    *Rule  // whose counter stands before the line; nil of others
	command string
	below   []*branch
}

// grower makes the tree of a path. A chain's rules are printed once: where the last rule
// of its first way leads to it.
type grower struct {
	chains map[string]*Chain
	grown  map[string]bool
}

// grow returns the branches of a path.
func grow(at *Path) []*branch {
	g := &grower{chains: make(map[string]*Chain), grown: make(map[string]bool)}
	for i := range at.Chains {
		g.chains[at.Chains[i].Name] = &at.Chains[i]
	}
	var out []*branch
	for i := range at.Arrivals {
		a := &at.Arrivals[i]
		if len(a.Rules) == 0 {
			out = append(out, &branch{text: a.Chain + ": no rule leads to KUBE-SERVICES"})
		}
		out = append(out, g.rules(a.Rules, true)...)
	}
	for i := range at.RefusalArrivals {
		out = append(out, g.rules(at.RefusalArrivals[i].Rules, true)...)
	}
	for _, c := range unreached(at) {
		out = append(out, &branch{text: "filter " + c + ": no rule leads to it"})
	}
	for i := range at.Entries {
		out = append(out, g.entry(&at.Entries[i]))
	}
	if len(at.HealthChecks) > 0 {
		out = append(out, &branch{text: "health checks of the load balancer", below: g.rules(at.HealthChecks, true)})
	}
	for i := range at.Chains {
		switch c := &at.Chains[i]; {
		case c.State == ChainMissing:
			out = append(out, &branch{text: c.Name + ": missing"})
		case !g.grown[c.Name]:
			out = append(out, &branch{text: c.Name + ": no rule of these leads to it", below: g.chain(c)})
		}
	}
	if len(at.Masquerading) > 0 {
		out = append(out, &branch{text: "on the way out", below: g.rules(at.Masquerading, true)})
	}
	return out
}

// unreached are the chains with refusals that no built-in chain leads to.
func unreached(at *Path) (chains []string) {
	for i := range at.Entries {
		for _, r := range at.Entries[i].Refusals {
			leads := func(a Arrival) bool {
				return slices.ContainsFunc(a.Rules, func(jump Rule) bool { return jump.Target == r.Chain })
			}
			if r.Table == filter && !slices.ContainsFunc(at.RefusalArrivals, leads) && !slices.Contains(chains, r.Chain) {
				chains = append(chains, r.Chain)
			}
		}
	}
	return chains
}

// entry is one way: its rules, those of KUBE-NODEPORTS below what leads there.
func (g *grower) entry(e *Entry) *branch {
	out := &branch{text: entryText(e), command: e.Command}
	if e.Tracked == nil {
		out.command = ""
	}
	isFirst := func(r Rule) bool { return r.Role != RoleNodePorts }
	if n := slices.IndexFunc(e.Dispatch, isFirst); n > 0 {
		out.below = g.rules(e.Dispatch[:n], true)
		out.below[n-1].below = g.rules(e.Dispatch[n:], true)
	} else {
		out.below = g.rules(e.Dispatch, true)
	}
	out.below = append(out.below, g.rules(e.Refusals, true)...)
	if len(out.below) == 0 {
		out.below = []*branch{{text: "no rule"}}
	}
	return out
}

// rules are branches, with the chains that they lead to below the last rule that does.
func (g *grower) rules(rules []Rule, chain bool) []*branch {
	var out []*branch
	for i := range rules {
		r := &rules[i]
		b := &branch{text: r.place(), rule: r, command: r.Command}
		if chain {
			b.text = r.where() + ", " + b.text
		}
		again := func(later Rule) bool { return later.Target == r.Target }
		if c := g.chains[r.Target]; c != nil && !slices.ContainsFunc(rules[i+1:], again) {
			if g.grown[c.Name] {
				b.text += " (above)"
			} else {
				b.below = g.chain(c)
			}
		}
		b.note = r.note()
		out = append(out, b)
	}
	return out
}

func (g *grower) chain(c *Chain) []*branch {
	g.grown[c.Name] = true
	if c.State == ChainEmpty {
		return []*branch{{text: "no rules: packets pass it by"}}
	}
	return g.rules(c.Rules, false)
}

// counterWidth is the width of the column of counters.
func counterWidth(all []*branch) int {
	width := len("PACKETS")
	for _, b := range all {
		if b.rule != nil {
			width = max(width, len(strconv.FormatUint(b.rule.Packets, 10)))
		}
		width = max(width, counterWidth(b.below))
	}
	return width
}

// tree writes the path, with counters before it.
func (p *printer) tree(at *Path) {
	all := grow(at)
	width := counterWidth(all)
	p.line(fmt.Sprintf("  %*s  PATH", width, "PACKETS"))
	for _, b := range all {
		p.branch(b, width, "", "")
	}
}

// branch writes one line after lead, and what is below after rest.
func (p *printer) branch(b *branch, width int, lead, rest string) {
	counter := strings.Repeat(" ", width+1)
	if b.rule != nil {
		mark := " "
		if b.rule.SinceSync {
			mark = "*"
		}
		counter = fmt.Sprintf("%*d%s", width, b.rule.Packets, mark)
	}
	head := "  " + counter + " "
	indent := strings.Repeat(" ", utf8.RuneCountInString(head)) + rest
	stem := "   "
	if len(b.below) > 0 {
		stem = "│  "
	}
	if lead == "" && rest == "" && len(b.below) == 0 {
		stem = ""
	}
	switch line := head + lead + b.text; {
	case b.rule == nil:
		p.flow(head+lead, indent+"  ", b.text)
	case b.note == "":
		p.line(line)
	case p.fits(line + "  " + b.note):
		p.line(line + "  " + b.note)
	default:
		p.line(line)
		p.wrap(indent+stem+"  ", b.note)
	}
	p.command(indent+stem, b.command)
	for i, c := range b.below {
		if i == len(b.below)-1 {
			p.branch(c, width, rest+"└─ ", rest+"   ")
		} else {
			p.branch(c, width, rest+"├─ ", rest+"│  ")
		}
	}
}
