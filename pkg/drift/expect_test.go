// SPDX-License-Identifier: Apache-2.0

package drift

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/svcscope/svcscope/pkg/kubeproxy"
	"github.com/svcscope/svcscope/pkg/service"
)

// text says what is expected, a line for each address, chain and more.
func (e *Expected) text() []string {
	kinds := map[kubeproxy.Kind]string{
		kubeproxy.KindService: " to SVC", kubeproxy.KindLocal: " to SVL", kubeproxy.KindExternal: " to EXT", kubeproxy.KindFirewall: " to FW",
	}
	var out []string
	for i := range e.Frontends {
		f := &e.Frontends[i]
		line := fmt.Sprintf("%s %s%s", label(f.Kind), reached(&f.Frontend), kinds[f.To])
		if f.Refusal != "" {
			line += " refused: " + string(f.Refusal)
		}
		out = append(out, line)
	}
	list := func(name string, eps []service.Endpoint) {
		if len(eps) > 0 {
			var all []string
			for _, ep := range eps {
				all = append(all, ep.Addr.String())
			}
			out = append(out, name+" "+strings.Join(all, " "))
		}
	}
	list("SVC", e.Cluster)
	list("SVL", e.Local)
	for _, older := range e.Older {
		list("or SVC", older)
	}
	if e.External {
		out = append(out, "EXT"+kinds[e.FromOutside])
	}
	if e.Affinity {
		out = append(out, fmt.Sprintf("affinity %d", e.AffinitySeconds))
	}
	if len(e.Ranges) > 0 {
		out = append(out, fmt.Sprintf("FW %v", e.Ranges))
	}
	if e.HealthCheck != 0 {
		out = append(out, fmt.Sprintf("health check %d", e.HealthCheck))
	}
	return out
}

func addrList(texts ...string) (out []netip.Addr) {
	for _, t := range texts {
		out = append(out, netip.MustParseAddr(t))
	}
	return out
}

func prefixes(texts ...string) (out []netip.Prefix) {
	for _, t := range texts {
		out = append(out, netip.MustParsePrefix(t))
	}
	return out
}

// eps reads endpoints: an address and port, and then words: local, notready, terminating,
// serving, node=NAME, zone=NAME for hints.
func eps(t *testing.T, lines ...string) (out []service.Endpoint) {
	t.Helper()
	for _, line := range lines {
		words := strings.Fields(line)
		e := service.Endpoint{Addr: netip.MustParseAddrPort(words[0]), Ready: true, Serving: true, NodeName: "other"}
		for _, w := range words[1:] {
			key, value, _ := strings.Cut(w, "=")
			switch key {
			case "local":
				e.NodeName = "node1"
			case "notready":
				e.Ready, e.Serving = false, false
			case "terminating":
				e.Ready, e.Terminating = false, true
			case "serving":
				e.Serving = true
			case "node":
				e.ForNodes = append(e.ForNodes, value)
			case "zone":
				e.ForZones = append(e.ForZones, value)
			default:
				t.Fatalf("what is %s?", w)
			}
		}
		out = append(out, e)
	}
	return out
}

