// SPDX-License-Identifier: Apache-2.0

package kubeproxy

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/svcscope/svcscope/pkg/service"
)

func portName(ns, name, port string, proto service.Protocol) service.PortName {
	return service.PortName{Name: service.Name{Namespace: ns, Name: name}, Port: port, Protocol: proto}
}

// The vectors of Kubernetes' pkg/proxy/iptables/proxier_test.go and of chains
// seen in clusters.
func TestHashAgreesWithKubeProxy(t *testing.T) {
	tests := []struct {
		port service.PortName
		want string
	}{
		{portName("default", "kubernetes", "https", service.TCP), "NPX46M4PTMTKRN6Y"},
		{portName("kube-system", "kube-dns", "dns", service.UDP), "TCOU7JCQXEZGVUNU"},
		{portName("kube-system", "kube-dns", "dns-tcp", service.TCP), "ERIFXISQEP7F7OF4"},
		{portName("ns1", "svc1", "p80", service.TCP), "XPGD46QRK7WJZT7O"},
	}
	for _, tt := range tests {
		if got := Hash(tt.port); got != tt.want {
			t.Errorf("%v: got %s, want %s", tt.port, got, tt.want)
		}
	}
}

func TestChainNames(t *testing.T) {
	p := portName("ns1", "svc1", "p80", service.TCP)
	v6 := netip.MustParseAddrPort("[fd00:10:180::1]:80")
	tests := []struct{ name, got, want string }{
		{"endpoints anywhere", ServiceChain(p), "KUBE-SVC-XPGD46QRK7WJZT7O"},
		{"endpoints on this node", LocalChain(p), "KUBE-SVL-XPGD46QRK7WJZT7O"},
		{"external traffic", ExternalChain(p), "KUBE-EXT-XPGD46QRK7WJZT7O"},
		{"source ranges", FirewallChain(p), "KUBE-FW-XPGD46QRK7WJZT7O"},
		{"an IPv4 endpoint", EndpointChain(p, netip.MustParseAddrPort("10.180.0.1:80")), "KUBE-SEP-SXIVWICOYRO3J4NJ"},
		{"an IPv6 endpoint is hashed with brackets", EndpointChain(p, v6), "KUBE-SEP-" + hash([]byte("ns1/svc1:p80tcp[fd00:10:180::1]:80"))},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.got != tt.want {
				t.Errorf("got %s, want %s", tt.got, tt.want)
			}
		})
	}
}

func TestNamesFromCatalogHasEveryPort(t *testing.T) {
	c := &service.Catalog{Services: []*service.Service{
		{Name: service.Name{Namespace: "kube-system", Name: "kube-dns"}, Ports: []service.Port{
			{Name: "dns", Protocol: service.UDP}, {Name: "dns-tcp", Protocol: service.TCP},
		}},
		{Name: service.Name{Namespace: "default", Name: "web"}, Ports: []service.Port{{Protocol: service.TCP}}},
	}}
	want := map[string]service.PortName{
		"TCOU7JCQXEZGVUNU": portName("kube-system", "kube-dns", "dns", service.UDP),
		"ERIFXISQEP7F7OF4": portName("kube-system", "kube-dns", "dns-tcp", service.TCP),
		Hash(portName("default", "web", "", service.TCP)): portName("default", "web", "", service.TCP),
	}
	if diff := cmp.Diff(want, NamesFromCatalog(c)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if got := NamesFromCatalog(nil); len(got) != 0 {
		t.Errorf("without a catalog: got %v", got)
	}
}

func TestParseChain(t *testing.T) {
	const h = "XPGD46QRK7WJZT7O"
	tests := []struct {
		name, chain string
		kind        Kind
		hash        string
	}{
		{"dispatch", "KUBE-SERVICES", KindServices, ""},
		{"node ports", "KUBE-NODEPORTS", KindNodePorts, ""},
		{"external refusals", "KUBE-EXTERNAL-SERVICES", KindExternalServices, ""},
		{"forward", "KUBE-FORWARD", KindForward, ""},
		{"load balancer firewall", "KUBE-PROXY-FIREWALL", KindProxyFirewall, ""},
		{"kubelet's firewall", "KUBE-FIREWALL", KindKubeFirewall, ""},
		{"masquerade mark", "KUBE-MARK-MASQ", KindMarkMasq, ""},
		{"drop mark", "KUBE-MARK-DROP", KindMarkDrop, ""},
		{"postrouting", "KUBE-POSTROUTING", KindPostrouting, ""},
		{"kube-proxy's canary", "KUBE-PROXY-CANARY", KindProxyCanary, ""},
		{"kubelet's canary", "KUBE-KUBELET-CANARY", KindKubeletCanary, ""},
		{"kubelet's hint", "KUBE-IPTABLES-HINT", KindHint, ""},
		{"a Service port", "KUBE-SVC-" + h, KindService, h},
		{"its local endpoints", "KUBE-SVL-" + h, KindLocal, h},
		{"its external traffic", "KUBE-EXT-" + h, KindExternal, h},
		{"its source ranges", "KUBE-FW-" + h, KindFirewall, h},
		{"an endpoint", "KUBE-SEP-" + h, KindEndpoint, h},
		{"a chain of old versions", "KUBE-XLB-" + h, KindOldLocal, h},
		{"a hash that is too short", "KUBE-SVC-XPGD46", KindOther, ""},
		{"a hash of other characters", "KUBE-SVC-xpgd46qrk7wjzt7o", KindOther, ""},
		{"a pod's chain of kube-router", "KUBE-POD-FW-" + h, KindOther, ""},
		{"a policy's chain of kube-router", "KUBE-NWPLCY-" + h, KindOther, ""},
		{"a built-in chain", "PREROUTING", KindOther, ""},
		{"no name", "", KindOther, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if kind, hash := ParseChain(tt.chain); kind != tt.kind || hash != tt.hash {
				t.Errorf("got %v %q, want %v %q", kind, hash, tt.kind, tt.hash)
			}
		})
	}
}

