// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"bytes"
	"errors"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	dto "github.com/prometheus/client_model/go"

	"github.com/prometheus/common/expfmt"
	"github.com/svcscope/svcscope/pkg/netfilter"
)

// formats returns what a scraper may ask for.
func formats() map[string]expfmt.Format {
	return map[string]expfmt.Format{
		"text":          plain(),
		"OpenMetrics":   expfmt.NewFormat(expfmt.TypeOpenMetrics),
		"protobuf":      protobuf(),
		"protobuf text": expfmt.NewFormat(expfmt.TypeProtoText),
	}
}

func encodePage(t *testing.T, families []*dto.MetricFamily, format expfmt.Format) string {
	t.Helper()
	var b bytes.Buffer
	p := newPage(&b, format, nil)
	for _, f := range families {
		if err := p.encode(f); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// expected is what expfmt makes of the families.
func expected(t *testing.T, families []*dto.MetricFamily, format expfmt.Format) string {
	t.Helper()
	var b bytes.Buffer
	enc := expfmt.NewEncoder(&b, format, expfmt.WithCreatedLines())
	for _, f := range families {
		if err := enc.Encode(f); err != nil {
			t.Fatal(err)
		}
	}
	if err := enc.(expfmt.Closer).Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestPageIsWhatExpfmtMakes(t *testing.T) {
	reads, delays := NewReadDurations(), NewProgrammingDelays()
	delays.Observe(netfilter.IPv6, time.Second)
	reads.Observe("nftables", time.Millisecond)
	families := gather(t, NewRegistry(richSnapshot, Config{Endpoints: true, Runtime: true, Reads: reads, Programming: delays}))
	for name, format := range formats() {
		if name == "protobuf text" {
			continue // its spaces are random on purpose
		}
		if diff := cmp.Diff(expected(t, families, format), encodePage(t, families, format)); diff != "" {
			t.Errorf("%s (-expfmt +page):\n%s", name, diff)
		}
	}
	if got := encodePage(t, families, formats()["protobuf text"]); len(got) == 0 {
		t.Error("nothing in a format that has no encoder here")
	}
}

// TestPageOfRandomSamples has values and labels that no kernel gives.
func TestPageOfRandomSamples(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	values := []float64{
		0, math.Copysign(0, -1), 1, -1, 0.5, 1e-7, 999_999, 1e6, 1e6 + 1, 1 << 53, 1e20, 1e21, 1e300, -123, -1e6,
		math.NaN(), math.Inf(1), math.Inf(-1), math.SmallestNonzeroFloat64,
	}
	texts := []string{"", "web", `a"b`, `back\slash`, "two\nlines", "caf\xc3\xa9", "10.0.0.1:80"}
	for range 200 {
		var families []*dto.MetricFamily
		for _, m := range []Metric{
			{Name: "svcscope_a_total", Type: Counter, Help: "A \"quoted\" help\nof two lines \\", Labels: []Label{{Name: "x"}, {Name: "b"}}},
			{Name: "svcscope_b", Type: Gauge, Help: "B", Labels: []Label{{Name: "y"}}},
			{Name: "svcscope_c", Type: Gauge},
		} {
			d := newDef(m)
			f := d.newFamily()
			for range 1 + r.IntN(300) {
				v := values[r.IntN(len(values))]
				if r.IntN(2) == 0 {
					v = math.Trunc(r.ExpFloat64() * 1e6)
				}
				labels := make([]string, len(d.labels))
				for i := range labels {
					labels[i] = texts[r.IntN(len(texts))]
				}
				created := newCreated(started().Add(time.Duration(r.Int64N(1e18))))
				if r.IntN(3) == 0 {
					created = nil
				}
				f.Metric = append(f.Metric, d.newSample(d.pairs(labels), v, created))
			}
			families = append(families, f)
		}
		for _, format := range []expfmt.Format{plain(), expfmt.NewFormat(expfmt.TypeOpenMetrics), protobuf()} {
			if diff := cmp.Diff(expected(t, families, format), encodePage(t, families, format)); diff != "" {
				t.Fatalf("%s (-expfmt +page):\n%s", format, diff)
			}
		}
	}
}

// failing is a client that goes away after some bytes.
type failing struct{ left int }

var errGone = errors.New("gone")

func (f *failing) Write(b []byte) (int, error) {
	if f.left -= len(b); f.left < 0 {
		return 0, errGone
	}
	return len(b), nil
}

func TestPageEndsWithItsClient(t *testing.T) {
	families := gather(t, NewRegistry(of(manyServices(1)), Config{Runtime: true}))
	for name, format := range formats() {
		w := &failing{left: 100_000}
		p := newPage(w, format, nil)
		var err error
		for _, f := range families {
			if err = p.encode(f); err != nil {
				break
			}
		}
		if !errors.Is(err, errGone) {
			t.Errorf("%s: error %v, want the client's", name, err)
		}
	}
}
