// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"math"

	dto "github.com/prometheus/client_model/go"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// The fields of io.prometheus.client's messages in client_model's metrics.proto,
// and of google.protobuf.Timestamp.
const (
	familyName   protowire.Number = 1
	familyHelp   protowire.Number = 2
	familyType   protowire.Number = 3
	familyMetric protowire.Number = 4

	metricLabel   protowire.Number = 1
	metricGauge   protowire.Number = 2
	metricCounter protowire.Number = 3

	pairName  protowire.Number = 1
	pairValue protowire.Number = 2

	sampleNumber   protowire.Number = 1 // of Gauge and Counter
	counterCreated protowire.Number = 3

	timestampSeconds protowire.Number = 1
	timestampNanos   protowire.Number = 2
)

// tagSize is the length of the tag of every field above.
const tagSize = 1

// protobuf writes the family as one message with its length before it, as
// protodelim does, but a sample at a time.
func (p *page) protobuf(f *dto.MetricFamily) error {
	size := field(len(f.GetName())) + field(len(f.GetHelp())) + tagSize + protowire.SizeVarint(uint64(f.GetType()))
	for _, m := range f.GetMetric() {
		size += field(metricSize(m))
	}
	b := protowire.AppendVarint(p.buf, uint64(size))
	b = protowire.AppendString(protowire.AppendTag(b, familyName, protowire.BytesType), f.GetName())
	b = protowire.AppendString(protowire.AppendTag(b, familyHelp, protowire.BytesType), f.GetHelp())
	p.buf = protowire.AppendVarint(protowire.AppendTag(b, familyType, protowire.VarintType), uint64(f.GetType()))
	for _, m := range f.GetMetric() {
		p.buf = appendMetric(appendHead(p.buf, familyMetric, metricSize(m)), m)
		if err := p.full(); err != nil {
			return err
		}
	}
	return nil
}

// field is the size of a field whose value has n bytes.
func field(n int) int { return tagSize + protowire.SizeBytes(n) }

// appendHead begins a field whose value has n bytes.
func appendHead(b []byte, num protowire.Number, n int) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, num, protowire.BytesType), uint64(n))
}

func metricSize(m *dto.Metric) int {
	n := 0
	for _, l := range m.GetLabel() {
		n += field(pairSize(l))
	}
	return n + field(valueSize(m))
}

func pairSize(l *dto.LabelPair) int { return field(len(l.GetName())) + field(len(l.GetValue())) }

// valueSize is the size of the metric's Gauge or Counter.
func valueSize(m *dto.Metric) int {
	n := tagSize + protowire.SizeFixed64()
	if t := m.GetCounter().GetCreatedTimestamp(); t != nil {
		n += field(timestampSize(t))
	}
	return n
}

func timestampSize(t *timestamppb.Timestamp) int {
	n := 0
	if s := t.GetSeconds(); s != 0 {
		n += tagSize + protowire.SizeVarint(uint64(s))
	}
	if ns := t.GetNanos(); ns != 0 {
		n += tagSize + protowire.SizeVarint(uint64(ns))
	}
	return n
}

func appendMetric(b []byte, m *dto.Metric) []byte {
	for _, l := range m.GetLabel() {
		b = appendHead(b, metricLabel, pairSize(l))
		b = protowire.AppendString(protowire.AppendTag(b, pairName, protowire.BytesType), l.GetName())
		b = protowire.AppendString(protowire.AppendTag(b, pairValue, protowire.BytesType), l.GetValue())
	}
	kind := metricGauge
	if m.Counter != nil {
		kind = metricCounter
	}
	b = appendHead(b, kind, valueSize(m))
	b = protowire.AppendFixed64(protowire.AppendTag(b, sampleNumber, protowire.Fixed64Type), math.Float64bits(sampleValue(m)))
	t := m.GetCounter().GetCreatedTimestamp()
	if t == nil {
		return b
	}
	b = appendHead(b, counterCreated, timestampSize(t))
	if s := t.GetSeconds(); s != 0 {
		b = protowire.AppendVarint(protowire.AppendTag(b, timestampSeconds, protowire.VarintType), uint64(s))
	}
	if ns := t.GetNanos(); ns != 0 {
		b = protowire.AppendVarint(protowire.AppendTag(b, timestampNanos, protowire.VarintType), uint64(ns))
	}
	return b
}
