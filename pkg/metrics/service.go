// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/svcscope/svcscope/pkg/correlate"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/service"
)

// otherService is the service_name that Services above the cap are summed in.
// No Service can have that name: it is no DNS label.
const otherService = "_other"

// Values of the labels via and source.
const (
	viaCluster   = "cluster"
	viaExternal  = "external"
	sourceAPI    = "api"
	sourceKernel = "kernel"
)

// serviceSeries makes the Service metrics and keeps what scrapes share: rows
// of series by Service port, dropped when the Service is gone.
type serviceSeries struct {
	endpoints   bool // endpoint_connections_total too
	connections *def
	byEndpoint  *def
	rejected    *def
	rules       *def
	counts      *def

	rows       map[rowKey]*row
	generation uint64
	tables     []string // scratch of sortedTables
	// pairs are the label pairs of small sets of values, which many series
	// share. What grows with Services or endpoints is not in it.
	pairs map[[2]string]*dto.LabelPair
}

type rowKey struct {
	port   service.PortName
	family netfilter.Family
}

// row holds the series of one Service port in one family.
type row struct {
	generation uint64           // the last build that saw it
	base       []*dto.LabelPair // the labels that all its series share, sorted by name
	series     []*series        // few: searched one by one
	endpoints  map[netip.AddrPort]*series
}

// series is one series with its newest sample.
type series struct {
	def        *def
	own        string // the value of the metric's own label
	labels     []*dto.LabelPair
	generation uint64

	sample  *dto.Metric // handed out: replaced when the value changes, never written
	value   uint64
	created time.Time
}

// values is what a ServicePort and an OtherTotal have in common.
type values struct {
	created           time.Time
	cluster, external uint64
	rejected          map[correlate.Reason]uint64
	rules             map[string]int
	api, kernel       int
	endpoints         []correlate.Endpoint
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
		rows:        make(map[rowKey]*row),
		pairs:       make(map[[2]string]*dto.LabelPair),
	}
}

func (c *serviceSeries) build(b *builder, s *correlate.Snapshot) {
	c.generation++
	for _, p := range s.Services {
		if !p.Exposed {
			continue
		}
		c.add(b, rowKey{port: p.Port, family: p.Family}, &values{
			created: p.Created, cluster: p.Cluster, external: p.External, rejected: p.Rejected,
			rules: p.Rules, api: p.APICount, kernel: p.KernelCount, endpoints: p.Endpoints,
			uncounted: p.Uncounted,
		})
	}
	for i := range s.Other {
		o := &s.Other[i]
		key := rowKey{port: service.PortName{Protocol: o.Protocol}, family: o.Family}
		key.port.Name.Name = otherService
		c.add(b, key, &values{
			created: o.Created, cluster: o.Cluster, external: o.External, rejected: o.Rejected,
			rules: o.Rules, api: o.APICount, kernel: o.KernelCount,
			uncounted: o.Uncounted,
		})
	}
	for key, r := range c.rows {
		if r.generation != c.generation {
			delete(c.rows, key)
		}
	}
}

func (c *serviceSeries) add(b *builder, key rowKey, v *values) {
	r := c.rows[key]
	if r == nil {
		r = &row{base: c.basePairs(key)}
		c.rows[key] = r
	}
	r.generation = c.generation

	if !v.uncounted {
		emit(b, c.find(r, c.connections, viaCluster), v.cluster, v.created)
		emit(b, c.find(r, c.connections, viaExternal), v.external, v.created)
		for _, reason := range reasons() {
			if n := v.rejected[reason]; n > 0 {
				emit(b, c.find(r, c.rejected, string(reason)), n, v.created)
			}
		}
	}
	for _, table := range c.sortedTables(v.rules) {
		if n := v.rules[table]; n > 0 {
			emit(b, c.find(r, c.rules, table), uint64(n), time.Time{})
		}
	}
	// A negative count is an unknown one.
	if v.api > 0 {
		emit(b, c.find(r, c.counts, sourceAPI), uint64(v.api), time.Time{})
	}
	if v.kernel > 0 {
		emit(b, c.find(r, c.counts, sourceKernel), uint64(v.kernel), time.Time{})
	}
	if c.endpoints && !v.uncounted {
		c.addEndpoints(b, r, v.endpoints)
	}
}

// addEndpoints exposes every endpoint of the rules from 0, or increase() would
// miss the connections before its first sample; what only the API has can
// have no connections.
func (c *serviceSeries) addEndpoints(b *builder, r *row, endpoints []correlate.Endpoint) {
	if r.endpoints == nil && len(endpoints) > 0 {
		r.endpoints = make(map[netip.AddrPort]*series, len(endpoints))
	}
	for i := range endpoints {
		e := &endpoints[i]
		if !e.InKernel && e.Connections == 0 {
			continue
		}
		s := r.endpoints[e.Addr]
		if s == nil {
			s = r.newSeries(c.byEndpoint, newPair(c.byEndpoint.ownLabel(), e.Addr.String()))
			r.endpoints[e.Addr] = s
		}
		s.generation = c.generation
		emit(b, s, e.Connections, e.Created)
	}
	for addr, s := range r.endpoints {
		if s.generation != c.generation {
			delete(r.endpoints, addr)
		}
	}
}

// find returns the row's series with that value of the metric's own label.
func (c *serviceSeries) find(r *row, d *def, own string) *series {
	for _, s := range r.series {
		if s.def == d && s.own == own {
			return s
		}
	}
	s := r.newSeries(d, c.pair(d.ownLabel(), own))
	s.own = own
	r.series = append(r.series, s)
	return s
}

// ownLabel is the label that a Service metric adds to those of serviceLabels.
func (d *def) ownLabel() string { return d.labels[len(d.labels)-1] }

func (r *row) newSeries(d *def, own *dto.LabelPair) *series {
	at, _ := slices.BinarySearchFunc(r.base, own.GetName(), func(p *dto.LabelPair, name string) int {
		return strings.Compare(p.GetName(), name)
	})
	labels := make([]*dto.LabelPair, 0, len(r.base)+1)
	labels = append(append(append(labels, r.base[:at]...), own), r.base[at:]...)
	return &series{def: d, labels: labels}
}

// basePairs returns the labels of serviceLabels sorted by name.
func (c *serviceSeries) basePairs(key rowKey) []*dto.LabelPair {
	return []*dto.LabelPair{
		c.pair("ip_family", familyValue(key.family)),
		newPair("port_name", key.port.Port),
		c.pair("protocol", string(key.port.Protocol)),
		newPair("service_name", key.port.Name.Name),
		newPair("service_namespace", key.port.Namespace),
	}
}

func (c *serviceSeries) pair(name, value string) *dto.LabelPair {
	p := c.pairs[[2]string{name, value}]
	if p == nil {
		p = newPair(name, value)
		c.pairs[[2]string{name, value}] = p
	}
	return p
}

// emit appends the series' sample to its family; a sample whose value did not
// change is the one of the scrape before.
func emit(b *builder, s *series, value uint64, created time.Time) {
	if s.sample == nil || s.value != value || !s.created.Equal(created) {
		var at *timestamppb.Timestamp
		if s.sample != nil && s.created.Equal(created) {
			at = s.sample.GetCounter().GetCreatedTimestamp()
		} else {
			at = newCreated(created)
		}
		s.sample = s.def.newSample(s.labels, float64(value), at)
		s.value, s.created = value, created
	}
	f := b.family(s.def)
	f.Metric = append(f.Metric, s.sample)
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
