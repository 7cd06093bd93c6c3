// SPDX-License-Identifier: Apache-2.0

package correlate

import (
	"encoding/json"
	"math"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/service"
)

func reportSnapshot() *Snapshot {
	at := time.Date(2026, 3, 1, 12, 0, 0, 123456789, time.FixedZone("CET", 3600))
	web := service.PortName{
		Name: service.Name{Namespace: "default", Name: "web"}, Port: "http", Protocol: service.TCP,
	}
	return &Snapshot{
		Time: at,
		Node: NodeInfo{Name: "worker-1", ProxyMode: "iptables", Backend: "nft"},
		Kube: KubeState{Enabled: true, Synced: true},
		Self: Self{Collectors: []CollectorState{
			{Name: "nftables", Success: true},
			{Name: "legacy", Err: "read table nat: operation not permitted"},
		}},
		Services: []*ServicePort{{
			Port: web, Family: netfilter.IPv4, Type: "NodePort",
			ClusterIP: netip.MustParseAddr("10.96.0.10"), Number: 80, NodePort: 30080,
			Exposed: true, Created: at.Add(-time.Hour), Cluster: 75, External: 27,
			Rejected: map[Reason]uint64{SourceRange: 4},
			Rules:    map[string]int{"nat": 9},
			APICount: 2, KernelCount: 1,
			Endpoints: []Endpoint{
				{Addr: netip.MustParseAddrPort("10.244.1.5:8080"), InAPI: true, InKernel: true, Connections: 102},
				{Addr: netip.MustParseAddrPort("[fd00::5]:8080"), InAPI: true},
			},
		}, {
			Port: service.PortName{Name: service.Name{Namespace: "default", Name: "web2"}, Protocol: service.UDP},
			// Folded, and the API unknown.
			Family: netfilter.IPv6, APICount: -1, Cluster: 7,
		}},
		Other: []OtherTotal{{
			Protocol: service.UDP, Family: netfilter.IPv6, Cluster: 7, Services: 1, Created: at.Add(-time.Hour),
		}},
	}
}

const wantReport = `{
  "node": "worker-1",
  "time": "2026-03-01T11:00:00.123Z",
  "source": "agent",
  "proxyMode": "iptables",
  "backend": "nft",
  "kube": {
    "enabled": true,
    "synced": true
  },
  "collectors": [
    {
      "name": "nftables",
      "success": true
    },
    {
      "name": "legacy",
      "success": false,
      "error": "read table nat: operation not permitted"
    }
  ],
  "items": [
    {
      "namespace": "default",
      "name": "web",
      "portName": "http",
      "protocol": "TCP",
      "ipFamily": "IPv4",
      "type": "NodePort",
      "clusterIP": "10.96.0.10",
      "port": 80,
      "nodePort": 30080,
      "connections": {
        "total": 102,
        "cluster": 75,
        "external": 27
      },
      "since": "2026-03-01T10:00:00.123Z",
      "rejectedPackets": {
        "source_range": 4
      },
      "endpoints": {
        "kernel": 1,
        "api": 2,
        "items": [
          {
            "address": "10.244.1.5:8080",
            "inKernel": true,
            "inAPI": true,
            "connections": 102
          },
          {
            "address": "[fd00::5]:8080",
            "inKernel": false,
            "inAPI": true,
            "connections": 0
          }
        ]
      },
      "rules": {
        "nat": 9
      }
    },
    {
      "namespace": "default",
      "name": "web2",
      "protocol": "UDP",
      "ipFamily": "IPv6",
      "uncounted": "above_cap",
      "endpoints": {
        "kernel": 0
      }
    }
  ],
  "other": [
    {
      "protocol": "UDP",
      "ipFamily": "IPv6",
      "services": 1,
      "connections": {
        "total": 7,
        "cluster": 7,
        "external": 0
      },
      "since": "2026-03-01T10:00:00.123Z"
    }
  ]
}`

func TestServicesReportJSON(t *testing.T) {
	got, err := json.MarshalIndent(NewServicesReport(reportSnapshot()), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(wantReport, string(got)); diff != "" {
		t.Errorf("report (-want +got):\n%s", diff)
	}
	var back ServicesReport
	if err := json.Unmarshal(got, &back); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(NewServicesReport(reportSnapshot()), back); diff != "" {
		t.Errorf("report read back (-want +got):\n%s", diff)
	}
}

func TestServicesReportOfOneReading(t *testing.T) {
	s := reportSnapshot()
	for i := range s.Services {
		s.Services[i].SinceRule = true
		s.Services[i].Exposed = false
		s.Services[i].Cluster = math.MaxUint64
		s.Services[i].External = 0
	}
	r := NewServicesReport(s)
	if r.Source != SourceKernel {
		t.Errorf("source %q, want %q", r.Source, SourceKernel)
	}
	for _, it := range r.Items {
		if it.Since != nil {
			t.Errorf("%s: since %v, want none: the rules' age is not known", it.Name, it.Since)
		}
		if it.Connections == nil || it.Connections.Total != math.MaxUint64 {
			t.Errorf("%s: connections %v, want the rule's counter", it.Name, it.Connections)
		}
	}
	b, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(b), `"cluster":18446744073709551615`) {
		t.Errorf("a large count is not a whole number: %s", b)
	}
}

