// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"bytes"
	"io"
	"math"
	"strconv"
	"strings"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
)

// pageBuffer is what a page collects before it writes.
const pageBuffer = 32 << 10

// page writes families in one format: the agent's own by itself, as expfmt
// does but several times faster and without an allocation a sample or a buffer
// as large as a family; those of other programs' code by expfmt.
type page struct {
	w    io.Writer
	buf  []byte
	kind expfmt.FormatType
	rest expfmt.Encoder
}

// newPage returns a page; buf is room to work in, of any length.
func newPage(w io.Writer, format expfmt.Format, buf []byte) *page {
	return &page{
		w: w, buf: buf[:0], kind: format.FormatType(),
		rest: expfmt.NewEncoder(w, format, expfmt.WithCreatedLines()),
	}
}

// encode writes one family.
func (p *page) encode(f *dto.MetricFamily) error {
	if !simple(f) {
		return p.other(f)
	}
	switch p.kind {
	case expfmt.TypeTextPlain:
		return p.text(f)
	case expfmt.TypeOpenMetrics:
		return p.openMetrics(f)
	case expfmt.TypeProtoDelim:
		return p.protobuf(f)
	}
	return p.other(f)
}

// simple reports whether a family is one of a Gatherer: counters or gauges with
// names that need no escaping, without exemplars and times.
func simple(f *dto.MetricFamily) bool {
	t := f.GetType()
	return strings.HasPrefix(f.GetName(), Prefix) && (t == dto.MetricType_COUNTER || t == dto.MetricType_GAUGE)
}

func (p *page) other(f *dto.MetricFamily) error {
	if err := p.flush(); err != nil {
		return err
	}
	return p.rest.Encode(f)
}

// close writes what is left, and the end of the page where the format has one.
func (p *page) close() error {
	if err := p.flush(); err != nil {
		return err
	}
	if c, ok := p.rest.(expfmt.Closer); ok {
		return c.Close()
	}
	return nil
}

func (p *page) flush() error {
	_, err := p.w.Write(p.buf)
	p.buf = p.buf[:0]
	return err
}

// full writes if enough is collected.
func (p *page) full() error {
	if len(p.buf) < pageBuffer {
		return nil
	}
	return p.flush()
}

// text writes the text format 0.0.4, as expfmt.MetricFamilyToText does.
func (p *page) text(f *dto.MetricFamily) error {
	p.head(f, f.GetName(), false)
	for _, m := range f.GetMetric() {
		p.buf = append(p.buf, f.GetName()...)
		p.buf = appendLabels(p.buf, m.GetLabel())
		p.buf = append(appendFloat(append(p.buf, ' '), sampleValue(m), false), '\n')
		if err := p.full(); err != nil {
			return err
		}
	}
	return nil
}

// openMetrics writes OpenMetrics 1.0 with created samples, as
// expfmt.MetricFamilyToOpenMetrics does.
func (p *page) openMetrics(f *dto.MetricFamily) error {
	base := f.GetName()
	if f.GetType() == dto.MetricType_COUNTER {
		base = strings.TrimSuffix(base, "_total")
	}
	p.head(f, base, true)
	for _, m := range f.GetMetric() {
		p.buf = append(p.buf, f.GetName()...)
		labels := len(p.buf)
		p.buf = appendLabels(p.buf, m.GetLabel())
		end := len(p.buf)
		p.buf = append(appendFloat(append(p.buf, ' '), sampleValue(m), true), '\n')
		if created := m.GetCounter().GetCreatedTimestamp(); created != nil {
			p.buf = append(append(p.buf, base...), "_created"...)
			p.buf = append(append(p.buf, p.buf[labels:end]...), ' ')
			p.buf = append(appendFloat(p.buf, float64(created.AsTime().UnixNano())/1e9, true), '\n')
		}
		if err := p.full(); err != nil {
			return err
		}
	}
	return nil
}

// head writes the comments of a family.
func (p *page) head(f *dto.MetricFamily, name string, quotes bool) {
	p.buf = append(append(append(p.buf, "# HELP "...), name...), ' ')
	p.buf = append(appendEscaped(p.buf, f.GetHelp(), quotes), '\n')
	p.buf = append(append(append(p.buf, "# TYPE "...), name...), ' ')
	p.buf = append(append(p.buf, strings.ToLower(f.GetType().String())...), '\n')
}

func appendLabels(b []byte, pairs []*dto.LabelPair) []byte {
	if len(pairs) == 0 {
		return b
	}
	separator := byte('{')
	for _, l := range pairs {
		b = append(append(append(b, separator), l.GetName()...), `="`...)
		b = append(appendEscaped(b, l.GetValue(), true), '"')
		separator = ','
	}
	return append(b, '}')
}

// appendEscaped escapes backslashes, line feeds and, in values of labels and in
// OpenMetrics, quotation marks.
func appendEscaped(b []byte, s string, quotes bool) []byte {
	if strings.IndexByte(s, '\\') < 0 && strings.IndexByte(s, '\n') < 0 && (!quotes || strings.IndexByte(s, '"') < 0) {
		return append(b, s...)
	}
	for i := range len(s) {
		switch c := s[i]; {
		case c == '\\':
			b = append(b, `\\`...)
		case c == '\n':
			b = append(b, `\n`...)
		case c == '"' && quotes:
			b = append(b, `\"`...)
		default:
			b = append(b, c)
		}
	}
	return b
}

// appendFloat writes a value; OpenMetrics has a point or an exponent in each.
func appendFloat(b []byte, v float64, point bool) []byte {
	begin := len(b)
	switch {
	case math.IsInf(v, 0):
		return strconv.AppendFloat(b, v, 'g', -1, 64)
	case v == math.Trunc(v) && math.Abs(v) < 1e6: // no exponent, and what most values are
		b = strconv.AppendInt(b, int64(v), 10)
	default:
		b = strconv.AppendFloat(b, v, 'g', -1, 64)
	}
	if point && !bytes.ContainsAny(b[begin:], "e.N") {
		b = append(b, ".0"...)
	}
	return b
}
