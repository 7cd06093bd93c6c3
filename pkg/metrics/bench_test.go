// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"

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

// BenchmarkScrape is a whole scrape of 10,000 active Services: every snapshot
// is new and every connections counter has grown since the scrape before.
func BenchmarkScrape(b *testing.B) {
	// The first is what Prometheus 3 asks for by default, but for compression.
	const (
		openMetrics = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8"
		plainText   = "text/plain;version=0.0.4;escaping=allow-utf-8"
		protobuf    = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;escaping=allow-utf-8"
	)
	for _, bb := range []struct {
		name, accept, encoding string
		cfg                    Config
	}{
		{"openmetrics", openMetrics, "identity", Config{}},
		{"openmetrics/gzip", openMetrics, "gzip", Config{}},
		{"text", plainText, "identity", Config{}},
		{"text/gzip", plainText, "gzip", Config{}},
		{"text/endpoints", plainText, "identity", Config{Endpoints: true}},
		{"protobuf", protobuf, "identity", Config{}},
	} {
		b.Run(bb.name, func(b *testing.B) {
			snapshots := []*correlate.Snapshot{manyServices(1), manyServices(2)}
			n := 0
			h := Handler(NewRegistry(func() *correlate.Snapshot { n++; return snapshots[n%2] }, bb.cfg))
			req := httptest.NewRequestWithContext(b.Context(), http.MethodGet, "/metrics", nil)
			req.Header.Set("Accept", bb.accept)
			req.Header.Set("Accept-Encoding", bb.encoding)
			w := &discard{header: make(http.Header)}
			h.ServeHTTP(w, req) // the first scrape makes what later ones share
			w.bytes = 0
			b.ReportAllocs()
			begin := cpu(b)
			for b.Loop() {
				h.ServeHTTP(w, req)
			}
			b.ReportMetric(float64(cpu(b)-begin)/float64(b.N)/1e6, "cpu-ms/scrape")
			b.ReportMetric(float64(w.bytes)/float64(b.N)/1e6, "MB/scrape")
		})
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
