// SPDX-License-Identifier: Apache-2.0

package correlate

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/svcscope/svcscope/pkg/ledger"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/service"
)

func TestEndpointsAreThoseOfTheFamily(t *testing.T) {
	c := catalog()
	svc := c.Services[1]
	svc.ClusterIPs = append(svc.ClusterIPs, netip.MustParseAddr("fd96::10"))
	c.Endpoints[web] = append(c.Endpoints[web], service.Endpoint{
		Addr: netip.MustParseAddrPort("[fd77::2]:8080"), Ready: true, Serving: true,
	})
	s := Build(Inputs{Names: NewNames(c), Ledger: ledger.New(10)}, at)
	got := map[Family]int{}
	for _, p := range s.Services {
		if p.Port == web {
			got[p.Family] = p.APICount
		}
	}
	if diff := cmp.Diff(map[Family]int{netfilter.IPv4: 2, netfilter.IPv6: 1}, got); diff != "" {
		t.Errorf("endpoints expected by family (-want +got):\n%s", diff)
	}
}

// TestServicesOfAnotherProxy have the label service.kubernetes.io/service-proxy-name.
func TestServicesOfAnotherProxy(t *testing.T) {
	c := catalog()
	c.Services[1].ProxyName = "other"
	names := NewNames(c)
	s := Build(Inputs{Names: names, Ledger: ledger.New(10)}, at)
	if len(s.Services) != 1 || s.Services[0].Port == web {
		t.Errorf("Services %v, want fresh alone", s.Services)
	}
	for _, p := range KnownPorts(nil, names).Ports {
		if p.Service.Name == web.Name.Name {
			t.Errorf("%v is counted", p)
		}
	}
}

func TestGaugesAboveTheCapAreSummed(t *testing.T) {
	first, other := save(0, 0, 0, 0), catalog()
	other.Services[0].Ports[0].Protocol = service.TCP // fresh, without endpoints
	s := input{
		names: NewNames(other), max: 1, backend: fromNFT(2), texts: []string{first, first},
	}.build(t)
	if len(s.Other) != 1 {
		t.Fatalf("other %+v, want one", s.Other)
	}
	if o := s.Other[0]; o.Services != 2 || o.APICount != 2 || o.KernelCount != 2 || o.Rules["nat"] != 7 {
		t.Errorf("other %+v, want 2 Services, 2 endpoints here and there, 7 rules", o)
	}
}

// TestRefusalsByNodePort have a comment cut short, whose hash is nobody's.
func TestRefusalsByNodePort(t *testing.T) {
	text := func(refused string) string {
		return strings.Replace(save(0, 0, 0, 0), "COMMIT\n", `:KUBE-EXTERNAL-SERVICES - [0:0]
[0:0] -A INPUT -m conntrack --ctstate NEW -j KUBE-EXTERNAL-SERVICES
[`+refused+`:0] -A KUBE-EXTERNAL-SERVICES -p tcp -m comment --comment "shop/we has no endpoints" -m addrtype --dst-type LOCAL -m tcp --dport 30080 -j REJECT --reject-with icmp-port-unreachable
COMMIT
`, 1)
	}
	s := input{
		names: NewNames(catalog()), max: 10, backend: fromNFT(3), texts: []string{text("1"), text("1"), text("8")},
	}.build(t)
	if got := s.Services[1].Rejected[NoEndpoints]; got != 7 {
		t.Errorf("web refused %d, want 7", got)
	}
}
