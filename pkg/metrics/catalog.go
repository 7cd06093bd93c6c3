// SPDX-License-Identifier: Apache-2.0

package metrics

import "slices"

// Prefix begins the name of every metric of the catalogue.
const Prefix = "svcscope_"

// Type is the Prometheus type of a metric.
type Type string

// The types in use.
const (
	Counter   Type = "counter"
	Gauge     Type = "gauge"
	Histogram Type = "histogram" // classic and native
)

// Unit is what a value counts or measures, in Prometheus' base units.
type Unit string

// The units in use.
const (
	unitConnections Unit = "connections"
	unitPackets     Unit = "packets"
	unitRules       Unit = "rules"
	unitChains      Unit = "chains"
	unitEndpoints   Unit = "endpoints"
	unitEntries     Unit = "entries"
	unitBuckets     Unit = "buckets"
	unitEvents      Unit = "events"
	unitObjects     Unit = "objects"
	unitServices    Unit = "services"
	unitCommits     Unit = "commits"
	unitBytes       Unit = "bytes"
	unitMessages    Unit = "messages"
	unitReadings    Unit = "readings"
	unitSeconds     Unit = "seconds"
	unitTimestamp   Unit = "seconds since 1970"
	unitBoolean     Unit = "0 or 1"
	unitRatio       Unit = "0 to 1"
	unitInfo        Unit = "always 1"
)

// Stability is the promise that a metric's name, labels and meaning make.
type Stability string

// The promises.
const (
	// Stable metrics are renamed with the old name kept for one minor release.
	Stable Stability = "stable"
	// Experimental metrics may change with any release.
	Experimental Stability = "experimental"
)

// Cost is what a metric costs the node at each sampling; a scrape costs
// nothing but formatting.
type Cost string

// The cost classes, from cheap to dear.
const (
	CostNone  Cost = "none"  // the agent's own state
	CostCall  Cost = "call"  // one cheap system call or a few messages
	CostRules Cost = "rules" // grows with the rules that are read
	// CostEntries grows with the entries of connection tracking, and is bounded
	// to 2 % of a core: see --conntrack.interval.
	CostEntries Cost = "entries"
	// CostTap is a look-up for every new flow, and grows with the Services' addresses
	// that are read.
	CostTap Cost = "tap"
)

// Label is one label of a metric.
type Label struct {
	Name string
	// Values is the closed set of values; nil for an open label, whose
	// number of values Bound limits.
	Values   []string
	Bound    string
	Question string // the question that the label answers
}

// Metric describes one metric. Names and labels are a public contract.
type Metric struct {
	Name      string
	Type      Type
	Unit      Unit
	Help      string  // the HELP line, one sentence or two, no full stop at the end
	Labels    []Label // in the order in which the Gatherer gives their values
	Stability Stability
	// Kernel is the kernel interface that the value is read from; empty
	// where the agent or the API knows it.
	Kernel    string
	MinKernel string // the first Linux release that has it; empty: all supported ones
	Cost      Cost
	When      string // the condition for its series to exist; empty: always
}

// LabelNames returns the names of the metric's labels in catalogue order.
func (m *Metric) LabelNames() []string {
	names := make([]string, len(m.Labels))
	for i, l := range m.Labels {
		names[i] = l.Name
	}
	return names
}

// Label returns the label of that name, or nil.
func (m *Metric) Label(name string) *Label {
	for i := range m.Labels {
		if m.Labels[i].Name == name {
			return &m.Labels[i]
		}
	}
	return nil
}

// Allows reports whether value may occur in the label.
func (l *Label) Allows(value string) bool {
	return l.Values == nil || slices.Contains(l.Values, value)
}

// Section is a group of metrics of the catalogue with a title for the reader.
type Section struct {
	Title   string
	Intro   string
	Metrics []Metric
}

// Catalog returns all metrics in sections. The caller may keep and change the
// value.
func Catalog() []Section {
	return []Section{
		{
			Title: "Services",
			Intro: "One series per Service port and IP family. Series exist only while the Service exists; all but " +
				"the connections counters exist only where they are not zero. Services above `--metrics.max-services` are " +
				"summed in `service_name=\"_other\"`, so that sums stay right.",
			Metrics: serviceMetrics(),
		},
		{
			Title: "Drops",
			Intro: "Packets that rules refuse, whoever wrote them. A packet that several rules could refuse counts at the " +
				"one that does.",
			Metrics: dropMetrics(),
		},
		{
			Title:   "Rules",
			Intro:   "How large the node's rules are and how often they change.",
			Metrics: ruleMetrics(),
		},
		{
			Title: "Drift",
			Intro: "Where the rules are not what kube-proxy should have made of the API, and how long changes take. " +
				"[docs/drift.md](drift.md) tells the kinds, and when a difference is drift.",
			Metrics: driftMetrics(),
		},
		{
			Title: "Connection tracking",
			Intro: "The table of the agent's network namespace, which is the node's. The `_total` statistics are the " +
				"kernel's per-CPU counters of 32 bits, summed and widened to 64. The kernel counts no new connections: its " +
				"`insert` statistic counts only entries made over netlink and is not exported.",
			Metrics: conntrackMetrics(),
		},
		{
			Title:   "Node and agent",
			Intro:   "What this node is, how its numbers are made, and whether the agent can be believed.",
			Metrics: selfMetrics(),
		},
	}
}

// Metrics returns all metrics of the catalogue sorted by name.
func Metrics() []Metric {
	var all []Metric
	for _, s := range Catalog() {
		all = append(all, s.Metrics...)
	}
	slices.SortFunc(all, func(a, b Metric) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	return all
}