// TestServicesReportWithoutCounts checks that a Service without counts says
// why, and gives none of them as 0.
func TestServicesReportWithoutCounts(t *testing.T) {
	for _, tc := range []struct {
		name, mode string
		port       ServicePort
		want       Uncounted
	}{
		{"nftables mode", "nftables", ServicePort{Exposed: true, Uncounted: true}, UncountedMode},
		{"nftables mode above the cap", "nftables", ServicePort{Uncounted: true}, UncountedMode},
		{"one reading in IPVS mode", "ipvs", ServicePort{SinceRule: true, Uncounted: true}, UncountedMode},
		{"rules not read", "unknown", ServicePort{Exposed: true, Uncounted: true}, UncountedUnread},
		{"one family not read", "iptables", ServicePort{SinceRule: true, Uncounted: true}, UncountedUnread},
		{"one reading of no rules", "unknown", ServicePort{SinceRule: true, KernelCount: -1}, UncountedUnread},
		{"above the cap", "iptables", ServicePort{}, UncountedCap},
		{"one reading", "iptables", ServicePort{SinceRule: true}, ""},
		{"counted", "iptables", ServicePort{Exposed: true}, ""},
		{"counted before the rules were lost", "iptables", ServicePort{Exposed: true, KernelCount: -1}, ""},
	} {
		tc.port.Created = time.Unix(1e9, 0)
		tc.port.Rejected = map[Reason]uint64{NoEndpoints: 1}
		r := NewServicesReport(&Snapshot{Node: NodeInfo{ProxyMode: tc.mode}, Services: []*ServicePort{&tc.port}}).Items[0]
		if r.Uncounted != tc.want {
			t.Errorf("%s: uncounted %q, want %q", tc.name, r.Uncounted, tc.want)
		}
		if tc.want != "" && (r.Connections != nil || r.Since != nil || r.RejectedPackets != nil) {
			t.Errorf("%s: connections %v since %v rejected %v, want none", tc.name, r.Connections, r.Since, r.RejectedPackets)
		}
		if tc.want == "" && r.Connections == nil {
			t.Errorf("%s: no connections", tc.name)
		}
	}
}

func TestServicesReportWithoutUncountedSums(t *testing.T) {
	s := reportSnapshot()
	s.Other[0].Uncounted = true
	if r := NewServicesReport(s); len(r.Other) != 0 {
		t.Errorf("sums %v, want none: 0 would say that nothing happened", r.Other)
	}
}

// TestServicesReportOfUnknownEndpoints checks that what is not known is absent.
func TestServicesReportOfUnknownEndpoints(t *testing.T) {
	endpoint := []Endpoint{{Addr: netip.MustParseAddrPort("10.244.1.5:8080"), InAPI: true}}
	for _, tc := range []struct {
		name string
		port ServicePort
		want string
	}{
		{
			"proxy mode without counts",
			ServicePort{Exposed: true, Uncounted: true, KernelCount: -1, APICount: 1, Endpoints: endpoint},
			`{"api":1,"items":[{"address":"10.244.1.5:8080","inAPI":true}]}`,
		},
		{
			"the nftables mode, whose endpoints are known without counts",
			ServicePort{Exposed: true, Uncounted: true, APICount: 1, Endpoints: endpoint},
			`{"kernel":0,"api":1,"items":[{"address":"10.244.1.5:8080","inKernel":false,"inAPI":true}]}`,
		},
		{
			"rules not read",
			ServicePort{SinceRule: true, KernelCount: -1, APICount: 1, Endpoints: endpoint},
			`{"api":1,"items":[{"address":"10.244.1.5:8080","inAPI":true}]}`,
		},
		{
			"no API",
			ServicePort{SinceRule: true, APICount: -1, Endpoints: endpoint},
			`{"kernel":0,"items":[{"address":"10.244.1.5:8080","inKernel":false,"connections":0}]}`,
		},
		{
			"above the cap",
			ServicePort{APICount: 1, Endpoints: endpoint},
			`{"kernel":0,"api":1,"items":[{"address":"10.244.1.5:8080","inKernel":false,"inAPI":true}]}`,
		},
		{"nothing", ServicePort{KernelCount: -1, APICount: -1}, `{}`},
	} {
		r := NewServicesReport(&Snapshot{Node: NodeInfo{ProxyMode: "nftables"}, Services: []*ServicePort{&tc.port}})
		got, err := json.Marshal(r.Items[0].Endpoints)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(tc.want, string(got)); diff != "" {
			t.Errorf("%s: endpoints (-want +got):\n%s", tc.name, diff)
		}
	}
}

func TestServicesReportOfEmptySnapshot(t *testing.T) {
	b, err := json.Marshal(NewServicesReport(&Snapshot{}))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"items":[]`, `"collectors":[]`} {
		if !strings.Contains(string(b), want) {
			t.Errorf("report %s lacks %s", b, want)
		}
	}
}

func TestServicesReportSharesNoMemory(t *testing.T) {
	s := reportSnapshot()
	r := NewServicesReport(s)
	r.Items[0].Rules["nat"] = 0
	r.Items[0].RejectedPackets[SourceRange] = 0
	if s.Services[0].Rules["nat"] != 9 || s.Services[0].Rejected[SourceRange] != 4 {
		t.Error("writing to the report changed the snapshot")
	}
}
