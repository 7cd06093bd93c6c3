// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
)

func TestReadDurationsAreClassicAndNative(t *testing.T) {
	reads := NewReadDurations()
	for _, d := range []time.Duration{300 * time.Microsecond, 70 * time.Millisecond, 80 * time.Millisecond} {
		reads.Observe("nftables", d)
	}
	r := NewRegistry(richSnapshot, Config{Reads: reads})

	_, _, text := scrape(t, r, "text/plain;version=0.0.4")
	for _, want := range []string{
		`svcscope_collector_read_duration_seconds_bucket{collector="nftables",le="0.0005"} 1`,
		`svcscope_collector_read_duration_seconds_bucket{collector="nftables",le="0.1"} 3`,
		`svcscope_collector_read_duration_seconds_count{collector="nftables"} 3`,
	} {
		if !strings.Contains(text, want+"\n") {
			t.Errorf("no line %s", want)
		}
	}

	h := scrapeProtobuf(t, NewRegistry(richSnapshot, Config{Reads: reads}))[readDuration].GetMetric()[0].GetHistogram()
	if h.GetSampleCount() != 3 || len(h.GetBucket()) != 13 {
		t.Errorf("%d readings in %d classic buckets", h.GetSampleCount(), len(h.GetBucket()))
	}
	// 70 and 80 ms are in two buckets of a factor of 1.1.
	native := 0
	for _, s := range h.GetPositiveSpan() {
		native += int(s.GetLength())
	}
	if h.Schema == nil || native != 3 || h.GetCreatedTimestamp() == nil {
		t.Errorf("no native histogram with a created time: %v", h)
	}
}

func TestNoReadDurationsWithoutAnAgent(t *testing.T) {
	var none *ReadDurations
	none.Observe("legacy", time.Second)
	if f := scrapeProtobuf(t, NewRegistry(richSnapshot, Config{Reads: none}))[readDuration]; f != nil {
		t.Errorf("made: %v", f)
	}
}

func protobuf() expfmt.Format { return expfmt.NewFormat(expfmt.TypeProtoDelim) }
