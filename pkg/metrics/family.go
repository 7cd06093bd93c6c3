// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	dto "github.com/prometheus/client_model/go"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/svcscope/svcscope/pkg/netfilter"
)

// def is a metric of the catalogue in the terms of the exposition.
type def struct {
	name   string
	help   string
	kind   *dto.MetricType
	labels []string // in catalogue order
	order  []int    // the labels sorted by name, as indices into labels
	size   int      // samples of the last build
	// Of the metrics of serviceSeries: the family that it made last, and
	// whether that one has to be made anew.
	last    *dto.MetricFamily
	changed bool
}

func newDef(m Metric) *def {
	d := &def{name: m.Name, help: m.Help, kind: dto.MetricType_GAUGE.Enum(), labels: m.LabelNames()}
	if m.Type == Counter {
		d.kind = dto.MetricType_COUNTER.Enum()
	}
	d.order = make([]int, len(d.labels))
	for i := range d.order {
		d.order[i] = i
	}
	slices.SortFunc(d.order, func(a, b int) int { return strings.Compare(d.labels[a], d.labels[b]) })
	return d
}

// pairs returns label pairs sorted by name; values are in catalogue order.
func (d *def) pairs(values []string) []*dto.LabelPair {
	if len(values) != len(d.labels) {
		panic(fmt.Sprintf("%s has %d labels, got %d values", d.name, len(d.labels), len(values)))
	}
	pairs := make([]*dto.LabelPair, 0, len(values))
	for _, i := range d.order {
		pairs = append(pairs, newPair(&d.labels[i], values[i]))
	}
	return pairs
}

// newPair makes a label pair. Names from the kernel may be any bytes, but one
// invalid label value would make Prometheus refuse the whole scrape: such a
// value is quoted.
func newPair(name *string, value string) *dto.LabelPair {
	if !utf8.ValidString(value) {
		value = strconv.Quote(value)
	}
	p := &pair{value: value}
	p.pair.Name, p.pair.Value = name, &p.value
	return &p.pair
}

// pair holds all parts of a label pair but its name, which its metric has.
type pair struct {
	pair  dto.LabelPair
	value string
}

// counterSample and gaugeSample hold all parts of a sample, so that one costs
// one allocation.
type counterSample struct {
	metric  dto.Metric
	counter dto.Counter
	value   float64
}

type gaugeSample struct {
	metric dto.Metric
	gauge  dto.Gauge
	value  float64
}

// newSample returns a sample of the metric; created may be nil and is of use
// for counters only.
func (d *def) newSample(labels []*dto.LabelPair, value float64, created *timestamppb.Timestamp) *dto.Metric {
	if *d.kind == dto.MetricType_COUNTER {
		s := &counterSample{value: value}
		s.counter.Value, s.counter.CreatedTimestamp = &s.value, created
		s.metric.Label, s.metric.Counter = labels, &s.counter
		return &s.metric
	}
	s := &gaugeSample{value: value}
	s.gauge.Value = &s.value
	s.metric.Label, s.metric.Gauge = labels, &s.gauge
	return &s.metric
}

// builder collects the families of one snapshot.
type builder struct {
	defs     map[string]*def
	families map[string]*dto.MetricFamily
}

// family returns the family of the metric, empty at first.
func (b *builder) family(d *def) *dto.MetricFamily {
	f := b.families[d.name]
	if f == nil {
		f = d.newFamily()
		b.families[d.name] = f
	}
	return f
}

// newFamily returns an empty family with room for the samples of the last one.
func (d *def) newFamily() *dto.MetricFamily {
	return &dto.MetricFamily{Name: &d.name, Help: &d.help, Type: d.kind, Metric: make([]*dto.Metric, 0, d.size)}
}

func sampleValue(m *dto.Metric) float64 {
	if m.Counter != nil {
		return m.Counter.GetValue()
	}
	return m.Gauge.GetValue()
}

func (b *builder) gauge(name string, value float64, labels ...string) {
	b.add(name, value, nil, labels)
}

func (b *builder) counter(name string, value uint64, created time.Time, labels ...string) {
	b.add(name, float64(value), newCreated(created), labels)
}

// seconds adds a counter of time.
func (b *builder) seconds(name string, d time.Duration, created time.Time, labels ...string) {
	b.add(name, d.Seconds(), newCreated(created), labels)
}

func (b *builder) add(name string, value float64, created *timestamppb.Timestamp, labels []string) {
	d := b.defs[name]
	if d == nil {
		panic("not in the catalogue: " + name)
	}
	f := b.family(d)
	f.Metric = append(f.Metric, d.newSample(d.pairs(labels), value, created))
}

// sorted returns the families that have samples by name.
func (b *builder) sorted() []*dto.MetricFamily {
	families := make([]*dto.MetricFamily, 0, len(b.families))
	for _, name := range slices.Sorted(maps.Keys(b.families)) {
		if f := b.families[name]; len(f.Metric) > 0 {
			families = append(families, f)
			b.defs[name].size = len(f.Metric)
		}
	}
	return families
}

// newCreated returns nil for the zero time: unknown.
func newCreated(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

func unixSeconds(t time.Time) float64 {
	return float64(t.Unix()) + float64(t.Nanosecond())/1e9
}

func boolean(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// familyValue is the label ip_family: empty where both families are meant.
func familyValue(f netfilter.Family) string {
	if f == netfilter.FamilyUnspec {
		return ""
	}
	return f.String()
}
