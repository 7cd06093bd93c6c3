// SPDX-License-Identifier: Apache-2.0

package kubeproxy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/svcscope/svcscope/pkg/service"
)

// parseEndpoints reads one endpoint a word: last byte of the address, then
// flags. r ready, s serving, t terminating, @NODE, z=ZONE+ZONE, n=NODE+NODE.
// A running pod is "rs", one that terminates but serves "st".
func parseEndpoints(t *testing.T, text string) []service.Endpoint {
	t.Helper()
	var out []service.Endpoint
	for word := range strings.FieldsSeq(text) {
		parts := strings.Split(word, ",")
		e := service.Endpoint{Addr: netip.MustParseAddrPort("10.1.2." + parts[0] + ":80")}
		for _, p := range parts[1:] {
			switch {
			case strings.HasPrefix(p, "@"):
				e.NodeName = p[1:]
			case strings.HasPrefix(p, "z="):
				e.ForZones = strings.Split(p[2:], "+")
			case strings.HasPrefix(p, "n="):
				e.ForNodes = strings.Split(p[2:], "+")
			default:
				e.Ready = strings.Contains(p, "r")
				e.Serving = strings.Contains(p, "s")
				e.Terminating = strings.Contains(p, "t")
			}
		}
		out = append(out, e)
	}
	return out
}

// names is the last bytes of the addresses; "-" is none.
func names(eps []service.Endpoint) string {
	var out []string
	for _, e := range eps {
		out = append(out, fmt.Sprint(e.Addr.Addr().As4()[3]))
	}
	if out == nil {
		return "-"
	}
	return strings.Join(out, " ")
}

