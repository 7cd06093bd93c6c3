// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/url"
	"slices"
	"strings"
	"syscall"

	"github.com/svcscope/svcscope/pkg/correlate"
	"github.com/svcscope/svcscope/pkg/explain"
	"github.com/svcscope/svcscope/pkg/service"
)

// recallDrift adds to a report what the agent on this node, or that of the snapshot, tells of
// its differences. Where none tells, the report is as it is, and says so.
func recallDrift(ctx context.Context, e *env, o sourceOptions, r *explain.Report) {
	told, err := askDrift(ctx, e, o)
	switch {
	case err == nil && told.Node != r.Node:
		err = fmt.Errorf("it is the agent of node %s", told.Node)
	case err == nil:
		r.Recall(told.Time, sightings(&told), told.Unknown == "")
	}
	if err != nil && !errors.Is(err, syscall.ECONNREFUSED) && !errors.Is(err, errNoAgent) {
		fmt.Fprintf(e.stderr, "note: since when rules differ is not known: agent at %s: %v\n", shown(o.agent), err)
	}
}

// errNoAgent says that no agent has told anything.
var errNoAgent = errors.New("no agent")

// askDrift is what an agent tells of drift.
func askDrift(ctx context.Context, e *env, o sourceOptions) (r correlate.DriftReport, err error) {
	switch {
	case o.from != "":
		r, err = readSnapshotReport(e, o, driftSource())
		if err != nil || r.Source != correlate.SourceAgent {
			err = errNoAgent
		}
	case o.agent == noAgent:
		err = errNoAgent
	default:
		err = getJSON(ctx, e.client, strings.TrimSuffix(o.agent, "/")+"/api/v1/drift", &r)
		if err == nil && r.Source == "" {
			err = errors.New("decode answer: not a report of drift")
		}
	}
	return r, err
}

// sightings are what a report of drift tells, in explain's words.
func sightings(r *correlate.DriftReport) []explain.Sighting {
	var all []explain.Sighting
	add := func(items []correlate.DriftItem, drift bool) {
		for i := range items {
			d := &items[i]
			s := explain.Sighting{IPFamily: d.IPFamily, Difference: explain.Difference{
				Kind: string(d.Kind), Frontend: d.Frontend, Detail: d.Detail, Drift: new(drift), Since: d.Since,
			}}
			s.Port = service.PortName{
				Name: service.Name{Namespace: d.Namespace, Name: d.Name}, Port: d.PortName, Protocol: service.Protocol(d.Protocol),
			}
			all = append(all, s)
		}
	}
	add(r.Items, true)
	add(r.Pending, false)
	return all
}

// historySource is the report of the changes of all Services' rules, which the kernel does not
// tell.
func historySource() reportSource[correlate.HistoryReport] {
	return reportSource[correlate.HistoryReport]{
		what: "history", head: func(r *correlate.HistoryReport) *correlate.ReportHead { return &r.ReportHead },
	}
}

// readHistory reads the last changes of the rules of the ports in a report, as the agent
// on this node has seen them, or that of the snapshot.
func readHistory(ctx context.Context, e *env, o *explainOptions, r *explain.Report) ([]correlate.RuleChangeReport, error) {
	name := o.query.Service
	var h correlate.HistoryReport
	var err error
	if o.source.from != "" {
		h, err = readSnapshotReport(e, o.source, historySource())
	} else {
		query := url.Values{"namespace": {name.Namespace}, "name": {name.Name}}
		err = getJSON(ctx, e.client, strings.TrimSuffix(o.source.agent, "/")+"/api/v1/history?"+query.Encode(), &h)
		if err == nil && h.Source == "" {
			err = errors.New("decode answer: not a report of history")
		}
		if err != nil {
			err = withRemedy(fmt.Errorf("read history of service %s from agent %s: %w", name, shown(o.source.agent), err),
				"only an agent on this node has seen changes: leave --history out where there is none")
		}
	}
	if err != nil {
		return nil, err
	}
	if h.Node != r.Node {
		fmt.Fprintf(e.stderr, "warning: the history is of node %s, and the rules of node %s\n", printable(h.Node), printable(r.Node))
	}
	if h.Omitted > 0 {
		fmt.Fprintf(e.stderr, "note: the history is that of the last %d changes of all Services\n", len(h.Items))
	}
	asked := func(c correlate.RuleChangeReport) bool {
		of := func(p explain.Path) bool { return p.PortName == c.PortName && p.Protocol == c.Protocol }
		return c.Namespace == name.Namespace && c.Name == name.Name && (o.query.Port == "" || slices.ContainsFunc(r.Paths, of))
	}
	items := slices.DeleteFunc(h.Items, func(c correlate.RuleChangeReport) bool { return !asked(c) })
	return append([]correlate.RuleChangeReport{}, items...), nil
}

// writeHistory prints a line for each change, the newest first.
func writeHistory(w io.Writer, items []correlate.RuleChangeReport, width int) error {
	if len(items) == 0 {
		_, err := io.WriteString(w, "\nHistory: the agent has seen no change of its rules.\n")
		return err
	}
	if _, err := io.WriteString(w, "\nHistory of its rules, as the agent has seen it:\n"); err != nil {
		return fmt.Errorf("write output: %w", err)
	}
	most := 6 // endpoints of one change; JSON has all
	if width == 0 {
		most = math.MaxInt
	}
	rows := [][]string{{"TIME (UTC)", "PORT", "FAMILY", "BACKEND", "WRITER", "WHAT"}}
	for i := len(items) - 1; i >= 0; i-- {
		c := &items[i]
		writer, port := c.Writer, c.PortName
		if writer == "" {
			writer = "unknown"
		}
		if port == "" {
			port = noValue
		}
		rows = append(rows, []string{c.Time.UTC().Format("2006-01-02 15:04:05"), port, c.IPFamily, c.Backend, writer, changeText(c, most)})
	}
	return writeFolded(w, rows, width)
}

// changeText is what has changed, in words: so many endpoints at most.
func changeText(c *correlate.RuleChangeReport, most int) string {
	var parts []string
	switch c.What {
	case "made", "removed":
		parts = append(parts, "chains "+c.What)
	case "rules":
		return "rules are others, to the same endpoints"
	}
	for _, a := range c.EndpointsAdded {
		parts = append(parts, "+"+a)
	}
	for _, a := range c.EndpointsRemoved {
		parts = append(parts, "-"+a)
	}
	if more := len(parts) - most; more > 0 {
		parts = append(parts[:most], fmt.Sprintf("and %d more", more))
	}
	return strings.Join(parts, " ")
}
