// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"cmp"
	"slices"
	"time"

	dto "github.com/prometheus/client_model/go"

	"github.com/svcscope/svcscope/pkg/correlate"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/service"
)

// otherService is the service_name that Services above the cap are summed in.
const otherService = correlate.OtherServices

// Values of the labels via and source.
const (
	viaCluster   = "cluster"
	viaExternal  = "external"
	sourceAPI    = "api"
	sourceKernel = "kernel"

	stateReplied   = "replied"
	stateUnreplied = "unreplied"
	stateClosing   = "closing"
	whereLocal     = "local"
	whereRemote    = "remote"
)

// serviceSeries makes the Service metrics and keeps what scrapes share: a row
// of series for each row of the snapshot, while the newest snapshot has it.
type serviceSeries struct {
	endpoints   bool // endpoint_connections_total too
	connections *def
	byEndpoint  *def
	rejected    *def
	rules       *def
	counts      *def
	entries     *def
	stale       *def
	unanswered  *def

	flows    *correlate.Flows         // likewise
	services []*correlate.ServicePort // what rows are made of
	rows     []*row                   // of those that are exposed, in their order
	spare    []*row                   // room for the next rows
	others   []*row
	tables   []string // scratch of sortedTables
	addr     []byte   // scratch of addEndpoints
	// pairs are the label pairs of small sets of values, which many series
	// share. What grows with Services or endpoints is not in it.
	pairs map[[2]string]*dto.LabelPair
}

// row holds the series of one Service port in one family.
type row struct {
	port   service.PortName
	family netfilter.Family
	from   *correlate.ServicePort // what the samples say; nil of an OtherTotal
	flows  correlate.ServiceFlows // likewise
	base   [5]*dto.LabelPair      // the labels that all its series share, sorted by name
	series []series               // in the order in which fill makes them
}

// series is one series with its newest sample.
type series struct {
	def *def
	own string // the value of the metric's own label
	// sample is handed out: replaced when the value changes, never written.
	sample *dto.Metric
}

// values is what a ServicePort and an OtherTotal have in common.
type values struct {
	created           time.Time
	cluster, external uint64
	rejected          map[correlate.Reason]uint64
	rules             map[string]int
	api, kernel       int
	endpoints         []correlate.Endpoint
	flows             correlate.ServiceFlows
	uncounted         bool // nothing is counted, not even 0
}

func newServiceSeries(defs map[string]*def, endpoints bool) *serviceSeries {
	return &serviceSeries{
		endpoints:   endpoints,
		connections: defs["svcscope_service_connections_total"],
		byEndpoint:  defs["svcscope_service_endpoint_connections_total"],
		rejected:    defs["svcscope_service_rejected_packets_total"],
		rules:       defs["svcscope_service_rules"],
		counts:      defs["svcscope_service_endpoints"],
		entries:     defs["svcscope_service_conntrack_entries"],
		stale:       defs["svcscope_service_conntrack_stale_entries"],
		unanswered:  defs["svcscope_service_conntrack_unanswered_entries"],
		pairs:       make(map[[2]string]*dto.LabelPair),
	}
}

// build adds the families of the snapshot to b. One in which nothing changed
// since the last build is that build's.
func (c *serviceSeries) build(b *builder, s *correlate.Snapshot) {
	if !sameSlice(c.services, s.Services) || c.flows != s.Flows {
		c.flows = s.Flows
		c.updateServices(s.Services)
	}
	c.updateOthers(s.Other)
	for _, d := range []*def{
		c.connections, c.byEndpoint, c.rejected, c.rules, c.counts, c.entries, c.stale, c.unanswered,
	} {
		if d.changed {
			d.changed, d.last = false, c.assemble(d)
		}
		if d.last != nil {
			b.families[d.name] = d.last
		}
	}
}

// sameSlice reports whether two slices are one: Services never change.
func sameSlice(a, b []*correlate.ServicePort) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

// assemble makes the family of d anew.
func (c *serviceSeries) assemble(d *def) *dto.MetricFamily {
	f := d.newFamily()
	for _, rows := range [][]*row{c.rows, c.others} {
		for _, r := range rows {
			for i := range r.series {
				if r.series[i].def == d {
					f.Metric = append(f.Metric, r.series[i].sample)
				}
			}
		}
	}
	return f
}

