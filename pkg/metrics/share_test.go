// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	dto "github.com/prometheus/client_model/go"

	"github.com/svcscope/svcscope/pkg/correlate"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/service"
)

// next returns a snapshot after s in which rows have changed, gone or come, and
// most are those of s.
func next(r *rand.Rand, s *correlate.Snapshot) *correlate.Snapshot {
	n := &correlate.Snapshot{Time: s.Time.Add(time.Second)}
	for i := range 30 {
		key := portName("team", fmt.Sprintf("service-%02d", i/2), "", service.TCP)
		family := []netfilter.Family{netfilter.IPv4, netfilter.IPv6}[i%2]
		var p *correlate.ServicePort
		for _, q := range s.Services {
			if q.Port == key && q.Family == family {
				p = q
			}
		}
		switch r.IntN(8) {
		case 0:
			continue // gone, or not there yet
		case 1: // another state
			q := correlate.ServicePort{
				Port: key, Family: family, Exposed: r.IntN(4) > 0, Created: started().Add(time.Duration(r.IntN(2)) * time.Hour),
				Cluster: uint64(r.IntN(3)), Rules: map[string]int{"nat": r.IntN(2), "filter": r.IntN(2)},
				Rejected: map[correlate.Reason]uint64{correlate.SourceRange: uint64(r.IntN(2))}, Uncounted: r.IntN(4) == 0,
				APICount: r.IntN(3) - 1, KernelCount: r.IntN(3) - 1,
			}
			for e := range r.IntN(4) {
				q.Endpoints = append(q.Endpoints, correlate.Endpoint{Addr: endpointAddr(e + r.IntN(3)*4), InKernel: r.IntN(3) > 0, Connections: uint64(r.IntN(2)), Created: q.Created})
			}
			p = &q
		}
		if p != nil {
			n.Services = append(n.Services, p)
		}
	}
	for i, proto := range []service.Protocol{service.TCP, service.UDP} {
		if r.IntN(2) == 0 {
			n.Other = append(n.Other, correlate.OtherTotal{Protocol: proto, Family: netfilter.IPv4, Created: started(), Cluster: uint64(i + r.IntN(2))})
		}
	}
	if r.IntN(5) == 0 {
		n.Services = s.Services // not even the slice is another
	}
	return n
}

// TestKeptSeriesAreThoseMadeAnew compares a Gatherer that lives on with one that
// sees the snapshot first.
func TestKeptSeriesAreThoseMadeAnew(t *testing.T) {
	for seed := range uint64(10) {
		r := rand.New(rand.NewPCG(seed, 3))
		cfg := Config{Endpoints: seed%2 == 0}
		s := &correlate.Snapshot{}
		kept := NewGatherer(func() *correlate.Snapshot { return s }, cfg)
		for range 300 {
			s = next(r, s)
			want := text(t, gather(t, NewGatherer(of(s), cfg)), plain())
			if diff := cmp.Diff(want, text(t, gather(t, kept), plain())); diff != "" {
				t.Fatalf("seed %d (-anew +kept):\n%s", seed, diff)
			}
		}
	}
}

// rounds returns a snapshot of Services that all stand at n.
func rounds(n uint64) *correlate.Snapshot {
	s := &correlate.Snapshot{Time: time.Unix(int64(n), 0)}
	for i := range 50 {
		s.Services = append(s.Services, &correlate.ServicePort{
			Port: portName("team", fmt.Sprintf("service-%02d", i), "", service.TCP), Family: netfilter.IPv4,
			Exposed: true, Created: started(), Cluster: n, External: n,
		})
	}
	return s
}

// TestOverlappingScrapesAreOfOneSnapshotEach scrapes while snapshots come.
func TestOverlappingScrapesAreOfOneSnapshotEach(t *testing.T) {
	var newest atomic.Pointer[correlate.Snapshot]
	newest.Store(rounds(0))
	h := Handler(NewRegistry(newest.Load, Config{}))
	var wg sync.WaitGroup
	for _, accept := range []string{"text/plain;version=0.0.4", "application/openmetrics-text;version=1.0.0"} {
		for range 2 {
			wg.Go(func() {
				for last := 0.0; last < 100; {
					req := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil)
					req.Header.Set("Accept", accept)
					w := httptest.NewRecorder()
					h.ServeHTTP(w, req)
					seen := standings(w.Body.String())
					if len(seen) != 1 {
						t.Errorf("one page has numbers of %d snapshots: %v", len(seen), seen)
						return
					}
					for v, n := range seen {
						if n != 101 || v < last {
							t.Errorf("%d numbers of snapshot %v after %v", n, v, last)
							return
						}
						last = v
					}
				}
			})
		}
	}
	for n := range uint64(100) {
		newest.Store(rounds(n + 1))
		runtime.Gosched()
	}
	wg.Wait()
}

