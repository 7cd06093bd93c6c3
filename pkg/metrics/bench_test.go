// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sys/unix"

	"github.com/svcscope/svcscope/pkg/correlate"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/service"
)

func endpointAddr(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 8080)
}

// manyServices returns a snapshot of 10,000 Services with three endpoints each, all
// of them exposed and with traffic that grows with round.
func manyServices(round uint64) *correlate.Snapshot {
	s := &correlate.Snapshot{Time: started(), Services: make([]*correlate.ServicePort, 10_000)}
	for i := range s.Services {
		p := &correlate.ServicePort{
			Port:   portName(fmt.Sprintf("team-%d", i%100), fmt.Sprintf("service-%05d", i), "http", service.TCP),
			Family: netfilter.IPv4, Exposed: true, Created: started(),
			Cluster: round * 3, External: round, Rules: map[string]int{"nat": 11, "filter": 1}, APICount: 3, KernelCount: 3,
		}
		for e := range 3 {
			p.Endpoints = append(p.Endpoints, correlate.Endpoint{Addr: endpointAddr(i*3 + e), InKernel: true, Connections: round, Created: started()})
		}
		s.Services[i] = p
	}
	return s
}

// discard is a ResponseWriter that keeps nothing, so that what is measured is
// the handler's own work.
type discard struct {
	header http.Header
	bytes  int
}

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) Write(b []byte) (int, error) { d.bytes += len(b); return len(b), nil }
func (d *discard) WriteHeader(int)             {}

// cpu is the processor time that this process has taken: the clock's time says
// little while others use the machine.
func cpu(b *testing.B) int64 {
	b.Helper()
	var r unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &r); err != nil {
		b.Fatal(err)
	}
	return r.Utime.Nano() + r.Stime.Nano()
}

// grown returns s with every nth Service grown; n 0: the same rows.
func grown(s *correlate.Snapshot, n int) *correlate.Snapshot {
	next := &correlate.Snapshot{Time: s.Time.Add(time.Second), Services: s.Services}
	if n == 0 {
		return next
	}
	next.Services = slices.Clone(s.Services)
	for i := 0; i < len(next.Services); i += n {
		p := *next.Services[i]
		p.Cluster += 3
		p.External++
		next.Services[i] = &p
	}
	return next
}

// BenchmarkScrape is a whole scrape of 10,000 Services in one family. Every
// snapshot is new; in it every Service has counted since the scrape before, or
// each hundredth, or none.
func BenchmarkScrape(b *testing.B) {
	// The first is what Prometheus 3 asks for by default, with gzip.
	const (
		openMetrics = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8"
		plainText   = "text/plain;version=0.0.4;escaping=allow-utf-8"
		protobuf    = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;escaping=allow-utf-8"
	)
	for _, bb := range []struct {
		name, accept, encoding string
		every                  int
		cfg                    Config
	}{
		{"openmetrics", openMetrics, identity, 1, Config{}},
		{"openmetrics/gzip", openMetrics, "gzip", 1, Config{}},
		{"openmetrics/zstd", openMetrics, "zstd", 1, Config{}},
		{"openmetrics/1 % changed", openMetrics, identity, 100, Config{}},
		{"openmetrics/nothing changed", openMetrics, identity, 0, Config{}},
		{"text", plainText, identity, 1, Config{}},
		{"text/gzip", plainText, "gzip", 1, Config{}},
		{"text/endpoints", plainText, identity, 1, Config{Endpoints: true}},
		{"protobuf", protobuf, identity, 1, Config{}},
	} {
		b.Run(bb.name, func(b *testing.B) {
			s := manyServices(1)
			r := NewRegistry(func() *correlate.Snapshot { return s }, bb.cfg)
			h := Handler(r)
			req := httptest.NewRequestWithContext(b.Context(), http.MethodGet, "/metrics", nil)
			req.Header.Set("Accept", bb.accept)
			req.Header.Set("Accept-Encoding", bb.encoding)
			w := &discard{header: make(http.Header)}
			h.ServeHTTP(w, req) // the first scrape makes what later ones share
			w.bytes = 0
			b.ReportAllocs()
			taken := int64(0)
			for b.Loop() {
				b.StopTimer()
				s = grown(s, bb.every)
				begin := cpu(b)
				b.StartTimer()
				h.ServeHTTP(w, req)
				taken += cpu(b) - begin
			}
			b.ReportMetric(float64(taken)/float64(b.N)/1e6, "cpu-ms/scrape")
			b.ReportMetric(float64(w.bytes)/float64(b.N)/1e6, "MB/scrape")
		})
	}
}

// BenchmarkScrapeByClientGolang is the measure of the budget: the same samples
// from a Registry of const metrics, as client_golang's users do it.
func BenchmarkScrapeByClientGolang(b *testing.B) {
	s := manyServices(1)
	reg := prometheus.NewRegistry()
	reg.MustRegister(constMetrics{s, collector{}.descs()})
	h := promhttp.HandlerFor(reg, promhttp.HandlerOpts{EnableOpenMetrics: true, EnableOpenMetricsTextCreatedSamples: true})
	req := httptest.NewRequestWithContext(b.Context(), http.MethodGet, "/metrics", nil)
	req.Header.Set("Accept", "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8")
	w := &discard{header: make(http.Header)}
	b.ReportAllocs()
	begin := cpu(b)
	for b.Loop() {
		h.ServeHTTP(w, req)
	}
	b.ReportMetric(float64(cpu(b)-begin)/float64(b.N)/1e6, "cpu-ms/scrape")
	b.ReportMetric(float64(w.bytes)/float64(b.N)/1e6, "MB/scrape")
}

type constMetrics struct {
	s     *correlate.Snapshot
	descs map[string]*prometheus.Desc
}

func (c constMetrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range c.descs {
		ch <- d
	}
}

func (c constMetrics) Collect(ch chan<- prometheus.Metric) {
	for _, p := range c.s.Services {
		labels := []string{p.Port.Namespace, p.Port.Name.Name, p.Port.Port, string(p.Port.Protocol), p.Family.String(), ""}
		count := func(name, own string, v uint64) {
			labels[5] = own
			ch <- prometheus.MustNewConstMetricWithCreatedTimestamp(c.descs[name], prometheus.CounterValue, float64(v), p.Created, labels...)
		}
		show := func(name, own string, v int) {
			labels[5] = own
			ch <- prometheus.MustNewConstMetric(c.descs[name], prometheus.GaugeValue, float64(v), labels...)
		}
		count("svcscope_service_connections_total", viaCluster, p.Cluster)
		count("svcscope_service_connections_total", viaExternal, p.External)
		show("svcscope_service_rules", "nat", p.Rules["nat"])
		show("svcscope_service_rules", "filter", p.Rules["filter"])
		show("svcscope_service_endpoints", sourceAPI, p.APICount)
		show("svcscope_service_endpoints", sourceKernel, p.KernelCount)
	}
}

// BenchmarkGather is the part of a scrape that is not formatting.
func BenchmarkGather(b *testing.B) {
	snapshots := []*correlate.Snapshot{manyServices(1), manyServices(2)}
	n := 0
	g := NewGatherer(func() *correlate.Snapshot { n++; return snapshots[n%2] }, Config{})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := g.Gather(); err != nil {
			b.Fatal(err)
		}
	}
}