func TestSelectEndpoints(t *testing.T) {
	const (
		internal      = 1 << iota // internalTrafficPolicy: Local
		external                  // externalTrafficPolicy: Local
		nodePort                  // has a node port
		clusterPolicy = 0
	)
	zones := "3,rs,z=a 4,rs,z=b 5,rs,z=c 6,rs,z=a"
	zonesLocal := "3,rs,z=a,@me 4,rs,z=b,@me 5,rs,z=c 6,rs,z=a"
	nodes := "3,rs,z=a,n=me 4,rs,z=b,n=n2 5,rs,z=c,n=n3 6,rs,z=a,n=n4"
	oneLocal := "3,rs,@me 4,rs,@other"
	allRemote := "3,rs,@other 4,rs,@other"
	remoteTerminating := "3,st,@other 4,st,@other"
	tests := []struct {
		name                      string
		policy                    int
		zone                      string
		endpoints                 string
		cluster, local, reachable string // "" where the port has no such set
		hasAny                    bool
	}{
		{"zone hints on every endpoint choose the zone", clusterPolicy, "a", zones, "3 6", "", "3 6", true},
		{"hints do not bind external local traffic", external | nodePort, "a", zonesLocal, "3 6", "3 4", "3 4 6", true},
		{"hints do not bind internal local traffic", internal | nodePort, "a", zonesLocal, "3 6", "3 4", "3 4 6", true},
		{"node without a zone ignores hints", clusterPolicy, "", "3,rs,z=a", "3", "", "3", true},
		{"no endpoint for the node's zone ignores hints", clusterPolicy, "b", "3,rs,z=a", "3", "", "3", true},
		{"unready endpoint of the zone is left out", clusterPolicy, "a", "3,rs,z=a 4,rs,z=b 5,rs,z=c 6,,z=a", "3", "", "3", true},
		{"only unready endpoints in the zone ignore hints", clusterPolicy, "a", "3,,z=a 4,rs,z=b 5,rs,z=c 6,,z=a", "4 5", "", "4 5", true},
		{"one ready endpoint without a hint ignores hints", clusterPolicy, "a", "3,rs,z=a 4,rs,z=b 5,rs 6,rs,z=a", "3 4 5 6", "", "3 4 5 6", true},
		{"an unready endpoint without a hint does not matter", clusterPolicy, "a", "3,rs,z=a 4,rs,z=b 5, 6,rs,z=a", "3 6", "", "3 6", true},
		{"an endpoint may have several zones", clusterPolicy, "c", "3,rs,z=a+b+c 4,rs,z=b+c 5,rs,z=b+d 6,rs,z=c", "3 4 6", "", "3 4 6", true},
		{"node hints go before zone hints", clusterPolicy, "a", nodes, "3", "", "3", true},
		{"one endpoint without node hint ignores all hints", clusterPolicy, "a", "3,rs,z=a,n=me 4,rs 5,rs,z=c,n=n3 6,rs,z=a,n=n4", "3 4 5 6", "", "3 4 5 6", true},
		{"no endpoint for this node falls back to the zone", clusterPolicy, "a", strings.ReplaceAll(nodes, "n=me", "n=n1"), "3 6", "", "3 6", true},
		{"node hints without zone hints", clusterPolicy, "a", "3,rs,n=me 4,rs,n=n2", "3", "", "3", true},
		{"topology and locality are merged", external | nodePort, "a", "3,rs,z=a,@me 4,rs,z=b,@me 5,rs,z=a 6,rs,z=b", "3 5", "3 4", "3 4 5", true},
		{"internal local without endpoints", internal, "", "", "", "-", "-", false},
		{"internal local, all remote", internal, "", allRemote, "", "-", "-", true},
		{"internal local, all remote and terminating", internal, "", remoteTerminating, "", "-", "-", true},
		{"internal local, all local", internal, "", "3,rs,@me 4,rs,@me", "", "3 4", "3 4", true},
		{"internal local, some local", internal, "", oneLocal, "", "3", "3", true},
		{"internal local, only unready", internal, "", "3,,@me 4,,@other", "", "-", "-", false},
		{"cluster policy, none ready", clusterPolicy, "", "3, 4,", "-", "", "-", false},
		{"cluster policy, serving but neither ready nor terminating", clusterPolicy, "", "3,s", "-", "", "-", false},
		{"cluster policy, some ready", clusterPolicy, "", "3, 4,rs", "4", "", "4", true},
		{"ready ones keep terminating ones out", clusterPolicy, "", "3,st 4,rs", "4", "", "4", true},
		{"cluster policy, all terminating", clusterPolicy, "", "3,st,@me 4,st", "3 4", "", "3 4", true},
		{"terminating and not serving is nothing", clusterPolicy, "", "3,t", "-", "", "-", false},
		{"ready while terminating is ready (publishNotReadyAddresses)", clusterPolicy, "", "3,rst 4,st", "3", "", "3", true},
		{"internal local, external cluster", internal | nodePort, "", oneLocal, "3 4", "3", "3 4", true},
		{"internal cluster, external local", external | nodePort, "", oneLocal, "3 4", "3", "3 4", true},
		{"both local", internal | external | nodePort, "", oneLocal, "3 4", "3", "3 4", true},
		{"both local, all remote", internal | external | nodePort, "", allRemote, "3 4", "-", "3 4", true},
		{"both local, all remote and terminating", internal | external | nodePort, "", remoteTerminating, "3 4", "-", "3 4", true},
		{"a local terminating endpoint joins remote ready ones", external | nodePort, "", "3,rs,@other 4,,@me 5,st,@me 6,st,@other", "3", "5", "3 5", true},
		{"external policy without external access", external, "", "3,rs,@other 4,rs,@me", "3 4", "", "3 4", true},
		{"no endpoints", clusterPolicy, "", "", "-", "", "-", false},
		{"external local without endpoints", external | nodePort, "", "", "-", "-", "-", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			svc := &service.Service{
				Name:          service.Name{Namespace: "ns", Name: "web"},
				ClusterIPs:    []netip.Addr{netip.MustParseAddr("10.96.0.1")},
				InternalLocal: tt.policy&internal != 0,
				ExternalLocal: tt.policy&external != 0,
				Ports:         []service.Port{{Name: "http", Protocol: service.TCP, Port: 80}},
			}
			if tt.policy&nodePort != 0 {
				svc.Ports[0].NodePort = 30080
			}
			eps := parseEndpoints(t, tt.endpoints)
			c := &service.Catalog{
				Endpoints: map[service.PortName][]service.Endpoint{svc.PortName(&svc.Ports[0]): eps},
				Node:      service.Node{Name: "me", Zone: tt.zone},
			}
			before := slices.Clone(eps)
			got := SelectEndpoints(c, svc, &svc.Ports[0], false)
			checkSet(t, "cluster", got.UsesCluster, got.Cluster, tt.cluster)
			checkSet(t, "local", got.UsesLocal, got.Local, tt.local)
			checkSet(t, "reachable", true, got.Reachable, tt.reachable)
			if got.HasAny != tt.hasAny {
				t.Errorf("HasAny = %v, want %v", got.HasAny, tt.hasAny)
			}
			if diff := cmp.Diff(before, eps, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
				t.Errorf("the catalog's endpoints changed (-want +got):\n%s", diff)
			}
		})
	}
}

