// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/svcscope/svcscope/pkg/correlate"
)

const (
	// fewServices is how many Services the narrow table has.
	fewServices = 20
	// lineWidth is how long a line of words may be.
	lineWidth = 100
	// chainLimit is the ratio of limit to buckets up to which chains are short
	// enough: kube-proxy sets 4.
	chainLimit = 4
	// pressing is the share of source ports from which on the narrow table has
	// a destination.
	pressing = 0.01
)

// writeConntrack prints the report in sections.
func writeConntrack(w io.Writer, r *correlate.ConntrackReport, o conntrackOptions) error {
	var b strings.Builder
	tableLines(&b, r)
	lossLines(&b, r)
	if r.Entries != nil {
		entryLines(&b, r)
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("write output: %w", err)
	}
	if r.Entries == nil {
		return nil
	}
	if err := writeServiceEntries(w, r.Entries.Services, o); err != nil {
		return err
	}
	return writePorts(w, r.Entries.SourcePorts, o)
}

// line writes words under a heading, broken where they get too long.
func line(b *strings.Builder, heading string, words []string) {
	const indent = 10
	at := 0
	for i, word := range words {
		if i < len(words)-1 {
			word += ","
		}
		switch {
		case i == 0:
			fmt.Fprintf(b, "%-*s%s", indent, heading, word)
			at = indent + len(word)
		case at+1+len(word) > lineWidth:
			fmt.Fprintf(b, "\n%*s%s", indent, "", word)
			at = indent + len(word)
		default:
			b.WriteString(" " + word)
			at += 1 + len(word)
		}
	}
	if len(words) > 0 {
		b.WriteByte('\n')
	}
}

func tableLines(b *strings.Builder, r *correlate.ConntrackReport) {
	t := r.Table
	if t == nil {
		return
	}
	words := []string{fmt.Sprintf("%d of %d entries (%s)", t.Entries, t.Limit, percent(t.Entries, t.Limit))}
	if r.Source == correlate.SourceAgent {
		words = append(words, fmt.Sprintf("peak %d", t.Peak))
		switch {
		case t.TimeToFullSeconds == nil:
			words = append(words, "not filling")
		case *t.TimeToFullSeconds == 0:
			words = append(words, "full")
		default:
			words = append(words, "full in "+duration.HumanDuration(time.Duration(*t.TimeToFullSeconds*float64(time.Second)))+" if it goes on so")
		}
	}
	line(b, "TABLE", append(words, fmt.Sprintf("%d buckets", t.Buckets)))
	if t.Buckets > 0 && t.Limit > chainLimit*t.Buckets {
		line(b, "WARNING", []string{
			fmt.Sprintf("the limit is %d times the buckets: chains get long", t.Limit/t.Buckets),
			fmt.Sprintf("set nf_conntrack_buckets to %d", t.Limit/chainLimit),
		})
	}
}

func percent(n, of uint64) string {
	if of == 0 {
		return "?"
	}
	return strconv.FormatFloat(100*float64(n)/float64(of), 'f', 0, 64) + " %"
}

func lossLines(b *strings.Builder, r *correlate.ConntrackReport) {
	if r.Losses == nil {
		return
	}
	words := []string{"in " + duration.HumanDuration(r.Time.Sub(r.Losses.Since))}
	for _, cause := range slices.Sorted(maps.Keys(r.Losses.Packets)) {
		words = append(words, fmt.Sprintf("%s %d", cause, r.Losses.Packets[cause]))
	}
	line(b, "LOSSES", words)
}

func entryLines(b *strings.Builder, r *correlate.ConntrackReport) {
	e := r.Entries
	words := []string{fmt.Sprintf("%d", e.Read)}
	if r.Source == correlate.SourceAgent {
		words[0] += " " + duration.HumanDuration(max(0, r.Time.Sub(e.Time))) + " before"
	}
	for _, owner := range slices.SortedFunc(maps.Keys(e.Owners), func(a, b string) int {
		return cmp.Or(cmp.Compare(e.Owners[b], e.Owners[a]), cmp.Compare(a, b))
	}) {
		words = append(words, fmt.Sprintf("%s %d", owner, e.Owners[owner]))
	}
	line(b, "ENTRIES", words)
	states := slices.Clone(e.States)
	slices.SortStableFunc(states, func(a, b correlate.StateReport) int { return cmp.Compare(b.Entries, a.Entries) })
	words = nil
	for _, s := range states {
		words = append(words, fmt.Sprintf("%s %s %d", s.Protocol, s.State, s.Entries))
	}
	line(b, "STATES", words)
}

func writeServiceEntries(w io.Writer, all []correlate.ServiceEntriesReport, o conntrackOptions) error {
	if len(all) == 0 {
		return nil
	}
	wide := o.format == formatWide
	header := []string{"NAME", "PORT", "FAMILY", "ENTRIES", "REPLIED", "UNREPLIED", "CLOSING", "STALE", "UNANSWERED"}
	if o.namespace == "" {
		header = append([]string{"NAMESPACE"}, header...)
	}
	rows := [][]string{header}
	number := func(n uint64) string { return strconv.FormatUint(n, 10) }
	for i := range all {
		if !wide && i == fewServices {
			break
		}
		s := &all[i]
		row := []string{
			s.Name, cmp.Or(s.PortName, noValue) + "/" + s.Protocol, s.IPFamily, number(s.Entries), number(s.Replied),
			number(s.Unreplied), number(s.Closing), number(s.Stale), number(s.UnansweredLocal) + "/" + number(s.UnansweredRemote),
		}
		if o.namespace == "" {
			row = append([]string{s.Namespace}, row...)
		}
		rows = append(rows, row)
	}
	if _, err := io.WriteString(w, "\n"); err != nil {
		return fmt.Errorf("write output: %w", err)
	}
	if err := writeTable(w, rows); err != nil {
		return err
	}
	if more := len(all) - fewServices; more > 0 && !wide {
		if _, err := fmt.Fprintf(w, "and %d more: -o wide\n", more); err != nil {
			return fmt.Errorf("write output: %w", err)
		}
	}
	return nil
}

func writePorts(w io.Writer, all []correlate.SourcePortsReport, o conntrackOptions) error {
	rows := [][]string{{"SOURCE", "DESTINATION", "PORTS USED", "OF ALL"}}
	for i := range all {
		p := &all[i]
		if o.format == formatWide || p.Pressure >= pressing {
			rows = append(rows, []string{
				p.Source, p.Destination + "/" + p.Protocol, strconv.FormatUint(p.Used, 10), percent(p.Used, correlate.SourcePorts),
			})
		}
	}
	if len(rows) == 1 {
		return nil
	}
	if _, err := io.WriteString(w, "\n"); err != nil {
		return fmt.Errorf("write output: %w", err)
	}
	return writeTable(w, rows)
}