func TestExpect(t *testing.T) {
	clusterIP := func(edit func(*service.Service)) *service.Service {
		s := &service.Service{
			Name: service.Name{Namespace: "ns", Name: "svc"}, ClusterIPs: addrList("10.96.0.1", "fd00::1"),
			Ports: []service.Port{{Name: "http", Protocol: service.TCP, Port: 80}},
		}
		if edit != nil {
			edit(s)
		}
		return s
	}
	balanced := func(edit func(*service.Service)) *service.Service {
		return clusterIP(func(s *service.Service) {
			s.Ports[0].NodePort = 30080
			s.ExternalIPs, s.LoadBalancerIPs = addrList("192.0.2.1"), addrList("198.51.100.1")
			if edit != nil {
				edit(s)
			}
		})
	}
	one, two, six := "10.1.0.1:8080", "10.1.0.2:8080", "[fd01::1]:8080"
	all := []string{one + " local", two}
	tests := []struct {
		name string
		svc  *service.Service
		eps  []string
		v6   bool
		want []string // nil: nothing at all
	}{
		{"a cluster IP", clusterIP(nil), all, false, []string{"cluster 10.96.0.1:80 to SVC", "SVC " + one + " " + two}},
		{"without endpoints", clusterIP(nil), nil, false, []string{"cluster 10.96.0.1:80 refused: no_endpoints"}},
		{"endpoints that are not ready", clusterIP(nil), []string{one + " notready"}, false, []string{"cluster 10.96.0.1:80 refused: no_endpoints"}},
		{"terminating ones, where no other is", clusterIP(nil), []string{one + " terminating", two + " notready"}, false, []string{"cluster 10.96.0.1:80 to SVC", "SVC " + one}},
		{"terminating ones beside a ready one", clusterIP(nil), []string{one + " terminating", two}, false, []string{"cluster 10.96.0.1:80 to SVC", "SVC " + two}},
		{"the other family", clusterIP(nil), []string{one, six}, true, []string{"cluster [fd00::1]:80 to SVC", "SVC " + six}},
		{"the other family, without endpoints", clusterIP(nil), all, true, []string{"cluster [fd00::1]:80 refused: no_endpoints"}},
		{"one family alone", clusterIP(func(s *service.Service) { s.ClusterIPs = s.ClusterIPs[:1] }), []string{six}, true, nil},
		{"headless", clusterIP(func(s *service.Service) { s.ClusterIPs = nil }), all, false, nil},
		{"of another proxy", clusterIP(func(s *service.Service) { s.ProxyName = "other" }), all, false, nil},
		{"affinity", clusterIP(func(s *service.Service) { s.ClientIPAffinity, s.AffinitySeconds = true, 600 }), all, false, []string{"cluster 10.96.0.1:80 to SVC", "SVC " + one + " " + two, "affinity 600"}},
		{"internal policy Local", clusterIP(func(s *service.Service) { s.InternalLocal = true }), all, false, []string{"cluster 10.96.0.1:80 to SVL", "SVL " + one}},
		{"internal policy Local, terminating ones", clusterIP(func(s *service.Service) { s.InternalLocal = true }), []string{one + " local terminating", two}, false, []string{"cluster 10.96.0.1:80 to SVL", "SVL " + one}},
		{"internal policy Local, none here", clusterIP(func(s *service.Service) { s.InternalLocal = true }), []string{two}, false, []string{"cluster 10.96.0.1:80 refused: no_local_endpoints"}},
		{"internal policy Local, none at all", clusterIP(func(s *service.Service) { s.InternalLocal = true }), nil, false, []string{"cluster 10.96.0.1:80 refused: no_endpoints"}},
		{"hints for this node", clusterIP(nil), []string{one + " node=node1 zone=a", two + " node=node2 zone=a"}, false, []string{
			"cluster 10.96.0.1:80 to SVC", "SVC " + one, "or SVC " + one + " " + two, "or SVC " + one + " " + two,
		}},
		{"hints for this zone", clusterIP(nil), []string{one + " zone=b", two + " zone=a"}, false, []string{"cluster 10.96.0.1:80 to SVC", "SVC " + two, "or SVC " + one + " " + two}},
		{"hints, but not for every endpoint", clusterIP(nil), []string{one + " zone=b", two}, false, []string{"cluster 10.96.0.1:80 to SVC", "SVC " + one + " " + two}},
		{"reached from outside", balanced(nil), all, false, []string{
			"cluster 10.96.0.1:80 to SVC", "external 192.0.2.1:80 to EXT", "loadbalancer 198.51.100.1:80 to EXT", "nodeport port 30080 to EXT",
			"SVC " + one + " " + two, "EXT to SVC",
		}},
		{"reached from outside, the other family", balanced(nil), []string{six}, true, []string{
			"cluster [fd00::1]:80 to SVC", "nodeport port 30080 to EXT", "SVC " + six, "EXT to SVC",
		}},
		{"reached from outside, without endpoints", balanced(nil), nil, false, []string{
			"cluster 10.96.0.1:80 refused: no_endpoints", "external 192.0.2.1:80 refused: no_endpoints",
			"loadbalancer 198.51.100.1:80 refused: no_endpoints", "nodeport port 30080 refused: no_endpoints",
		}},
		{"external policy Local", balanced(func(s *service.Service) { s.ExternalLocal, s.HealthCheckNodePort = true, 32000 }), all, false, []string{
			"cluster 10.96.0.1:80 to SVC", "external 192.0.2.1:80 to EXT", "loadbalancer 198.51.100.1:80 to EXT", "nodeport port 30080 to EXT",
			"SVC " + one + " " + two, "SVL " + one, "EXT to SVL", "health check 32000",
		}},
		{"external policy Local, none here", balanced(func(s *service.Service) { s.ExternalLocal, s.HealthCheckNodePort = true, 32000 }), []string{two}, false, []string{
			"cluster 10.96.0.1:80 to SVC", "external 192.0.2.1:80 to EXT refused: no_local_endpoints",
			"loadbalancer 198.51.100.1:80 to EXT refused: no_local_endpoints", "nodeport port 30080 to EXT refused: no_local_endpoints",
			"SVC " + two, "EXT", "health check 32000",
		}},
		{"both policies Local, none here", balanced(func(s *service.Service) { s.ExternalLocal, s.InternalLocal = true, true }), []string{two}, false, []string{
			"cluster 10.96.0.1:80 refused: no_local_endpoints", "external 192.0.2.1:80 to EXT refused: no_local_endpoints",
			"loadbalancer 198.51.100.1:80 to EXT refused: no_local_endpoints", "nodeport port 30080 to EXT refused: no_local_endpoints",
			"SVC " + two, "EXT",
		}},
		{"internal policy Local, reached from outside", balanced(func(s *service.Service) { s.InternalLocal = true }), all, false, []string{
			"cluster 10.96.0.1:80 to SVL", "external 192.0.2.1:80 to EXT", "loadbalancer 198.51.100.1:80 to EXT", "nodeport port 30080 to EXT",
			"SVC " + one + " " + two, "SVL " + one, "EXT to SVC",
		}},
		{"external policy Local without an address outside", clusterIP(func(s *service.Service) { s.ExternalLocal = true }), all, false, []string{"cluster 10.96.0.1:80 to SVC", "SVC " + one + " " + two}},
		{"source ranges", balanced(func(s *service.Service) {
			s.LoadBalancerSourceRanges = prefixes("10.7.0.9/8", "192.0.2.0/24", "fd00::/8")
		}), all, false, []string{
			"cluster 10.96.0.1:80 to SVC", "external 192.0.2.1:80 to EXT", "loadbalancer 198.51.100.1:80 to FW", "nodeport port 30080 to EXT",
			"SVC " + one + " " + two, "EXT to SVC", "FW [10.0.0.0/8 192.0.2.0/24]",
		}},
		{"source ranges, of which one holds all", balanced(func(s *service.Service) {
			s.LoadBalancerSourceRanges = prefixes("10.0.0.0/8", "0.0.0.0/0", "fd00::/8")
		}), all, false, []string{
			"cluster 10.96.0.1:80 to SVC", "external 192.0.2.1:80 to EXT", "loadbalancer 198.51.100.1:80 to EXT", "nodeport port 30080 to EXT",
			"SVC " + one + " " + two, "EXT to SVC",
		}},
		{"source ranges of the other family", balanced(func(s *service.Service) { s.LoadBalancerSourceRanges = prefixes("fd00::/8") }), all, false, []string{
			"cluster 10.96.0.1:80 to SVC", "external 192.0.2.1:80 to EXT", "loadbalancer 198.51.100.1:80 to EXT", "nodeport port 30080 to EXT",
			"SVC " + one + " " + two, "EXT to SVC",
		}},
		{"source ranges without endpoints", clusterIP(func(s *service.Service) {
			s.LoadBalancerIPs, s.LoadBalancerSourceRanges = addrList("198.51.100.1"), prefixes("10.0.0.0/8")
		}), nil, false, []string{"cluster 10.96.0.1:80 refused: no_endpoints", "loadbalancer 198.51.100.1:80 refused: no_endpoints"}},
		{"a load balancer that is a proxy", clusterIP(func(s *service.Service) {
			s.ProxyModeIPs, s.LoadBalancerSourceRanges = addrList("198.51.100.1"), prefixes("10.0.0.0/8")
		}), all, false, []string{"cluster 10.96.0.1:80 to SVC", "SVC " + one + " " + two}},
		{"a node port alone", clusterIP(func(s *service.Service) { s.Ports[0].NodePort = 30080 }), []string{two}, false, []string{
			"cluster 10.96.0.1:80 to SVC", "nodeport port 30080 to EXT", "SVC " + two, "EXT to SVC",
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := &service.Catalog{
				Synced: true, Services: []*service.Service{tt.svc}, Node: service.Node{Name: "node1", Zone: "a"},
				Endpoints: map[service.PortName][]service.Endpoint{tt.svc.PortName(&tt.svc.Ports[0]): eps(t, tt.eps...)},
			}
			e, ok := Expect(c, tt.svc, &tt.svc.Ports[0], tt.v6)
			if ok != (tt.want != nil) {
				t.Fatalf("served: %v", ok)
			}
			if diff := cmp.Diff(tt.want, e.text()); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			if ok && e.Hash != kubeproxy.Hash(e.Port) {
				t.Errorf("hash %s", e.Hash)
			}
		})
	}
}