func TestExternalChainsAreReadLast(t *testing.T) {
	const h = "XPGD46QRK7WJZT7O"
	got := []string{"KUBE-EXT-" + h, "KUBE-SVC-" + h, "PREROUTING", "KUBE-SVL-" + h, "KUBE-SEP-" + h}
	slices.SortStableFunc(got, func(a, b string) int { return ReadRank(a) - ReadRank(b) })
	want := []string{"PREROUTING", "KUBE-SEP-" + h, "KUBE-SVC-" + h, "KUBE-SVL-" + h, "KUBE-EXT-" + h}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestParseComment(t *testing.T) {
	web := portName("shop", "web", "http", "")
	tests := []struct {
		comment string
		port    service.PortName
		form    Form
		rest    string
	}{
		{"shop/web:http", web, FormBare, ""},
		{"shop/web:http cluster IP", web, FormClusterIP, ""},
		{"shop/web:http external IP", web, FormExternalIP, ""},
		{"shop/web:http loadbalancer IP", web, FormLoadBalancerIP, ""},
		{"shop/web:http has no endpoints", web, FormNoEndpoints, ""},
		{"shop/web:http has no local endpoints", web, FormNoLocal, ""},
		{"shop/web:http health check node port", web, FormHealthCheck, ""},
		{"shop/web:http traffic not accepted by KUBE-FW-XPGD46QRK7WJZT7O", web, FormNotAccepted, "KUBE-FW-XPGD46QRK7WJZT7O"},
		{"shop/web:http -> 10.0.0.1:80", web, FormEndpoint, "10.0.0.1:80"},
		{"shop/web:http -> [fd00::1]:80", web, FormEndpoint, "[fd00::1]:80"},
		{"masquerade traffic for shop/web:http external destinations", web, FormMasquerade, ""},
		{"pod traffic for shop/web:http external destinations", web, FormPodTraffic, ""},
		{"masquerade LOCAL traffic for shop/web:http external destinations", web, FormMasqueradeLocal, ""},
		{"route LOCAL traffic for shop/web:http external destinations", web, FormRouteLocal, ""},
		{"other traffic to shop/web:http will be dropped by KUBE-PROXY-FIREWALL", web, FormOtherTraffic, ""},
		{"shop/web cluster IP", portName("shop", "web", "", ""), FormClusterIP, ""},
		{"kubernetes service portals", service.PortName{}, NoForm, ""},
		{"kubernetes service nodeports; NOTE: this must be the last rule in this chain", service.PortName{}, NoForm, ""},
		{"shop/web:http is down", service.PortName{}, NoForm, ""},
		{"Shop/Web cluster IP", service.PortName{}, NoForm, ""},
		{"a/b/c", service.PortName{}, NoForm, ""},
		{"shop/web:", service.PortName{}, NoForm, ""},
		{"cali:0123456789abcdef", service.PortName{}, NoForm, ""},
		{"", service.PortName{}, NoForm, ""},
	}
	for _, tt := range tests {
		t.Run(tt.comment, func(t *testing.T) {
			p, form, rest := ParseComment(tt.comment)
			if p != tt.port || form != tt.form || rest != tt.rest {
				t.Errorf("got %+v %v %q, want %+v %v %q", p, form, rest, tt.port, tt.form, tt.rest)
			}
		})
	}
}
