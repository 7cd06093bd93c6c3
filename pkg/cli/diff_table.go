// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/svcscope/svcscope/pkg/nodediff"
)

// writeDiff prints what differs in sections: the node, and each port of a Service.
func writeDiff(w io.Writer, r *nodediff.Report) error {
	var b strings.Builder
	sideLine(&b, "A", &r.A)
	sideLine(&b, "B", &r.B)
	if len(r.Node) > 0 {
		b.WriteString("\nnode\n")
		differenceLines(&b, r.Node)
	}
	for i := range r.Services {
		s := &r.Services[i]
		port := s.Protocol
		if s.PortName != "" {
			port = s.PortName + "/" + port
		}
		fmt.Fprintf(&b, "\n%s/%s %s %s\n", s.Namespace, s.Name, port, s.IPFamily)
		differenceLines(&b, s.Differences)
	}
	switch none := len(r.Node)+len(r.Services) == 0; {
	case none && len(r.NotCompared) > 0:
		b.WriteString("\nnothing differs of what was compared\n")
	case none:
		b.WriteString("\nnothing differs\n")
	}
	for i, g := range r.NotCompared {
		if i == 0 {
			b.WriteString("\nnot compared\n")
		}
		fmt.Fprintf(&b, "  %s: %s\n", g.Object, g.Why)
	}
	if _, err := io.WriteString(w, printable(b.String())); err != nil {
		return fmt.Errorf("write output: %w", err)
	}
	return nil
}

// sideLine is one of the two nodes.
func sideLine(b *strings.Builder, name string, s *nodediff.Side) {
	words := []string{s.ProxyMode}
	if len(s.Backends) > 0 {
		words = append(words, "("+strings.Join(s.Backends, ", ")+")")
	}
	if s.Kernel != "" {
		words = append(words, "kernel "+s.Kernel)
	}
	fmt.Fprintf(b, "%s  %s  %s\n", name, s.Node, strings.Join(words, " "))
}

// differenceLines prints those of one object below it.
func differenceLines(b *strings.Builder, all []nodediff.Difference) {
	for i := range all {
		d := &all[i]
		if i == 0 || all[i-1].What != d.What || all[i-1].Object != d.Object || all[i-1].Explained != d.Explained {
			fmt.Fprintf(b, "  %s %s%s\n", whatText(d.What), d.Object, explanationText(d.Explained))
		}
		if d.A != "" {
			fmt.Fprintf(b, "    - %s\n", d.A)
		}
		if d.B != "" {
			fmt.Fprintf(b, "    + %s\n", d.B)
		}
	}
}

// whatText is a kind of thing in words.
func whatText(w nodediff.What) string { return strings.ReplaceAll(string(w), "_", " ") }

func explanationText(e nodediff.Explanation) string {
	switch e {
	case nodediff.ByPolicy:
		return "  (by policy)"
	case nodediff.ByAPI:
		return "  (by API)"
	}
	return ""
}
