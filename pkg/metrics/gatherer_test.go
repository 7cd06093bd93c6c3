// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	dto "github.com/prometheus/client_model/go"

	"github.com/svcscope/svcscope/pkg/correlate"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/service"
)

// lines returns the samples of the families whose names begin with the prefix.
func lines(t *testing.T, families []*dto.MetricFamily, prefix string) []string {
	t.Helper()
	var got []string
	for line := range strings.Lines(text(t, families, plain())) {
		if strings.HasPrefix(line, prefix) {
			got = append(got, strings.TrimSuffix(line, "\n"))
		}
	}
	return got
}

func of(s *correlate.Snapshot) func() *correlate.Snapshot {
	return func() *correlate.Snapshot { return s }
}

func TestWithoutSnapshotOnlyTheAgentSpeaks(t *testing.T) {
	g := NewGatherer(of(nil), Config{Endpoints: true})
	for range 2 {
		if diff := cmp.Diff([]string{"svcscope_kube_synced 0"}, lines(t, gather(t, g), Prefix)); diff != "" {
			t.Errorf("samples (-want +got):\n%s", diff)
		}
	}
}

func TestEmptySnapshotClaimsNothing(t *testing.T) {
	s := &correlate.Snapshot{Time: started(), Node: correlate.NodeInfo{ProxyMode: "unknown"}}
	want := []string{
		"svcscope_kube_synced 0",
		`svcscope_node_info{backend="",kernel="",node="",proxy_mode="unknown"} 1`,
		"svcscope_series_dropped_total 0",
		"svcscope_series_limit 0",
		"svcscope_snapshot_timestamp_seconds 1.7829072e+09",
	}
	if diff := cmp.Diff(want, lines(t, gather(t, pedantic(t, s, Config{})), Prefix)); diff != "" {
		t.Errorf("samples (-want +got):\n%s", diff)
	}
}

func TestStatisticThatTheKernelLacksIsAbsent(t *testing.T) {
	s := &correlate.Snapshot{Conntrack: &correlate.Conntrack{Stats: correlate.ConntrackStats{Drop: new(uint64(0))}}}
	want := []string{
		"svcscope_conntrack_buckets 0",
		"svcscope_conntrack_drop_total 0",
		"svcscope_conntrack_entries 0",
		"svcscope_conntrack_entries_limit 0",
		"svcscope_conntrack_entries_peak 0",
	}
	if diff := cmp.Diff(want, lines(t, gather(t, NewGatherer(of(s), Config{})), "svcscope_conntrack_")); diff != "" {
		t.Errorf("samples (-want +got):\n%s", diff)
	}
}

func TestEndpointsAreOptIn(t *testing.T) {
	for _, endpoints := range []bool{false, true} {
		got := lines(t, gather(t, NewGatherer(richSnapshot, Config{Endpoints: endpoints})), "svcscope_service_endpoint_connections_total")
		if (len(got) > 0) != endpoints {
			t.Errorf("Endpoints %v: %q", endpoints, got)
		}
	}
}

// web returns a snapshot of one Service port with these connections from the
// cluster, and these endpoints by their last byte.
func web(cluster uint64, endpoints ...byte) *correlate.Snapshot {
	p := &correlate.ServicePort{
		Port: portName("default", "web", "", service.TCP), Family: netfilter.IPv4, Exposed: true,
		Created: started(), Cluster: cluster, Rules: map[string]int{"nat": 3},
	}
	for _, e := range endpoints {
		p.Endpoints = append(p.Endpoints, correlate.Endpoint{Addr: endpointAddr(int(e)), InKernel: true, Created: started()})
	}
	return &correlate.Snapshot{Services: []*correlate.ServicePort{p}}
}

func TestScrapesShareWhatDidNotChange(t *testing.T) {
	var newest atomic.Pointer[correlate.Snapshot]
	g := NewGatherer(newest.Load, Config{})
	find := func(name string) []*dto.Metric {
		for _, f := range gather(t, g) {
			if f.GetName() == name {
				return f.Metric
			}
		}
		return nil
	}
	newest.Store(web(1))
	first := find("svcscope_service_connections_total")
	if again := find("svcscope_service_connections_total"); &again[0] != &first[0] {
		t.Error("the same snapshot was built twice")
	}
	newest.Store(web(2))
	second := find("svcscope_service_connections_total")
	if first[0] == second[0] || second[0].Counter.GetValue() != 2 {
		t.Errorf("a changed sample was not replaced: %v", second[0])
	}
	if first[0].Counter.GetValue() != 1 {
		t.Errorf("a sample that an earlier scrape may still format was written to: %v", first[0])
	}
	if first[1] != second[1] {
		t.Error("an unchanged sample was made anew")
	}
	if second[0].Counter.GetCreatedTimestamp().AsTime() != started() {
		t.Errorf("the created time was lost: %v", second[0])
	}
}

