// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/svcscope/svcscope/pkg/service"
)

var compareNetip = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
}

func TestConvertService(t *testing.T) {
	local := corev1.ServiceInternalTrafficPolicyLocal
	vip, proxy := corev1.LoadBalancerIPModeVIP, corev1.LoadBalancerIPModeProxy
	addr := netip.MustParseAddr
	tests := []struct {
		name string
		spec corev1.ServiceSpec
		lb   []corev1.LoadBalancerIngress
		want service.Service
	}{
		{
			name: "both families",
			spec: corev1.ServiceSpec{Type: "ClusterIP", ClusterIP: "10.0.0.1", ClusterIPs: []string{"10.0.0.1", "fd00::1"}},
			want: service.Service{Type: "ClusterIP", ClusterIPs: []netip.Addr{addr("10.0.0.1"), addr("fd00::1")}},
		},
		{
			name: "without clusterIPs",
			spec: corev1.ServiceSpec{Type: "ClusterIP", ClusterIP: "10.0.0.1"},
			want: service.Service{Type: "ClusterIP", ClusterIPs: []netip.Addr{addr("10.0.0.1")}},
		},
		{
			name: "None is headless",
			spec: corev1.ServiceSpec{Type: "ClusterIP", ClusterIP: "None", ClusterIPs: []string{"None"}},
			want: service.Service{Type: "ClusterIP"},
		},
		{
			name: "no cluster IP yet is headless",
			spec: corev1.ServiceSpec{Type: "ClusterIP"},
			want: service.Service{Type: "ClusterIP"},
		},
		{
			name: "ExternalName is headless whatever it has",
			spec: corev1.ServiceSpec{Type: "ExternalName", ClusterIP: "10.0.0.1", ClusterIPs: []string{"10.0.0.1"}},
			want: service.Service{Type: "ExternalName"},
		},
		{
			name: "leading zeros and garbage in addresses",
			spec: corev1.ServiceSpec{Type: "ClusterIP", ClusterIP: "10.0.0.1", ExternalIPs: []string{"203.000.113.010", "", "nonsense", "2001:db8::1"}},
			want: service.Service{
				Type: "ClusterIP", ClusterIPs: []netip.Addr{addr("10.0.0.1")},
				ExternalIPs: []netip.Addr{addr("203.0.113.10"), addr("2001:db8::1")},
			},
		},
		{
			name: "ingress counts as VIP without a mode or with that one",
			spec: corev1.ServiceSpec{Type: "LoadBalancer", ClusterIP: "10.0.0.1"},
			lb: []corev1.LoadBalancerIngress{
				{IP: "198.51.100.1"}, {IP: "198.51.100.2", IPMode: &vip}, {IP: "198.51.100.3", IPMode: &proxy}, {Hostname: "lb.example"},
			},
			want: service.Service{
				Type: "LoadBalancer", ClusterIPs: []netip.Addr{addr("10.0.0.1")},
				LoadBalancerIPs: []netip.Addr{addr("198.51.100.1"), addr("198.51.100.2")},
				ProxyModeIPs:    []netip.Addr{addr("198.51.100.3")},
			},
		},
		{
			name: "source ranges are trimmed and masked",
			spec: corev1.ServiceSpec{Type: "LoadBalancer", LoadBalancerSourceRanges: []string{" 192.0.2.7/24 ", "x", "2001:db8::/32"}},
			want: service.Service{Type: "LoadBalancer", LoadBalancerSourceRanges: []netip.Prefix{
				netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/32"),
			}},
		},
		{
			name: "a range of everything opens its family",
			spec: corev1.ServiceSpec{Type: "LoadBalancer", LoadBalancerSourceRanges: []string{"192.0.2.0/24", "0.0.0.0/0", "2001:db8::/32"}},
			want: service.Service{Type: "LoadBalancer", LoadBalancerSourceRanges: []netip.Prefix{netip.MustParsePrefix("2001:db8::/32")}},
		},
		{
			name: "ranges of everything in both families",
			spec: corev1.ServiceSpec{Type: "LoadBalancer", LoadBalancerSourceRanges: []string{"0.0.0.0/0", "::/0"}},
			want: service.Service{Type: "LoadBalancer"},
		},
		{
			name: "policies and health check of a load balancer",
			spec: corev1.ServiceSpec{Type: "LoadBalancer", ExternalTrafficPolicy: "Local", InternalTrafficPolicy: &local, HealthCheckNodePort: 32000},
			want: service.Service{Type: "LoadBalancer", ExternalLocal: true, InternalLocal: true, HealthCheckNodePort: 32000},
		},
		{
			name: "no health check for policy Cluster",
			spec: corev1.ServiceSpec{Type: "LoadBalancer", ExternalTrafficPolicy: "Cluster", HealthCheckNodePort: 32000},
			want: service.Service{Type: "LoadBalancer"},
		},
		{
			name: "no health check for a node port",
			spec: corev1.ServiceSpec{Type: "NodePort", ExternalTrafficPolicy: "Local", HealthCheckNodePort: 32000},
			want: service.Service{Type: "NodePort", ExternalLocal: true},
		},
		{
			name: "external policy is void without external access",
			spec: corev1.ServiceSpec{Type: "ClusterIP", ExternalTrafficPolicy: "Local"},
			want: service.Service{Type: "ClusterIP"},
		},
		{
			name: "external policy of an external address",
			spec: corev1.ServiceSpec{Type: "ClusterIP", ExternalTrafficPolicy: "Local", ExternalIPs: []string{"203.0.113.1"}},
			want: service.Service{Type: "ClusterIP", ExternalLocal: true, ExternalIPs: []netip.Addr{addr("203.0.113.1")}},
		},
		{
			name: "affinity",
			spec: corev1.ServiceSpec{
				Type: "ClusterIP", SessionAffinity: "ClientIP",
				SessionAffinityConfig: &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: new(int32(600))}},
			},
			want: service.Service{Type: "ClusterIP", ClientIPAffinity: true, AffinitySeconds: 600},
		},
		{
			name: "affinity without its configuration",
			spec: corev1.ServiceSpec{Type: "ClusterIP", SessionAffinity: "ClientIP"},
			want: service.Service{Type: "ClusterIP", ClientIPAffinity: true},
		},
		{
			name: "timeout of no affinity",
			spec: corev1.ServiceSpec{
				Type: "ClusterIP", SessionAffinity: "None",
				SessionAffinityConfig: &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: new(int32(600))}},
			},
			want: service.Service{Type: "ClusterIP"},
		},
		{
			name: "ports",
			spec: corev1.ServiceSpec{Type: "NodePort", Ports: []corev1.ServicePort{
				{Name: "a", Port: 80, NodePort: 30080}, {Name: "b", Protocol: "UDP", Port: 65535}, {Name: "c", Protocol: "SCTP", Port: 1},
			}},
			want: service.Service{Type: "NodePort", Ports: []service.Port{
				{Name: "a", Protocol: service.TCP, Port: 80, NodePort: 30080},
				{Name: "b", Protocol: service.UDP, Port: 65535},
				{Name: "c", Protocol: service.SCTP, Port: 1},
			}},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			in := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "web"}, Spec: tt.spec}
			in.Status.LoadBalancer.Ingress = tt.lb
			tt.want.Name = service.Name{Namespace: "ns", Name: "web"}
			if diff := cmp.Diff(&tt.want, convertService(in), compareNetip); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	in := apiService("ns", "web", "10.0.0.1")
	in.UID = "3f8e0c1c-8f7b-4c7c-9d5a-0c7b5a0e6a11"
	if got := convertService(in).UID; got != string(in.UID) {
		t.Errorf("UID = %q", got)
	}
	in.Labels = map[string]string{"service.kubernetes.io/service-proxy-name": "other"}
	if got := convertService(in).ProxyName; got != "other" {
		t.Errorf("ProxyName = %q", got)
	}
}

