// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"io"
	"strconv"
	"time"

	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/svcscope/svcscope/pkg/correlate"
)

// noValue stands where there is no number to show: unlike 0 it does not say
// that nothing happened.
const noValue = "-"

// otherService stands for the Services above the series cap. It is no valid
// name of a Service.
const otherService = "_other"

// serviceColumn is one column of the table of Services.
type serviceColumn struct {
	header string
	show   bool
	cell   func(*correlate.ServiceReport) string
}

// serviceColumns lists the columns for the report in the order shown. The
// narrow set keeps to 100 characters with names and IPv6 addresses as long as
// most are.
func serviceColumns(r *correlate.ServicesReport, o servicesOptions) []serviceColumn {
	wide := o.format == formatWide
	agent := r.Source == correlate.SourceAgent
	connections := "CONNECTIONS"
	if !agent {
		connections = "CONNECTIONS SINCE RULE"
	}
	return []serviceColumn{
		// As kubectl: a namespace that was asked for is not repeated.
		{"NAMESPACE", o.namespace == "", func(s *correlate.ServiceReport) string { return s.Namespace }},
		{"NAME", true, func(s *correlate.ServiceReport) string { return s.Name }},
		{"TYPE", wide, func(s *correlate.ServiceReport) string { return cmp.Or(s.Type, noValue) }},
		{"PORT-NAME", wide, func(s *correlate.ServiceReport) string { return cmp.Or(s.PortName, noValue) }},
		{"PORT", true, func(s *correlate.ServiceReport) string { return portCell(s, wide) }},
		{"FAMILY", wide, func(s *correlate.ServiceReport) string { return s.IPFamily }},
		{"CLUSTER-IP", true, clusterIPCell},
		{connections, true, connectionsCell(func(c *correlate.ConnectionsReport) uint64 { return c.Total })},
		{"CLUSTER", wide, connectionsCell(func(c *correlate.ConnectionsReport) uint64 { return c.Cluster })},
		{"EXTERNAL", wide, connectionsCell(func(c *correlate.ConnectionsReport) uint64 { return c.External })},
		{"REJECTED", true, rejectedCell},
		{"ENDPOINTS", true, endpointsCell},
		{"RULES", wide, rulesCell},
		{"SINCE", agent, func(s *correlate.ServiceReport) string { return sinceCell(s.Since, r.Time) }},
	}
}

// writeServices prints the table of Services, with the sums of those above the
// series cap below it.
func writeServices(w io.Writer, r *correlate.ServicesReport, o servicesOptions) error {
	columns := serviceColumns(r, o)
	rows := make([][]string, 1, 1+len(r.Items)+len(r.Other))
	for _, c := range columns {
		if c.show {
			rows[0] = append(rows[0], c.header)
		}
	}
	add := func(s *correlate.ServiceReport) {
		var row []string
		for _, c := range columns {
			if c.show {
				row = append(row, c.cell(s))
			}
		}
		rows = append(rows, row)
	}
	for i := range r.Items {
		add(&r.Items[i])
	}
	for i := range r.Other {
		add(otherRow(&r.Other[i]))
	}
	return writeTable(w, rows)
}

// otherRow is the line of the Services above the cap, in the name that their
// series have.
func otherRow(o *correlate.OtherReport) *correlate.ServiceReport {
	return &correlate.ServiceReport{
		Namespace: noValue, Name: otherService, Protocol: o.Protocol, IPFamily: o.IPFamily,
		Connections: &o.Connections, RejectedPackets: o.RejectedPackets, Since: o.Since,
	}
}

// portCell is 80/TCP, in the wide form 80:30080/TCP as kubectl prints it.
// Where the API does not tell the number the port's name stands for it.
func portCell(s *correlate.ServiceReport, wide bool) string {
	port := cmp.Or(s.PortName, noValue)
	if s.Port != 0 {
		port = strconv.Itoa(int(s.Port))
	}
	if wide && s.NodePort != 0 {
		port += ":" + strconv.Itoa(int(s.NodePort))
	}
	return port + "/" + s.Protocol
}

// clusterIPCell shows the family where the address is not known, so that the
// two lines of a dual-stack Service can be told apart.
func clusterIPCell(s *correlate.ServiceReport) string {
	return cmp.Or(s.ClusterIP, noValue+" ("+s.IPFamily+")")
}

func connectionsCell(
	count func(*correlate.ConnectionsReport) uint64,
) func(*correlate.ServiceReport) string {
	return func(s *correlate.ServiceReport) string {
		if s.Connections == nil {
			return noValue
		}
		return strconv.FormatUint(count(s.Connections), 10)
	}
}

func rejectedCell(s *correlate.ServiceReport) string {
	if s.Connections == nil {
		return noValue
	}
	var sum uint64
	for _, n := range s.RejectedPackets {
		sum += n
	}
	return strconv.FormatUint(sum, 10)
}

func endpointsCell(s *correlate.ServiceReport) string {
	if s.Name == otherService {
		return noValue
	}
	return countCell(s.Endpoints.Kernel) + "/" + countCell(s.Endpoints.API)
}

// countCell is a number, or "?" where it is not known.
func countCell(n *int) string {
	if n == nil {
		return "?"
	}
	return strconv.Itoa(*n)
}

// rulesCell shows a number where the rules are known.
func rulesCell(s *correlate.ServiceReport) string {
	if s.Endpoints.Kernel == nil {
		return noValue
	}
	sum := 0
	for _, n := range s.Rules {
		sum += n
	}
	return strconv.Itoa(sum)
}

// sinceCell is how long ago the counts started at 0, as kubectl prints an age.
func sinceCell(since *time.Time, now time.Time) string {
	if since == nil {
		return noValue
	}
	return duration.HumanDuration(now.Sub(*since))
}
