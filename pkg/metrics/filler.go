// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"cmp"
	"slices"
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"

	"github.com/svcscope/svcscope/pkg/correlate"
)

// filler goes through the series of a row.
type filler struct {
	c   *serviceSeries
	row *row
	at  int
}

// put makes the next series of the row. A sample whose value did not change is
// the one of the scrape before.
func (f *filler) put(d *def, own string, value float64, created time.Time) {
	list := f.row.series
	found := slices.IndexFunc(list[f.at:], func(s series) bool { return s.def == d && s.own == own })
	if found < 0 {
		d.changed = true
		s := series{def: d, own: own, sample: d.newSample(f.labels(d, own), value, newCreated(created))}
		f.row.series = slices.Insert(list, f.at, s)
		f.at++
		return
	}
	f.cut(f.at + found)
	s := &f.row.series[f.at]
	f.at++
	at := s.sample.GetCounter().GetCreatedTimestamp()
	same := at == nil && created.IsZero() || at != nil && at.AsTime().Equal(created)
	if same && sampleValue(s.sample) == value {
		return
	}
	if !same {
		at = newCreated(created)
	}
	d.changed = true
	s.sample = d.newSample(s.sample.GetLabel(), value, at)
}

// cut ends the series from the current one up to end.
func (f *filler) cut(end int) {
	for i := f.at; i < end; i++ {
		f.row.series[i].def.changed = true
	}
	f.row.series = slices.Delete(f.row.series, f.at, end)
}

// endpoints exposes every endpoint of the rules from 0, or increase() would
// miss the connections before its first sample; what only the API has can
// have no connections.
func (f *filler) endpoints(endpoints []correlate.Endpoint) {
	for i := range endpoints {
		e := &endpoints[i]
		if !e.InKernel && e.Connections == 0 {
			continue
		}
		f.c.addr = e.Addr.AppendTo(f.c.addr[:0])
		var own string
		if list := f.row.series; f.at < len(list) && list[f.at].own == string(f.c.addr) {
			own = list[f.at].own
		} else {
			own = string(f.c.addr)
		}
		f.put(f.c.byEndpoint, own, float64(e.Connections), e.Created)
	}
}

// flows puts what is not zero.
func (f *filler) flows(n *correlate.ServiceFlows) {
	for _, s := range [...]struct {
		def   *def
		own   string
		value uint64
	}{
		{f.c.entries, stateReplied, n.Replied},
		{f.c.entries, stateUnreplied, n.Unreplied},
		{f.c.entries, stateClosing, n.Closing},
		{f.c.stale, "", n.Stale},
		{f.c.unanswered, whereLocal, n.UnansweredLocal},
		{f.c.unanswered, whereRemote, n.UnansweredRemote},
	} {
		if s.value > 0 {
			f.put(s.def, s.own, float64(s.value), time.Time{})
		}
	}
}

// labels returns the row's labels and the metric's own one, sorted by name.
func (f *filler) labels(d *def, own string) []*dto.LabelPair {
	name, base := d.ownLabel(), f.row.base[:]
	if len(d.labels) == len(base) {
		return base
	}
	var pair *dto.LabelPair
	if d == f.c.byEndpoint {
		pair = newPair(name, own)
	} else {
		pair = f.c.pair(name, own)
	}
	at, _ := slices.BinarySearchFunc(base, *name, func(p *dto.LabelPair, name string) int {
		return strings.Compare(p.GetName(), name)
	})
	labels := make([]*dto.LabelPair, 0, len(base)+1)
	return append(append(append(labels, base[:at]...), pair), base[at:]...)
}

// ownLabel is the label that a Service metric adds to those of serviceLabels.
func (d *def) ownLabel() *string { return &d.labels[len(d.labels)-1] }

// flowCursor goes through the entries of Services, which are in the order of
// the Services.
type flowCursor struct{ rest []correlate.ServiceFlows }

// of returns those of a Service port, which comes after the one before.
func (c *flowCursor) of(p *correlate.ServicePort) correlate.ServiceFlows {
	for len(c.rest) > 0 {
		n := &c.rest[0]
		switch order := cmp.Or(n.Port.Compare(p.Port), cmp.Compare(n.Family, p.Family)); {
		case order > 0:
			return correlate.ServiceFlows{}
		case order == 0:
			return *n
		}
		c.rest = c.rest[1:]
	}
	return correlate.ServiceFlows{}
}
