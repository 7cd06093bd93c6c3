// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"

	"github.com/svcscope/svcscope/pkg/netfilter"
)

func TestWhatIsEmittedIsInTheCatalogue(t *testing.T) {
	reads, delays := NewReadDurations(), NewProgrammingDelays()
	delays.Observe(netfilter.IPv6, time.Second)
	reads.Observe("legacy", time.Millisecond)
	reg := NewRegistry(richSnapshot, Config{Endpoints: true, Policies: true, Runtime: true, Reads: reads, Programming: delays})
	if err := Check(gather(t, reg)); err != nil {
		t.Error(err)
	}
}

func TestWhatIsInTheCatalogueCanBeEmitted(t *testing.T) {
	emitted := make(map[string]bool)
	values := make(map[string]bool) // metric, label, value
	reads, delays := NewReadDurations(), NewProgrammingDelays()
	delays.Observe(netfilter.IPv6, time.Second)
	reads.Observe("legacy", time.Millisecond)
	for _, f := range gather(t, NewRegistry(richSnapshot, Config{Endpoints: true, Policies: true, Reads: reads, Programming: delays})) {
		emitted[f.GetName()] = true
		for _, m := range f.GetMetric() {
			for _, p := range m.GetLabel() {
				values[f.GetName()+" "+p.GetName()+" "+p.GetValue()] = true
			}
		}
	}
	for _, m := range Metrics() {
		if !emitted[m.Name] {
			t.Errorf("%s is in the catalogue, but the richest snapshot does not emit it", m.Name)
		}
	}
	// The labels whose every value can stand in one snapshot.
	for name, label := range map[string]string{
		"svcscope_service_connections_total":      "via",
		"svcscope_service_rejected_packets_total": "reason",
		"svcscope_service_endpoints":              "source",
		"svcscope_rules":                          "backend",
		"svcscope_collector_success":              "collector",
		"svcscope_counting_method":                "what",
		"svcscope_nflog_group_state":              "state",
	} {
		m := metric(t, name)
		for _, v := range m.Label(label).Values {
			if !values[name+" "+label+" "+v] {
				t.Errorf("%s: %s=%q is in the catalogue, but is never emitted", name, label, v)
			}
		}
	}
}

func metric(t *testing.T, name string) *Metric {
	t.Helper()
	for _, m := range Metrics() {
		if m.Name == name {
			return &m
		}
	}
	t.Fatalf("%s is not in the catalogue", name)
	return nil
}

func TestCatalogueIsWellFormed(t *testing.T) {
	seen := make(map[string]bool)
	for _, m := range Metrics() {
		if seen[m.Name] {
			t.Errorf("%s: twice", m.Name)
		}
		seen[m.Name] = true
		if !strings.HasPrefix(m.Name, Prefix) {
			t.Errorf("%s: no prefix %s", m.Name, Prefix)
		}
		if got := strings.HasSuffix(m.Name, "_total"); got != (m.Type == Counter) {
			t.Errorf("%s: type %s", m.Name, m.Type)
		}
		if got := strings.HasSuffix(m.Name, "_seconds"); got != (m.Type != Counter && (m.Unit == unitSeconds || m.Unit == unitTimestamp)) {
			t.Errorf("%s: unit %s", m.Name, m.Unit)
		}
		if m.Help == "" || m.Unit == "" || m.Stability == "" || m.Cost == "" {
			t.Errorf("%s: help, unit, stability or cost is missing", m.Name)
		}
		if m.Cost != CostNone && m.Kernel == "" {
			t.Errorf("%s: costs %s, but names no kernel interface", m.Name, m.Cost)
		}
		for _, l := range m.Labels {
			if l.Question == "" || (l.Values == nil) == (l.Bound == "") {
				t.Errorf("%s: label %s needs a question and either values or a bound", m.Name, l.Name)
			}
		}
	}
}

func TestCheckNamesEveryDifference(t *testing.T) {
	tests := []struct {
		name   string
		change func(*dto.MetricFamily)
		want   string // empty: no error
	}{
		{"nothing changed", func(*dto.MetricFamily) {}, ""},
		{"another program's metric", func(f *dto.MetricFamily) { *f.Name = "go_goroutines" }, ""},
		{"unknown name", func(f *dto.MetricFamily) { *f.Name = "svcscope_nonsense" }, "svcscope_nonsense is not in the catalogue"},
		{"wrong type", func(f *dto.MetricFamily) { f.Type = dto.MetricType_COUNTER.Enum() }, "is a counter, the catalogue says gauge"},
		{"wrong help", func(f *dto.MetricFamily) { *f.Help = "Other" }, `has help "Other"`},
		{"unknown label", func(f *dto.MetricFamily) { f.Metric[0].Label[0].Name = new("zone") }, "label zone is not in the catalogue"},
		{"value outside the closed set", func(f *dto.MetricFamily) { f.Metric[0].Label[1].Value = new("weather") }, `value "weather"`},
		{"missing label", func(f *dto.MetricFamily) { f.Metric[0].Label = f.Metric[0].Label[:1] }, `has labels ["method"]`},
		{"label twice", func(f *dto.MetricFamily) { f.Metric[0].Label[1] = f.Metric[0].Label[0] }, `has labels ["method" "method"]`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var family *dto.MetricFamily
			for _, f := range gather(t, NewGatherer(richSnapshot, Config{})) {
				if f.GetName() == "svcscope_counting_method" {
					family = f
				}
			}
			tt.change(family)
			err := Check([]*dto.MetricFamily{family})
			if (err == nil) != (tt.want == "") || (err != nil && !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}
