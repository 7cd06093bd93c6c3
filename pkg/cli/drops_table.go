// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/svcscope/svcscope/pkg/correlate"
)

// fewEvents is how many of the last events the narrow output has.
const fewEvents = 20

// writeDrops prints the report in sections, with the times of a zone.
func writeDrops(w io.Writer, r *correlate.DropsReport, o dropsOptions, zone *time.Location) error {
	var b strings.Builder
	var groups []string
	for i := range r.Groups {
		groups = append(groups, groupText(&r.Groups[i], zone))
	}
	line(&b, "EVENTS", []string{eventsText(r, o.source)})
	line(&b, "GROUPS", groups)
	line(&b, "TAP", tapText(r.Tap))
	line(&b, "NOTES", r.Notes)
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("write output: %w", err)
	}
	for _, section := range [][][]string{dropRows(r), policyRows(r)} {
		if len(section) < 2 {
			continue
		}
		if _, err := fmt.Fprintln(w); err != nil {
			return fmt.Errorf("write output: %w", err)
		}
		if err := writeTable(w, section); err != nil {
			return err
		}
	}
	return writeEvents(w, r.Events, o, zone)
}

func dropRows(r *correlate.DropsReport) [][]string {
	rows := [][]string{{"PACKETS", "REASON", "HOOK", "OWNER", "SERVICE"}}
	all := slices.DeleteFunc(slices.Clone(r.Rules), func(d correlate.DropTotalReport) bool { return d.Packets == 0 })
	slices.SortStableFunc(all, func(a, b correlate.DropTotalReport) int { return cmp.Compare(b.Packets, a.Packets) })
	for _, d := range all {
		rows = append(rows, []string{strconv.FormatUint(d.Packets, 10), d.Reason, d.Hook, d.Owner, objectText(d.Service)})
	}
	return rows
}

func policyRows(r *correlate.DropsReport) [][]string {
	rows := [][]string{{"PACKETS", "OWNER", "DIRECTION", "POLICY", "POD"}}
	all := slices.DeleteFunc(slices.Clone(r.Policies), func(d correlate.PolicyDropReport) bool { return d.Packets == 0 })
	slices.SortStableFunc(all, func(a, b correlate.PolicyDropReport) int { return cmp.Compare(b.Packets, a.Packets) })
	for _, d := range all {
		rows = append(rows, []string{
			strconv.FormatUint(d.Packets, 10), d.Owner, cmp.Or(d.Direction, "-"), objectText(d.Policy), objectText(d.Pod),
		})
	}
	return rows
}

func objectText(o *correlate.ObjectReport) string {
	if o == nil {
		return "-"
	}
	return objectName(o.Namespace, o.Name)
}

// writeEvents prints the last events, the newest last.
func writeEvents(w io.Writer, all []correlate.DropEventReport, o dropsOptions, zone *time.Location) error {
	if o.format != formatWide && len(all) > fewEvents {
		all = all[len(all)-fewEvents:]
	}
	if len(all) == 0 {
		return nil
	}
	var b strings.Builder
	b.WriteByte('\n')
	for i := range all {
		b.WriteString(dropLine(&all[i], zone) + "\n")
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("write output: %w", err)
	}
	return nil
}

// ofPod is an address and whose it is.
func ofPod(address string, pod *correlate.ObjectReport) string {
	if pod == nil {
		return address
	}
	return address + " (" + objectText(pod) + ")"
}

// dropLine is one event, with its time in a zone.
func dropLine(d *correlate.DropEventReport, zone *time.Location) string {
	what := d.Reason
	if !d.Refused {
		what = "logged"
	}
	s := fmt.Sprintf("%s  %-11s  %-14s %-11s  ", d.Time.In(zone).Format("15:04:05.000"), d.Hook, what, d.Owner)
	if d.From != "" {
		s += fmt.Sprintf("%s %s → %s", d.Protocol, ofPod(d.From, d.FromPod), ofPod(d.To, d.ToPod))
	} else {
		s += "its addresses were not copied"
	}
	var notes []string
	if d.Service != nil {
		notes = append(notes, "Service "+objectText(d.Service))
		if d.SentTo != d.To {
			notes = append(notes, "sent to "+d.SentTo)
		}
	}
	if d.Policy != nil {
		notes = append(notes, "policy "+objectText(d.Policy))
	}
	if d.Pod != nil {
		notes = append(notes, "pod "+objectText(d.Pod))
	}
	switch {
	case d.Chain != "":
		notes = append(notes, "rule in "+d.Table+" "+d.Chain)
	case d.Prefix != "":
		notes = append(notes, strconv.Quote(d.Prefix))
	}
	if len(notes) == 0 {
		return s
	}
	return s + "  (" + strings.Join(notes, ", ") + ")"
}
