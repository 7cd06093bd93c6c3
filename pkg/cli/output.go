// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"
)

// choice is a flag that takes one of a few words.
type choice struct {
	value   string
	allowed []string
}

// String implements pflag.Value.
func (c *choice) String() string { return c.value }

// Type implements pflag.Value: what --help shows for the argument.
func (c *choice) Type() string { return strings.Join(c.allowed, "|") }

// Set implements pflag.Value.
func (c *choice) Set(s string) error {
	if !slices.Contains(c.allowed, s) {
		return fmt.Errorf("must be one of %s", strings.Join(c.allowed, ", "))
	}
	c.value = s
	return nil
}

// choiceFlag adds a flag that takes one of the words allowed, the first of
// which is its default, and completes to them.
func choiceFlag(cmd *cobra.Command, name, usage string, allowed ...string) *choice {
	c := &choice{value: allowed[0], allowed: allowed}
	cmd.Flags().Var(c, name, usage)
	completeWords(cmd, name, allowed)
	return c
}

func completeWords(cmd *cobra.Command, name string, words []string) {
	err := cmd.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp))
	if err != nil {
		panic(err) // the flag was added above
	}
}

// Output formats.
const (
	formatTable = "table"
	formatWide  = "wide"
	formatJSON  = "json"
	formatYAML  = "yaml"
)

// outputFlag adds -o.
func outputFlag(cmd *cobra.Command) *choice {
	c := &choice{value: formatTable, allowed: []string{formatTable, formatWide, formatJSON, formatYAML}}
	cmd.Flags().VarP(c, "output", "o", "output format")
	completeWords(cmd, "output", c.allowed)
	return c
}

// writeObject writes v as JSON or YAML; both have the names of v's json tags.
func writeObject(w io.Writer, format string, v any) error {
	var b []byte
	var err error
	if format == formatYAML {
		b, err = yaml.Marshal(v)
	} else {
		b, err = json.MarshalIndent(v, "", "  ")
		b = append(escapeControls(b), '\n')
	}
	if err != nil {
		return fmt.Errorf("format %s: %w", format, err)
	}
	if _, err := w.Write(b); err != nil {
		return fmt.Errorf("write output: %w", err)
	}
	return nil
}

// escapeControls is a JSON text in which what would control a terminal, and JSON lets
// stand, is written by its number.
func escapeControls(b []byte) []byte {
	controls := func(r rune) bool { return r > 0x1f && unicode.IsControl(r) }
	if !bytes.ContainsFunc(b, controls) {
		return b
	}
	var out []byte
	for _, r := range string(b) {
		if controls(r) {
			out = fmt.Appendf(out, `\u%04x`, r)
		} else {
			out = utf8.AppendRune(out, r)
		}
	}
	return out
}

// writeTable writes rows, the first of which is the header, in columns two
// spaces apart.
func writeTable(w io.Writer, rows [][]string) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		fmt.Fprintln(tw, strings.Join(row, "\t"))
	}
	if err := tw.Flush(); err != nil {
		return fmt.Errorf("write output: %w", err)
	}
	return nil
}

// writeFolded writes rows as writeTable does, and what others have said in them so that it
// does not control the terminal. The last cell of a row that is longer than width, unless
// that is 0, stands in lines below it.
func writeFolded(w io.Writer, rows [][]string, width int) error {
	const gap, indent = "  ", "    "
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	var b strings.Builder
	for _, row := range rows {
		line, last := "", printable(row[len(row)-1])
		for i, cell := range row[:len(row)-1] {
			line += printable(cell) + strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)) + gap
		}
		if width == 0 || utf8.RuneCountInString(line+last) <= width {
			b.WriteString(strings.TrimRight(line+last, " ") + "\n")
			continue
		}
		b.WriteString(strings.TrimRight(line, " "))
		at := width // of a line that is full
		for word := range strings.FieldsSeq(last) {
			if at+1+utf8.RuneCountInString(word) > width {
				b.WriteString("\n" + indent)
				at = len(indent)
			} else {
				b.WriteString(" ")
				at++
			}
			b.WriteString(word)
			at += utf8.RuneCountInString(word)
		}
		b.WriteString("\n")
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("write output: %w", err)
	}
	return nil
}

// clearScreen empties a terminal and goes to its first line.
func clearScreen(w io.Writer) error {
	if _, err := io.WriteString(w, "\x1b[H\x1b[2J"); err != nil {
		return fmt.Errorf("write output: %w", err)
	}
	return nil
}