// standings counts the values of a page's connections and of its time.
func standings(page string) map[float64]int {
	seen := make(map[float64]int)
	for line := range strings.Lines(page) {
		if strings.HasPrefix(line, "svcscope_service_connections_total{") || strings.HasPrefix(line, "svcscope_snapshot_timestamp_seconds ") {
			v, _ := strconv.ParseFloat(line[strings.LastIndexByte(line, ' ')+1:len(line)-1], 64)
			seen[v]++
		}
	}
	return seen
}

func TestScrapesOfOneSnapshotShareTheirFamilies(t *testing.T) {
	r := NewRegistry(of(rounds(1)), Config{})
	const name = "svcscope_service_connections_total"
	families := make([]*dto.MetricFamily, 8)
	var wg sync.WaitGroup
	for i := range families {
		wg.Go(func() {
			all, _ := r.Gather()
			for _, f := range all {
				if f.GetName() == name {
					families[i] = f
				}
			}
		})
	}
	wg.Wait()
	for i, f := range families {
		if f == nil || f != families[0] {
			t.Errorf("scrape %d has its own family %p, the first one has %p", i, f, families[0])
		}
	}
}

func TestFamiliesWithoutAChangeAreKept(t *testing.T) {
	first := richSnapshot()
	s := first
	g := NewGatherer(func() *correlate.Snapshot { return s }, Config{Endpoints: true})
	families := func() map[string]*dto.MetricFamily {
		m := make(map[string]*dto.MetricFamily)
		for _, f := range gather(t, g) {
			m[f.GetName()] = f
		}
		return m
	}
	before := families()
	s = richSnapshot()
	s.Services = append([]*correlate.ServicePort(nil), first.Services...)
	web := *s.Services[2]
	web.Cluster++
	s.Services[2] = &web
	after := families()
	for name, changed := range map[string]bool{
		"svcscope_service_connections_total":          true,
		"svcscope_service_endpoint_connections_total": false,
		"svcscope_service_rejected_packets_total":     false,
		"svcscope_service_rules":                      false,
		"svcscope_service_endpoints":                  false,
	} {
		if (before[name] != after[name]) != changed {
			t.Errorf("%s: made anew %v, want %v", name, before[name] != after[name], changed)
		}
	}
}

func TestRecreatedServiceHasANewStartInEveryFormat(t *testing.T) {
	s := web(5)
	r := NewRegistry(func() *correlate.Snapshot { return s }, Config{})
	h := Handler(r)
	check := func(created time.Time) {
		t.Helper()
		req := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil)
		req.Header.Set("Accept", "application/openmetrics-text;version=1.0.0")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, req)
		want := `svcscope_service_connections_created{ip_family="IPv4",port_name="",protocol="TCP",service_name="web",service_namespace="default",via="cluster"} ` +
			strconv.FormatFloat(float64(created.Unix()), 'g', -1, 64)
		if !strings.Contains(w.Body.String(), want+"\n") {
			t.Errorf("OpenMetrics: no line %s", want)
		}
		req.Header.Set("Accept", string(protobuf()))
		w = httptest.NewRecorder()
		h.ServeHTTP(w, req)
		for _, m := range decodeProtobuf(t, w.Body)["svcscope_service_connections_total"].GetMetric() {
			if got := m.GetCounter().GetCreatedTimestamp().AsTime(); !got.Equal(created) {
				t.Errorf("protobuf: created %v, want %v", got, created)
			}
		}
	}
	check(started())
	s = web(1)
	s.Services[0].Created = started().Add(time.Hour)
	check(started().Add(time.Hour))
}

// TestMemoryIsThatOfTheNewestSnapshot has other Services in each of 1,000
// snapshots.
func TestMemoryIsThatOfTheNewestSnapshot(t *testing.T) {
	var s *correlate.Snapshot
	g := NewGatherer(func() *correlate.Snapshot { return s }, Config{Endpoints: true})
	round := func(n int) {
		s = &correlate.Snapshot{}
		for i := range 100 {
			s.Services = append(s.Services, &correlate.ServicePort{
				Port: portName("team", fmt.Sprintf("service-%04d-%02d", n, i), "", service.TCP), Family: netfilter.IPv4,
				Exposed: true, Created: started(), Cluster: 1, Rules: map[string]int{"nat": 1},
				Endpoints: []correlate.Endpoint{{Addr: endpointAddr(n*100 + i), InKernel: true}},
			})
		}
		gather(t, g)
	}
	for n := range 10 {
		round(n)
	}
	before := heap()
	for n := range 1000 {
		round(n)
	}
	after := heap()
	// What one round keeps is about 200 KB; a thousand would be 200 MB.
	if grown := int64(after) - int64(before); grown > 1<<20 {
		t.Errorf("%d bytes grown in 1,000 snapshots", grown)
	}
	runtime.KeepAlive(g)
}

func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
