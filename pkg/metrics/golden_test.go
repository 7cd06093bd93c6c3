// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"bytes"
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"

	"github.com/svcscope/svcscope/pkg/correlate"
)

var update = flag.Bool("update", false, "write the golden files anew")

const goldenFile = "testdata/metrics.prom"

// collector lets a pedantic registry judge what the Gatherer makes: types,
// labels, duplicates, UTF-8.
type collector struct{ gatherer *Gatherer }

func (c collector) descs() map[string]*prometheus.Desc {
	descs := make(map[string]*prometheus.Desc)
	for _, m := range Metrics() {
		descs[m.Name] = prometheus.NewDesc(m.Name, m.Help, m.LabelNames(), nil)
	}
	return descs
}

func (c collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range c.descs() {
		ch <- d
	}
}

func (c collector) Collect(ch chan<- prometheus.Metric) {
	descs := c.descs()
	families, _ := c.gatherer.Gather()
	for _, f := range families {
		for _, m := range f.Metric {
			ch <- sample{descs[f.GetName()], m}
		}
	}
}

type sample struct {
	desc *prometheus.Desc
	m    *dto.Metric
}

func (s sample) Desc() *prometheus.Desc { return s.desc }

func (s sample) Write(m *dto.Metric) error {
	m.Label, m.Counter, m.Gauge = s.m.Label, s.m.Counter, s.m.Gauge
	return nil
}

// pedantic returns a registry of the snapshot's families alone.
func pedantic(t *testing.T, s *correlate.Snapshot, cfg Config) *prometheus.Registry {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	if err := reg.Register(collector{NewGatherer(func() *correlate.Snapshot { return s }, cfg)}); err != nil {
		t.Fatal(err)
	}
	return reg
}

func gather(t *testing.T, g prometheus.Gatherer) []*dto.MetricFamily {
	t.Helper()
	families, err := g.Gather()
	if err != nil {
		t.Fatal(err)
	}
	return families
}

func text(t *testing.T, families []*dto.MetricFamily, format expfmt.Format, opts ...expfmt.EncoderOption) string {
	t.Helper()
	var b bytes.Buffer
	enc := expfmt.NewEncoder(&b, format, opts...)
	for _, f := range families {
		if err := enc.Encode(f); err != nil {
			t.Fatal(err)
		}
	}
	return b.String()
}

func plain() expfmt.Format { return expfmt.NewFormat(expfmt.TypeTextPlain) }

func TestExpositionIsTheGoldenOne(t *testing.T) {
	got := text(t, gather(t, pedantic(t, richSnapshot(), Config{Endpoints: true, Policies: true})), plain())
	if *update {
		if err := os.WriteFile(goldenFile, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(goldenFile)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got), -update writes it anew:\n%s", goldenFile, diff)
	}
}

// lintExceptions returns what the linters say of names that stay as they are:
// the thing measured is a rule's counter, not the metric's type.
func lintExceptions() []string {
	return []string{"svcscope_counter_blind_seconds_total metric name should not include type 'counter'"}
}

func TestLintFindsNothing(t *testing.T) {
	problems, err := testutil.GatherAndLint(pedantic(t, richSnapshot(), Config{Endpoints: true, Policies: true}))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range problems {
		got = append(got, p.Metric+" "+p.Text)
	}
	if diff := cmp.Diff(lintExceptions(), got); diff != "" {
		t.Errorf("problems (-want +got):\n%s", diff)
	}
}

func TestOpenMetricsCarriesCreatedTimes(t *testing.T) {
	families := gather(t, pedantic(t, richSnapshot(), Config{Endpoints: true, Policies: true}))
	got := text(t, families, expfmt.NewFormat(expfmt.TypeOpenMetrics), expfmt.WithCreatedLines())
	for _, want := range []string{
		`svcscope_service_connections_created{ip_family="IPv4",port_name="http",protocol="TCP",service_name="web",service_namespace="default",via="cluster"} 1.7829072e+09`,
		`svcscope_service_connections_created{ip_family="IPv4",port_name="",protocol="TCP",service_name="idle",service_namespace="default",via="external"} 1.78290723e+09`,
		`svcscope_service_connections_created{ip_family="IPv4",port_name="",protocol="TCP",service_name="_other",service_namespace="",via="cluster"} 1.7829072e+09`,
		`svcscope_service_endpoint_connections_created{endpoint_address="10.244.1.6:8080",ip_family="IPv4",port_name="http",protocol="TCP",service_name="web",service_namespace="default"} 1.78290723e+09`,
		`svcscope_service_rejected_packets_created{ip_family="IPv6",port_name="http",protocol="TCP",reason="no_local_endpoints",service_name="web",service_namespace="default"} 1.7829072e+09`,
		`svcscope_ruleset_changes_created{backend="nft",ip_family="",writer="unknown"} 1.7829072e+09`,
		`svcscope_events_lost_created{source="conntrack"} 1.7829072e+09`,
	} {
		if !strings.Contains(got, want+"\n") {
			t.Errorf("no line %s", want)
		}
	}
	if strings.Contains(got, "svcscope_conntrack_drop_created") {
		t.Error("a kernel statistic has a created time, which nobody knows")
	}
	if t.Failed() {
		t.Log(got)
	}
}
