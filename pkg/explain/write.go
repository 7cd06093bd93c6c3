// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Options are how Write prints.
type Options struct {
	// Width is how long lines may be; 0: as long as they get.
	Width int
	// Commands adds below each number a command that shows the same one.
	Commands bool
	// Dim prints commands so, on a terminal.
	Dim bool
}

// Write prints a report for people.
func Write(w io.Writer, r *Report, o Options) error {
	p := &printer{Options: o}
	p.service(r)
	synced := false
	for i := range r.Paths {
		p.blank()
		p.path(r, &r.Paths[i])
		synced = synced || r.Paths[i].Backend != ""
	}
	if synced {
		p.blank()
		p.wrap("", "* since kube-proxy's last sync, which writes these rules anew; the other rules count since they were written.")
	}
	if p.differed {
		p.wrap("", lastingText(r))
	}
	if _, err := io.WriteString(w, p.b.String()); err != nil {
		return fmt.Errorf("write output: %w", err)
	}
	return nil
}

// printer writes lines that are no longer than they may be.
type printer struct {
	Options
	b        strings.Builder
	differed bool
}

func (p *printer) blank() { p.b.WriteByte('\n') }

// line writes one, cut at its end.
func (p *printer) line(text string) {
	p.b.WriteString(strings.TrimRight(cut(cleaned(text), p.Width), " "))
	p.b.WriteByte('\n')
}

// cleaned is a text without what would control a terminal: comments of rules are anybody's.
func cleaned(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return unicode.ReplacementChar
		}
		return r
	}, s)
}

// fits reports whether a line is no longer than it may be.
func (p *printer) fits(text string) bool {
	return p.Width <= 0 || utf8.RuneCountInString(text) <= p.Width
}

// cut leaves out what is beyond a width, if that is not 0.
func cut(s string, width int) string {
	if width <= 0 || utf8.RuneCountInString(s) <= width {
		return s
	}
	runes := []rune(s)
	return string(runes[:width-1]) + "…"
}

// wrap writes words after a heading, and goes on below them where the line is full.
func (p *printer) wrap(heading, text string) {
	p.flow(heading, strings.Repeat(" ", utf8.RuneCountInString(heading)), text)
}

// flow writes words after first, and after other in the lines that come then. A word that
// is longer than a line is broken.
func (p *printer) flow(first, other, text string) {
	at, full := first, false // full: at has words
	for word := range strings.FieldsSeq(text) {
		if full && !p.fits(at+" "+word) {
			p.line(at)
			at, full = other, false
		}
		if full {
			at += " "
		}
		at, full = at+word, true
		for !p.fits(at) && utf8.RuneCountInString(other) < p.Width {
			runes := []rune(at)
			p.line(string(runes[:p.Width]))
			at = other + string(runes[p.Width:])
		}
	}
	p.line(at)
}

// command writes a command below what it shows; a shell takes a long one in two lines.
func (p *printer) command(indent, command string) {
	if !p.Commands || command == "" {
		return
	}
	width := p.Width - utf8.RuneCountInString(indent) - len("$ ") - len(" \\")
	first := true
	for _, part := range split(command, width) {
		lead := "  "
		if first {
			lead, first = "$ ", false
		}
		text := lead + cleaned(part)
		if p.Dim {
			text = "\x1b[2m" + text + "\x1b[0m"
		}
		p.b.WriteString(indent + text + "\n")
	}
}

// split breaks a command between words so that parts are no longer than width, and all
// but the last end with a backslash.
func split(command string, width int) []string {
	if width <= 0 || len(command) <= width {
		return []string{command}
	}
	var out []string
	at := ""
	for word := range strings.FieldsSeq(command) {
		if at != "" && len(at)+1+len(word) > width {
			out, at = append(out, at+` \`), ""
		}
		at = strings.TrimPrefix(at+" "+word, " ")
	}
	return append(out, at)
}

// field writes `Name:     text` unless the text is empty.
func (p *printer) field(name, text string) {
	if text != "" {
		p.wrap(fmt.Sprintf("%-11s", name+":"), text)
	}
}

// service writes what is known of the Service, the node and the sources.
func (p *printer) service(r *Report) {
	s := &r.Service
	name := s.Namespace + "/" + s.Name
	if s.Type != "" {
		name += ", " + s.Type
	}
	if s.InAPI != nil && !*s.InAPI {
		name += ", not in the API"
	}
	p.field("Service", name)
	p.field("Addresses", addressText(s))
	p.field("Policies", policyText(s))
	if s.AffinitySeconds > 0 {
		p.field("Affinity", fmt.Sprintf("ClientIP, %d s", s.AffinitySeconds))
	}
	p.field("Sources", strings.Join(s.SourceRanges, " "))
	node := cmp.Or(r.Node, "unknown")
	if r.Kernel != "" {
		node += ", kernel " + r.Kernel
	}
	if modes := modeText(r.Families); modes != "" {
		node += ", " + modes
	}
	p.field("Node", node)
	p.field("Read", timeText(r.Time))
	p.field("API", apiText(r))
	for _, b := range []string{"nft", "legacy"} {
		if why := r.Unread[b]; why != "" {
			p.field("Rules", b+" not read: "+why)
		}
	}
	if r.ConntrackError != "" {
		p.field("Conntrack", "not read: "+r.ConntrackError)
	}
	p.field("Skipped", skippedText(s))
	for i := range r.Families {
		for j := range r.Families[i].Differences {
			p.differed = true
			p.field("Differs", r.Families[i].IPFamily+" "+differenceText(&r.Families[i].Differences[j])+" (all Services)"+lastsText(&r.Families[i].Differences[j]))
		}
	}
}

// path writes one port in one family.
func (p *printer) path(r *Report, at *Path) {
	title := "Port " + portText(at.PortName, at.Port, at.Protocol) + ", " + at.IPFamily
	if at.Backend != "" {
		title += ", " + tool(at.IPFamily, at.Backend)
	}
	p.line(title)
	if at.Unexplained != "" {
		p.wrap("  ", unexplainedText(at, r))
	} else {
		p.differences(r, at)
		p.affinity(at)
		p.blank()
		p.tree(at)
	}
	p.tables(at)
}

func (p *printer) differences(r *Report, at *Path) {
	const heading = "  Differs:   "
	all := slices.ContainsFunc(r.Families, func(f Family) bool { return f.IPFamily == at.IPFamily && len(f.Differences) > 0 })
	switch {
	case len(at.Differences) > 0:
		p.differed = true
		for i := range at.Differences {
			p.wrap(heading, differenceText(&at.Differences[i])+lastsText(&at.Differences[i]))
		}
	case at.Differences == nil:
		p.wrap(heading, unjudgedText(r))
	case all:
		p.wrap(heading, "nothing but what differs for all Services, above")
	default:
		p.wrap(heading, "nothing from what the API wants")
	}
}

func (p *printer) affinity(at *Path) {
	var wanted uint32
	if at.Wanted != nil {
		wanted = at.Wanted.AffinitySeconds
	}
	switch {
	case at.AffinitySeconds == 0 && wanted == 0:
		return
	case at.AffinitySeconds == 0:
		p.wrap("  Affinity:  ", fmt.Sprintf("none in the rules, %d s wanted", wanted))
	default:
		p.wrap("  Affinity:  ", fmt.Sprintf("clients that come back within %d s keep their endpoint", at.AffinitySeconds))
	}
}
