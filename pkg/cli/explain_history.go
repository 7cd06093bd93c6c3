// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"strings"

	"github.com/svcscope/svcscope/pkg/correlate"
	"github.com/svcscope/svcscope/pkg/service"
)

// readHistory asks the agent of this node for the last changes of a Service's rules.
func readHistory(ctx context.Context, e *env, agent string, name service.Name) (*correlate.HistoryReport, error) {
	query := url.Values{"namespace": {name.Namespace}, "name": {name.Name}}
	var r correlate.HistoryReport
	err := getJSON(ctx, e.client, strings.TrimSuffix(agent, "/")+"/api/v1/history?"+query.Encode(), &r)
	if err != nil {
		return nil, withRemedy(fmt.Errorf("read history of service %s from agent %s: %w", name, shown(agent), err),
			"only an agent on this node has seen changes: leave --history out where there is none")
	}
	return &r, nil
}

// writeHistory prints a line for each change, the newest first.
func writeHistory(w io.Writer, items []correlate.RuleChangeReport) error {
	if len(items) == 0 {
		_, err := io.WriteString(w, "\nHistory: the agent has seen no change of its rules.\n")
		return err
	}
	if _, err := io.WriteString(w, "\nHistory of its rules, as the agent has seen it:\n"); err != nil {
		return fmt.Errorf("write output: %w", err)
	}
	rows := [][]string{{"TIME", "PORT", "FAMILY", "BACKEND", "WRITER", "WHAT"}}
	for i := len(items) - 1; i >= 0; i-- {
		c := &items[i]
		writer, port := c.Writer, c.PortName
		if writer == "" {
			writer = "unknown"
		}
		if port == "" {
			port = noValue
		}
		rows = append(rows, []string{c.Time.Format("2006-01-02 15:04:05"), port, c.IPFamily, c.Backend, writer, changeText(c)})
	}
	return writeTable(w, rows)
}

// changeText is what has changed, in words.
func changeText(c *correlate.RuleChangeReport) string {
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
	const most = 6
	if more := len(parts) - most; more > 0 {
		parts = append(parts[:most], fmt.Sprintf("and %d more", more))
	}
	return strings.Join(parts, " ")
}
