// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// row is one line of a table, with the commands that belong to it.
type row struct {
	cells    []string
	commands []string
}

// column is one column of a table of endpoints.
type column struct {
	header string
	right  bool // numbers
	cell   func(*Share, *Endpoint) string
}

// tables write the endpoints: those of each chain, or of the API where there is no
// chain, and what is to be said of single ones.
func (p *printer) tables(at *Path) {
	byChain, byAddress := make(map[string]*Endpoint), make(map[string]*Endpoint)
	for i := range at.Endpoints {
		e := &at.Endpoints[i]
		byAddress[e.Address] = e
		if e.Chain != "" {
			byChain[e.Chain] = e
		}
	}
	find := func(s *Share) *Endpoint {
		if e := byChain[s.Chain]; e != nil {
			return e
		}
		if e := byAddress[s.Endpoint]; e != nil {
			return e
		}
		return &Endpoint{}
	}
	for i := range at.Chains {
		c := &at.Chains[i]
		if len(c.Shares) == 0 {
			continue
		}
		p.blank()
		sum := count(c.Connections, "connection")
		if c.State != ChainPresent {
			sum = string(c.State)
		}
		p.line("  " + c.Name + ", " + chainText(c.Kind) + ": " + sum)
		p.shares(at, c.Shares, find)
	}
	if at.Unexplained != "" && at.Wanted != nil {
		p.wantedOnly(at, find)
	}
	p.notes(at)
}

func chainText(k ChainKind) string {
	if k == ChainLocal {
		return "endpoints of this node"
	}
	return "endpoints anywhere"
}

func count(n uint64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return strconv.FormatUint(n, 10) + " " + what + "s"
}

// wantedOnly writes what the API wants, without rules.
func (p *printer) wantedOnly(at *Path, find func(*Share) *Endpoint) {
	for _, set := range []struct {
		kind ChainKind
		eps  []string
	}{{ChainCluster, at.Wanted.Endpoints}, {ChainLocal, at.Wanted.LocalEndpoints}} {
		if len(set.eps) == 0 {
			continue
		}
		var shares []Share
		for _, a := range set.eps {
			shares = append(shares, Share{Endpoint: a, Wanted: new(1 / float64(len(set.eps)))})
		}
		p.blank()
		p.line("  Wanted by the API: " + chainText(set.kind))
		p.shares(at, shares, find)
	}
}

// shares write one table.
func (p *printer) shares(at *Path, shares []Share, find func(*Share) *Endpoint) {
	var columns []column
	for _, c := range endpointColumns() {
		some := func(s Share) bool { return c.cell(&s, find(&s)) != "" }
		if slices.ContainsFunc(shares, some) {
			columns = append(columns, c)
		}
	}
	rows := []row{{}}
	for _, c := range columns {
		rows[0].cells = append(rows[0].cells, c.header)
	}
	for i := range shares {
		s := &shares[i]
		e := find(s)
		var r row
		for _, c := range columns {
			r.cells = append(r.cells, c.cell(s, e))
		}
		for j := range e.Rules {
			r.commands = append(r.commands, e.Rules[j].Command)
		}
		for j := range at.Conntrack {
			if f := &at.Conntrack[j]; f.Endpoint == e.Address {
				r.commands = append(r.commands, f.Command)
			}
		}
		r.commands = append(r.commands, e.Commands...)
		rows = append(rows, r)
	}
	p.columns(columns, rows)
}

func endpointColumns() []column {
	percent := func(v *float64) string {
		if v == nil {
			return ""
		}
		return fmt.Sprintf("%.1f%%", *v*100)
	}
	inChain := func(f func(*Share) string) func(*Share, *Endpoint) string {
		return func(s *Share, _ *Endpoint) string {
			if s.Chain == "" {
				return ""
			}
			return f(s)
		}
	}
	return []column{
		{"ENDPOINT", false, func(s *Share, _ *Endpoint) string { return cmp.Or(s.Endpoint, s.Chain) }},
		{"PACKETS", true, inChain(func(s *Share) string { return strconv.FormatUint(s.Packets, 10) })},
		{"REAL", true, func(s *Share, _ *Endpoint) string { return percent(s.Real) }},
		{"WANTED", true, func(s *Share, _ *Endpoint) string { return percent(s.Wanted) }},
		{"RULES", true, func(s *Share, _ *Endpoint) string { return percent(s.ByRules) }},
		{"DNAT", true, func(_ *Share, e *Endpoint) string { return dnatText(e) }},
		{"TRACKED", true, func(_ *Share, e *Endpoint) string {
			if e.Tracked == nil {
				return ""
			}
			return strconv.FormatUint(e.Tracked.Entries, 10)
		}},
		{"STATE", false, func(_ *Share, e *Endpoint) string { return stateText(e) }},
	}
}