// endpointText is an endpoint in one word: address, then r, s, t, and the rest.
func endpointText(e service.Endpoint) string {
	flags := ""
	for _, f := range []struct {
		on   bool
		name string
	}{{e.Ready, "r"}, {e.Serving, "s"}, {e.Terminating, "t"}} {
		if f.on {
			flags += f.name
		}
	}
	out := fmt.Sprintf("%s/%s", e.Addr, flags)
	for _, s := range []string{e.NodeName, e.Zone, strings.Join(e.ForNodes, "+"), strings.Join(e.ForZones, "+")} {
		out += "/" + s
	}
	return strings.TrimRight(out, "/")
}

func sliceText(s *slice) string {
	if s == nil {
		return "ignored"
	}
	var out []string
	for _, p := range s.ports {
		var eps []string
		for _, e := range p.Endpoints {
			eps = append(eps, endpointText(e))
		}
		name := service.PortName{Name: s.service, Port: p.Port}
		out = append(out, fmt.Sprintf("%s/%s=%s", name, p.Protocol, strings.Join(eps, ",")))
	}
	return strings.Join(out, " ")
}

func TestConvertSlice(t *testing.T) {
	ep := func(addr string, change ...func(*discoveryv1.Endpoint)) discoveryv1.Endpoint {
		e := discoveryv1.Endpoint{Addresses: []string{addr}}
		for _, c := range change {
			c(&e)
		}
		return e
	}
	conditions := func(ready, serving, terminating *bool) func(*discoveryv1.Endpoint) {
		return func(e *discoveryv1.Endpoint) {
			e.Conditions = discoveryv1.EndpointConditions{Ready: ready, Serving: serving, Terminating: terminating}
		}
	}
	yes, no := new(true), new(false)
	terminating := conditions(no, yes, yes)
	tests := []struct {
		name   string
		change func(*discoveryv1.EndpointSlice)
		want   string
	}{
		{"conditions that are not set", func(s *discoveryv1.EndpointSlice) { s.Endpoints = []discoveryv1.Endpoint{ep("10.1.0.1")} }, "ns/web:http/TCP=10.1.0.1:8080/rs"},
		{"serving does not follow ready", func(s *discoveryv1.EndpointSlice) {
			s.Endpoints = []discoveryv1.Endpoint{ep("10.1.0.1", conditions(no, nil, nil)), ep("10.1.0.2", conditions(nil, no, yes))}
		}, "ns/web:http/TCP=10.1.0.1:8080/s,10.1.0.2:8080/rt"},
		{"sorted by address as a number", func(s *discoveryv1.EndpointSlice) {
			s.Endpoints = []discoveryv1.Endpoint{ep("10.1.0.10"), ep("10.1.0.9")}
		}, "ns/web:http/TCP=10.1.0.9:8080/rs,10.1.0.10:8080/rs"},
		{"only the first address counts", func(s *discoveryv1.EndpointSlice) {
			s.Endpoints = []discoveryv1.Endpoint{{Addresses: []string{"10.1.0.1", "10.1.0.2"}}, {}}
		}, "ns/web:http/TCP=10.1.0.1:8080/rs"},
		{"node, zone and hints", func(s *discoveryv1.EndpointSlice) {
			s.Endpoints = []discoveryv1.Endpoint{ep("10.1.0.1", func(e *discoveryv1.Endpoint) {
				e.NodeName, e.Zone = new("n1"), new("a")
				e.Hints = &discoveryv1.EndpointHints{
					ForNodes: []discoveryv1.ForNode{{Name: "n1"}}, ForZones: []discoveryv1.ForZone{{Name: "a"}, {Name: "b"}},
				}
			})}
		}, "ns/web:http/TCP=10.1.0.1:8080/rs/n1/a/n1/a+b"},
		{"the running one of two pods, listed later", func(s *discoveryv1.EndpointSlice) {
			s.Endpoints = []discoveryv1.Endpoint{ep("10.1.0.1", terminating), ep("10.1.0.1")}
		}, "ns/web:http/TCP=10.1.0.1:8080/rs"},
		{"the running one of two pods, listed first", func(s *discoveryv1.EndpointSlice) {
			s.Endpoints = []discoveryv1.Endpoint{ep("10.1.0.1"), ep("10.1.0.1", terminating)}
		}, "ns/web:http/TCP=10.1.0.1:8080/rs"},
		{"the later one of two running", func(s *discoveryv1.EndpointSlice) {
			s.Endpoints = []discoveryv1.Endpoint{ep("10.1.0.1"), ep("10.1.0.1", conditions(no, no, no))}
		}, "ns/web:http/TCP=10.1.0.1:8080"},
		{"ports without name or number", func(s *discoveryv1.EndpointSlice) {
			s.Ports = []discoveryv1.EndpointPort{
				{Port: new(int32(1))}, {Name: new("a")}, {Name: new("b"), Port: new(int32(0))}, {Name: new(""), Port: new(int32(2))},
			}
		}, "ns/web/TCP=10.1.0.1:2/rs"},
		{"two ports and protocols", func(s *discoveryv1.EndpointSlice) {
			s.Ports = append(s.Ports, discoveryv1.EndpointPort{Name: new("dns"), Protocol: new(corev1.ProtocolUDP), Port: new(int32(53))})
		}, "ns/web:http/TCP=10.1.0.1:8080/rs ns/web:dns/UDP=10.1.0.1:53/rs"},
		{"one name with two numbers", func(s *discoveryv1.EndpointSlice) {
			s.Ports = append(s.Ports, discoveryv1.EndpointPort{Name: new("http"), Port: new(int32(8079))})
		}, "ns/web:http/TCP=10.1.0.1:8079/rs,10.1.0.1:8080/rs"},
		{"no ports", func(s *discoveryv1.EndpointSlice) { s.Ports = nil }, ""},
		{"no endpoints", func(s *discoveryv1.EndpointSlice) { s.Endpoints = nil }, ""},
		{"IPv6", func(s *discoveryv1.EndpointSlice) {
			s.AddressType, s.Endpoints = "IPv6", []discoveryv1.Endpoint{ep("fd01::1"), ep("10.1.0.1")}
		}, "ns/web:http/TCP=[fd01::1]:8080/rs"},
		{"IPv6 address in an IPv4 slice", func(s *discoveryv1.EndpointSlice) {
			s.Endpoints = []discoveryv1.Endpoint{ep("fd01::1"), ep("nonsense")}
		}, ""},
		{"host names", func(s *discoveryv1.EndpointSlice) { s.AddressType = "FQDN" }, "ignored"},
		{"no Service named", func(s *discoveryv1.EndpointSlice) { s.Labels = nil }, "ignored"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			in := apiSlice("ns", "web", "x")
			in.Endpoints = []discoveryv1.Endpoint{ep("10.1.0.1")}
			tt.change(in)
			if got := sliceText(convertSlice(in)); got != tt.want {
				t.Errorf("got  %q\nwant %q", got, tt.want)
			}
		})
	}
}

func TestConvertNode(t *testing.T) {
	n := apiNode("node-1")
	n.Status.Addresses = append(n.Status.Addresses,
		corev1.NodeAddress{Type: corev1.NodeExternalIP, Address: "203.0.113.5"},
		corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: "fd00::5"},
		corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: "192.0.2.1"},
		corev1.NodeAddress{Type: corev1.NodeInternalDNS, Address: "203.0.113.6"})
	want := &service.Node{Name: "node-1", Zone: "zone-a", IPs: []netip.Addr{
		netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("203.0.113.5"), netip.MustParseAddr("fd00::5"),
	}}
	if diff := cmp.Diff(want, convertNode(n), compareNetip); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