// updateServices goes through the rows of before and the Services side by side,
// both of which are sorted. A Service that is known by its pointer costs nothing.
func (c *serviceSeries) updateServices(services []*correlate.ServicePort) {
	last, rows := c.rows, c.spare
	at := 0
	var flows flowCursor
	if c.flows != nil {
		flows.rest = c.flows.Services
	}
	var before *row // the row before, to share labels with
	for _, p := range services {
		if !p.Exposed {
			continue
		}
		for at < len(last) && last[at].from != p && last[at].compare(p) < 0 {
			last[at].touch()
			at++
		}
		var r *row
		if at < len(last) && (last[at].from == p || last[at].compare(p) == 0) {
			r = last[at]
			at++
		} else {
			r = c.newRow(p.Port, p.Family, before)
		}
		if n := flows.of(p); r.from != p || r.flows != n {
			r.from, r.flows = p, n
			c.fill(r, &values{
				created: p.Created, cluster: p.Cluster, external: p.External, rejected: p.Rejected,
				rules: p.Rules, api: p.APICount, kernel: p.KernelCount, endpoints: p.Endpoints,
				flows: n, uncounted: p.Uncounted,
			})
		}
		rows = append(rows, r)
		before = r
	}
	for ; at < len(last); at++ {
		last[at].touch()
	}
	clear(last) // or it would keep what is gone
	c.services, c.rows, c.spare = services, rows, last[:0]
}

func (c *serviceSeries) updateOthers(others []correlate.OtherTotal) {
	last := c.others
	c.others = make([]*row, 0, len(others))
	for i := range others {
		o := &others[i]
		port := service.PortName{Protocol: o.Protocol}
		port.Name.Name = otherService
		at := slices.IndexFunc(last, func(r *row) bool { return r.port == port && r.family == o.Family })
		var r *row
		if at >= 0 {
			r = last[at]
			last = slices.Delete(last, at, at+1)
		} else {
			r = c.newRow(port, o.Family, nil)
		}
		c.fill(r, &values{
			created: o.Created, cluster: o.Cluster, external: o.External, rejected: o.Rejected,
			rules: o.Rules, api: o.APICount, kernel: o.KernelCount,
			flows: o.Flows, uncounted: o.Uncounted,
		})
		c.others = append(c.others, r)
	}
	for _, r := range last {
		r.touch()
	}
}

// compare orders a row and a Service port as Snapshot.Services are.
func (r *row) compare(p *correlate.ServicePort) int {
	return cmp.Or(r.port.Compare(p.Port), cmp.Compare(r.family, p.Family))
}

// touch marks the families that have series of a row that is gone.
func (r *row) touch() {
	for i := range r.series {
		r.series[i].def.changed = true
	}
}

// fill brings the row's series up to date.
func (c *serviceSeries) fill(r *row, v *values) {
	f := filler{c: c, row: r}
	if !v.uncounted {
		f.put(c.connections, viaCluster, float64(v.cluster), v.created)
		f.put(c.connections, viaExternal, float64(v.external), v.created)
		for _, reason := range reasons() {
			if n := v.rejected[reason]; n > 0 {
				f.put(c.rejected, string(reason), float64(n), v.created)
			}
		}
	}
	for _, table := range c.sortedTables(v.rules) {
		if n := v.rules[table]; n > 0 {
			f.put(c.rules, table, float64(n), time.Time{})
		}
	}
	// A negative count is an unknown one.
	if v.api > 0 {
		f.put(c.counts, sourceAPI, float64(v.api), time.Time{})
	}
	if v.kernel > 0 {
		f.put(c.counts, sourceKernel, float64(v.kernel), time.Time{})
	}
	if c.endpoints && !v.uncounted {
		f.endpoints(v.endpoints)
	}
	f.flows(&v.flows)
	f.cut(len(r.series))
}

// newRow makes a row with the labels of serviceLabels sorted by name. It shares
// those that the row before, a neighbour in order, has too.
func (c *serviceSeries) newRow(port service.PortName, family netfilter.Family, before *row) *row {
	if before == nil {
		before = &row{}
	}
	d := c.connections
	share := func(at, label int, value string) *dto.LabelPair {
		if p := before.base[at]; p != nil && p.GetValue() == value {
			return p
		}
		return newPair(&d.labels[label], value)
	}
	return &row{port: port, family: family, base: [5]*dto.LabelPair{
		c.pair(&d.labels[4], familyValue(family)),
		share(1, 2, port.Port),
		c.pair(&d.labels[3], string(port.Protocol)),
		share(3, 1, port.Name.Name),
		share(4, 0, port.Namespace),
	}}
}

func (c *serviceSeries) pair(name *string, value string) *dto.LabelPair {
	p := c.pairs[[2]string{*name, value}]
	if p == nil {
		p = newPair(name, value)
		c.pairs[[2]string{*name, value}] = p
	}
	return p
}

// sortedTables returns the keys of rules in order, until its next call.
func (c *serviceSeries) sortedTables(rules map[string]int) []string {
	c.tables = c.tables[:0]
	for table := range rules {
		c.tables = append(c.tables, table)
	}
	slices.Sort(c.tables)
	return c.tables
}