// dnatText is what the endpoint's DNAT rules have counted.
func dnatText(e *Endpoint) string {
	sum, some := uint64(0), false
	for i := range e.Rules {
		if e.Rules[i].Role == RoleDNAT {
			sum, some = sum+e.Rules[i].Packets, true
		}
	}
	if !some {
		return ""
	}
	return strconv.FormatUint(sum, 10)
}

// stateText is what the API says of an endpoint, and where it is.
func stateText(e *Endpoint) string {
	switch {
	case e.InAPI == nil:
		return ""
	case !*e.InAPI:
		return "not in the API"
	}
	state := "not ready"
	switch {
	case *e.Ready:
		state = "ready"
	case *e.Terminating && *e.Serving:
		state = "terminating, serving"
	case *e.Terminating:
		state = "terminating"
	}
	switch {
	case e.Local != nil && *e.Local:
		return state + ", here"
	case e.Node != "":
		return state + ", on " + e.Node
	}
	return state
}

// columns write rows, the first of which is the header, two spaces apart. Where one is
// too long, the last cells of each stand below it.
func (p *printer) columns(columns []column, rows []row) {
	widths := make([]int, len(columns))
	for _, r := range rows {
		for i, c := range r.cells {
			widths[i] = max(widths[i], utf8.RuneCountInString(c))
		}
	}
	beside := len(columns) // how many stand in a row
	long := func(r row) bool { return !p.fits(rowText(columns[:beside], r.cells[:beside], widths)) }
	for beside > 1 && slices.ContainsFunc(rows, long) {
		beside--
	}
	for _, r := range rows {
		p.line(rowText(columns[:beside], r.cells[:beside], widths))
		if below := strings.Join(r.cells[beside:], " "); strings.TrimSpace(below) != "" {
			p.wrap("    ", below)
		}
		for _, c := range r.commands {
			p.command("    ", c)
		}
	}
}

func rowText(columns []column, cells []string, widths []int) string {
	line := " "
	for i, c := range cells {
		pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(c))
		if columns[i].right {
			c = pad + c
		} else if i < len(columns)-1 {
			c += pad
		}
		line += " " + c + " "
	}
	return strings.TrimRight(line, " ")
}

// notes write what is to be said of single endpoints.
func (p *printer) notes(at *Path) {
	var out []string
	if at.AffinitySeconds > 0 {
		columns := "RULES is"
		if at.Wanted != nil {
			columns = "WANTED and RULES are"
		}
		out = append(out, columns+" of clients that have no endpoint yet.")
	}
	for i := range at.Endpoints {
		e := &at.Endpoints[i]
		if t := e.Tracked; t != nil && t.OlderAtLeast != nil && *t.OlderAtLeast > 0 {
			out = append(out, fmt.Sprintf("%s: at least %d of its %s tracked are older than its rule.",
				e.Address, *t.OlderAtLeast, count(t.Entries, "connection")))
		}
		if t := e.Tracked; t != nil && t.Entries > 0 && e.InRules != nil && !*e.InRules {
			out = append(out, fmt.Sprintf("%s is not in the rules: its %s tracked (%d closing) go on, new ones are not sent there.",
				e.Address, count(t.Entries, "connection"), t.Closing))
		}
		if e.Unused != "" {
			out = append(out, e.Address+" is not used from here: "+unusedText(e)+".")
		}
	}
	if sum, some := hairpins(at); some {
		out = append(out, fmt.Sprintf("An endpoint's connections to itself are masqueraded: %d.", sum))
	}
	if len(out) > 0 {
		p.blank()
	}
	for _, text := range out {
		p.flow("  ", "    ", text)
	}
}

func unusedText(e *Endpoint) string {
	state := stateText(e)
	switch e.Unused {
	case "hints":
		return state + "; hints give it to other nodes or zones"
	case "not_local":
		return state + "; the policy is Local"
	}
	return state
}

// hairpins sums the counters of endpoints' own masquerading rules.
func hairpins(at *Path) (sum uint64, some bool) {
	for i := range at.Endpoints {
		for j := range at.Endpoints[i].Rules {
			if r := &at.Endpoints[i].Rules[j]; r.Role == RoleMasquerade {
				sum, some = sum+r.Packets, true
			}
		}
	}
	return sum, some
}