func TestSeriesEndWithTheirServiceAndEndpoint(t *testing.T) {
	s := web(1, 1, 2)
	g := NewGatherer(func() *correlate.Snapshot { return s }, Config{Endpoints: true})
	gather(t, g)
	s = web(1, 2)
	got := lines(t, gather(t, g), "svcscope_service_endpoint_")
	if len(got) != 1 || !strings.Contains(got[0], endpointAddr(2).String()) {
		t.Errorf("after an endpoint went: %q", got)
	}
	for _, r := range g.services.rows {
		if len(r.series) != 4 {
			t.Errorf("%d series are kept, want 2 of connections, 1 of rules and 1 of an endpoint", len(r.series))
		}
	}
	s = &correlate.Snapshot{}
	if got := lines(t, gather(t, g), "svcscope_service_"); got != nil {
		t.Errorf("after the Service went: %q", got)
	}
	if len(g.services.rows) != 0 {
		t.Errorf("%d rows are kept of no Service", len(g.services.rows))
	}
}

func TestUndecodedKindsAreBounded(t *testing.T) {
	undecoded := make(map[string]uint64)
	s := &correlate.Snapshot{Self: correlate.Self{Undecoded: undecoded}}
	g := NewGatherer(func() *correlate.Snapshot { c := *s; return &c }, Config{})
	sum := func() (total float64, kinds int, other float64) {
		for _, f := range gather(t, g) {
			if f.GetName() != "svcscope_undecoded_total" {
				continue
			}
			for _, m := range f.Metric {
				total += m.Counter.GetValue()
				kinds++
				if m.Label[0].GetValue() == kindOther {
					other = m.Counter.GetValue()
				}
			}
		}
		return total, kinds, other
	}
	undecoded["match/z"] = 7
	undecoded[kindOther] = 1 // what the kernel calls other must not collide with the rest
	if total, kinds, other := sum(); total != 8 || kinds != 2 || other != 1 {
		t.Errorf("total %v in %d kinds, other %v", total, kinds, other)
	}
	for i := range 1000 {
		undecoded[fmt.Sprintf("match/%04d", i)] = 1
	}
	total, kinds, other := sum()
	if total != 1008 || kinds != maxKinds+1 || other != 1008-7-(maxKinds-1) {
		t.Errorf("total %v in %d kinds, other %v", total, kinds, other)
	}
	if got := lines(t, gather(t, g), `svcscope_undecoded_total{kind="match/z"}`); len(got) != 1 {
		t.Error("a kind lost its series when others came")
	}
}

func TestConcurrentScrapesNeverGoBack(t *testing.T) {
	var newest atomic.Pointer[correlate.Snapshot]
	newest.Store(web(0, 1, 2, 3))
	g := NewGatherer(newest.Load, Config{Endpoints: true})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			last := 0.0
			for last < 200 {
				for _, f := range gather(t, g) {
					if f.GetName() != "svcscope_service_connections_total" {
						continue
					}
					if v := f.Metric[0].Counter.GetValue(); v < last {
						t.Errorf("%v after %v", v, last)
						return
					} else {
						last = v
					}
				}
			}
		})
	}
	for n := range uint64(200) {
		newest.Store(web(n+1, byte(n), 2, 3))
	}
	wg.Wait()
}

func TestUncountedServicesHaveNoConnections(t *testing.T) {
	s := richSnapshot()
	for i := range s.Services {
		s.Services[i].Uncounted, s.Services[i].KernelCount = true, -1
	}
	for i := range s.Other {
		s.Other[i].Uncounted = true
	}
	families, err := NewGatherer(func() *correlate.Snapshot { return s }, Config{Endpoints: true}).Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		switch f.GetName() {
		case "svcscope_service_connections_total", "svcscope_service_rejected_packets_total",
			"svcscope_service_endpoint_connections_total":
			t.Errorf("%d series of %s that nobody counts", len(f.Metric), f.GetName())
		case "svcscope_service_endpoints":
			for _, m := range f.Metric {
				if strings.Contains(m.String(), "kernel") && !strings.Contains(m.String(), otherService) {
					t.Errorf("%v: nobody knows", m)
				}
			}
		}
	}
}
