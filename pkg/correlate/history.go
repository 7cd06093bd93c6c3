// SPDX-License-Identifier: Apache-2.0

package correlate

import (
	"net/netip"
	"slices"
	"time"

	"github.com/svcscope/svcscope/pkg/ruleset"
	"github.com/svcscope/svcscope/pkg/service"
)

// RuleChange is one change of the rules of a Service port that a reading has seen.
type RuleChange struct {
	Time    time.Time
	Backend ruleset.Backend
	Family  Family
	// Writer is who wrote them, as in svcscope_ruleset_changes_total; empty where nobody
	// listens.
	Writer string
	// Made and Removed: the port had no chains before, or has none any more.
	Made, Removed bool
	// EndpointsAdded and EndpointsRemoved are the rules' endpoints; where both are empty, other rules of
	// the port are others.
	EndpointsAdded, EndpointsRemoved []netip.AddrPort
}

// maxChanges is how many changes a report has at most: it is held in memory as a whole.
const maxChanges = 4096

// HistoryReport is the last changes of a Service's rules, or of all Services', in the shape
// of the HTTP path /api/v1/history. Its JSON names are a contract (docs/api.md).
type HistoryReport struct {
	ReportHead
	// Namespace and Name are those that were asked for; empty: all.
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name,omitempty"`
	// Items are the changes, the oldest first; at most 16 a port.
	Items []RuleChangeReport `json:"items"`
	// Omitted is how many older ones are left out.
	Omitted int `json:"omitted,omitempty"`
}

// RuleChangeReport is one change.
type RuleChangeReport struct {
	Time      time.Time `json:"time"`
	Namespace string    `json:"namespace"`
	Name      string    `json:"name"`
	PortName  string    `json:"portName,omitempty"`
	Protocol  string    `json:"protocol"`
	IPFamily  string    `json:"ipFamily"`
	Backend   string    `json:"backend"`
	Writer    string    `json:"writer,omitempty"`
	// What is made, removed, endpoints or rules.
	What             string   `json:"what"`
	EndpointsAdded   []string `json:"endpointsAdded,omitempty"`
	EndpointsRemoved []string `json:"endpointsRemoved,omitempty"`
}

// NewHistoryReport makes the report of a Service, or with its zero value that of all; of
// returns the changes of a port.
func NewHistoryReport(s *Snapshot, name service.Name, of func(service.PortName) []RuleChange) HistoryReport {
	r := HistoryReport{ReportHead: newReportHead(s), Namespace: name.Namespace, Name: name.Name, Items: []RuleChangeReport{}}
	seen := make(map[service.PortName]bool)
	for _, p := range s.Services {
		if name != (service.Name{}) && p.Port.Name != name || seen[p.Port] {
			continue
		}
		seen[p.Port] = true
		for _, c := range of(p.Port) {
			r.Items = append(r.Items, newRuleChange(p.Port, &c))
		}
	}
	slices.SortStableFunc(r.Items, func(a, b RuleChangeReport) int { return a.Time.Compare(b.Time) })
	if more := len(r.Items) - maxChanges; more > 0 {
		r.Items, r.Omitted = r.Items[more:], more
	}
	return r
}

func newRuleChange(p service.PortName, c *RuleChange) RuleChangeReport {
	return RuleChangeReport{
		Time: c.Time.UTC().Truncate(time.Millisecond), Namespace: p.Namespace, Name: p.Name.Name, PortName: p.Port, Protocol: string(p.Protocol),
		IPFamily: c.Family.String(), Backend: string(c.Backend), Writer: c.Writer, What: c.what(),
		EndpointsAdded: addresses(c.EndpointsAdded), EndpointsRemoved: addresses(c.EndpointsRemoved),
	}
}

func (c *RuleChange) what() string {
	switch {
	case c.Made:
		return "made"
	case c.Removed:
		return "removed"
	case len(c.EndpointsAdded)+len(c.EndpointsRemoved) > 0:
		return "endpoints"
	}
	return "rules"
}

func addresses(addrs []netip.AddrPort) (out []string) {
	for _, a := range addrs {
		if a.IsValid() {
			out = append(out, a.String())
		}
	}
	return out
}