func checkSet(t *testing.T, what string, used bool, eps []service.Endpoint, want string) {
	t.Helper()
	got := names(eps)
	if !used {
		if len(eps) > 0 {
			t.Errorf("%s: unused, but has %s", what, got)
		}
		got = ""
	}
	if got != want {
		t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

func TestSelectEndpointsSkips(t *testing.T) {
	port := service.Port{Protocol: service.TCP, Port: 80}
	v4, v6 := netip.MustParseAddr("10.96.0.1"), netip.MustParseAddr("fd00::1")
	tests := []struct {
		name string
		svc  service.Service
		want string // IPv4 then IPv6
	}{
		{name: "both families", svc: service.Service{ClusterIPs: []netip.Addr{v4, v6}}, want: "10.1.0.1:80 [fd01::1]:80"},
		{name: "IPv4 only", svc: service.Service{ClusterIPs: []netip.Addr{v4}}, want: "10.1.0.1:80"},
		{name: "IPv6 only", svc: service.Service{ClusterIPs: []netip.Addr{v6}}, want: "[fd01::1]:80"},
		{name: "headless", svc: service.Service{}},
		{name: "another proxy serves it", svc: service.Service{ClusterIPs: []netip.Addr{v4, v6}, ProxyName: "other"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.svc.Ports = []service.Port{port}
			c := &service.Catalog{Endpoints: map[service.PortName][]service.Endpoint{
				tt.svc.PortName(&port): {
					{Addr: netip.MustParseAddrPort("10.1.0.1:80"), Ready: true},
					{Addr: netip.MustParseAddrPort("[fd01::1]:80"), Ready: true},
				},
			}}
			var got []string
			for _, ipv6 := range []bool{false, true} {
				for _, e := range SelectEndpoints(c, &tt.svc, &port, ipv6).Reachable {
					got = append(got, e.Addr.String())
				}
			}
			if strings.Join(got, " ") != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestNoNodeNameMeansNothingIsLocal(t *testing.T) {
	svc := &service.Service{
		ClusterIPs: []netip.Addr{netip.MustParseAddr("10.96.0.1")}, InternalLocal: true,
		Ports: []service.Port{{Protocol: service.TCP, Port: 80}},
	}
	c := &service.Catalog{Endpoints: map[service.PortName][]service.Endpoint{
		svc.PortName(&svc.Ports[0]): parseEndpoints(t, "3,rs"),
	}}
	if got := SelectEndpoints(c, svc, &svc.Ports[0], false).Reachable; len(got) != 0 {
		t.Errorf("got %s", names(got))
	}
}

// TestOlderCluster: what releases choose that do not heed hints for nodes, or none.
func TestOlderCluster(t *testing.T) {
	tests := []struct{ name, eps, want string }{
		{"no hints", "3,rs 4,rs 5,s", ""},
		{"zones", "3,rs,z=a 4,rs,z=b 5,s,z=a", "3 4"},
		{"zones, none of them here", "3,rs,z=c 4,rs,z=b", ""},
		{"zones, but not of every endpoint", "3,rs,z=a 4,rs", ""},
		{"nodes alone", "3,rs,n=me 4,rs,n=n2", "3 4"},
		{"nodes and zones", "3,rs,z=a,n=me 4,rs,z=a,n=n2 5,rs,z=b,n=n3", "3 4|3 4 5"},
		{"nodes, none of them here, and zones", "3,rs,z=a,n=n1 4,rs,z=b,n=n2", "3 4"},
		{"only terminating ones", "3,st,z=a 4,st,z=b", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			for _, eps := range OlderCluster(parseEndpoints(t, tt.eps), service.Node{Name: "me", Zone: "a"}) {
				got = append(got, names(eps))
			}
			if strings.Join(got, "|") != tt.want {
				t.Errorf("got %q, want %q", strings.Join(got, "|"), tt.want)
			}
		})
	}
}
