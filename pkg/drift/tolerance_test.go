// SPDX-License-Identifier: Apache-2.0

package drift

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/svcscope/svcscope/pkg/kubeproxy"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/service"
)

// TestTolerances: what flags and other releases of kube-proxy explain is no difference. The
// variants of TestRandomServices are others.
func TestTolerances(t *testing.T) {
	tests := []struct {
		name string
		edit func(save) save
	}{
		{"another mark (--iptables-masquerade-bit)", func(s save) save {
			return strings.Split(strings.ReplaceAll(s.String(), "0x4000", "0x8000"), "\n")
		}},
		{"MASQUERADE without --random-fully, up to 1.36", func(s save) save { return s.replaced(" --random-fully", "") }},
		{"no nfacct, up to 1.30", func(s save) save {
			text := s.String()
			for _, object := range []string{"ct_state_invalid_dropped_pkts", "localhost_nps_accepted_pkts"} {
				text = strings.ReplaceAll(text, "-m nfacct --nfacct-name  "+object+" ", "")
			}
			return strings.Split(text, "\n")
		}},
		{"no INVALID rule (nf_conntrack_tcp_be_liberal)", func(s save) save { return s.without("--ctstate INVALID") }},
		{"no KUBE-FIREWALL, which is kubelet's, too", func(s save) save {
			return slices.DeleteFunc(slices.Clone(s), func(l string) bool { return strings.Contains(l, "KUBE-FIREWALL") })
		}},
		{"a load balancer's address among the sources, where the node's is in a range", func(s save) save {
			i := s.find(0, "-A KUBE-SERVICES", "-j KUBE-FW-"+lbRanges)
			vip := strings.Fields(s[i][strings.Index(s[i], "-d "):])[1]
			return s.before("-A KUBE-FW-"+lbRanges+" -s "+vip+" -j KUBE-EXT-"+lbRanges, "-A KUBE-FW-"+lbRanges)
		}},
		{"other tools' chains", func(s save) save {
			return s.in("nat", func(s save) save {
				return append(s, ":cali-PREROUTING - [0:0]", "-A PREROUTING -j cali-PREROUTING", "-A cali-PREROUTING -j RETURN", "-A POSTROUTING -s 10.244.0.0/16 -j MASQUERADE")
			})
		}},
		{"--cluster-cidr=0.0.0.0/0", func(s save) save {
			from := "-s 10.244.0.0/16 "
			if strings.Contains(s.String(), "-s fd00:10:244::/48 ") {
				from = "-s fd00:10:244::/48 "
			}
			for i := range s {
				if strings.Contains(s[i], "pod traffic for") {
					s[i] = strings.Replace(s[i], from, "", 1)
				}
			}
			s.find(0, "-A KUBE-EXT-"+lbLocal+" -m comment --comment \"pod traffic for")
			return s
		}},
		{"canaries", func(s save) save { return s.without("KUBE-PROXY-CANARY") }},
	}
	for _, f := range fixtures {
		for _, tt := range tests {
			t.Run(f.file+"/"+tt.name, func(t *testing.T) { f.check(t, tt.edit, nil) })
		}
	}
}

// oneService is a catalog of it.
func oneService(t *testing.T, svc *service.Service, endpoints ...string) *service.Catalog {
	ch := service.Change{
		Version: 1, Node: testNode(), Services: map[service.Name]*service.Service{svc.Name: svc},
		Endpoints: map[service.Name][]service.PortEndpoints{svc.Name: {{Port: "http", Protocol: service.TCP, Endpoints: eps(t, endpoints...)}}},
	}
	return new(service.Catalog).Next(&ch)
}

// TestProxyModeAddresses: before 1.30 a load balancer's address has rules whatever its
// ipMode is.
func TestProxyModeAddresses(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 3))
	written := service.Service{
		Name: service.Name{Namespace: "ns", Name: "svc"}, ClusterIPs: addrList("10.96.0.1"), LoadBalancerIPs: addrList("198.51.100.1"),
		Ports: []service.Port{{Name: "http", Protocol: service.TCP, Port: 80, NodePort: 30080}},
	}
	wanted := written
	wanted.LoadBalancerIPs, wanted.ProxyModeIPs = nil, written.LoadBalancerIPs
	n := newNode(t, netfilter.IPv4)
	n.sync(t, oneService(t, &written, "10.1.0.1:80"), flags{}, rng)
	got := Compare(&Input{Catalog: oneService(t, &wanted, "10.1.0.1:80"), Rules: []Rules{n.rules()}})
	if len(got.Differences) > 0 {
		t.Errorf("got %v", got.Differences)
	}
	wanted.ProxyModeIPs = nil
	got = Compare(&Input{Catalog: oneService(t, &wanted, "10.1.0.1:80"), Rules: []Rules{n.rules()}})
	if diff := cmp.Diff([]string{"extra_dispatch ns/svc:http loadbalancer"}, describe(got.Differences)); diff != "" {
		t.Errorf("an address that is gone (-want +got)\n%s", diff)
	}
}

// TestExternalIPsAreOffForAllOrNone: one address without rules is missing, where another one
// has some.
func TestExternalIPsAreOffForAllOrNone(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 3))
	svc := service.Service{
		Name: service.Name{Namespace: "ns", Name: "svc"}, ClusterIPs: addrList("10.96.0.1"), ExternalIPs: addrList("192.0.2.1", "192.0.2.2"),
		Ports: []service.Port{{Name: "http", Protocol: service.TCP, Port: 80}},
	}
	c := oneService(t, &svc, "10.1.0.1:80")
	n := newNode(t, netfilter.IPv4)
	n.sync(t, c, flags{}, rng)
	for i, want := range [][]string{{"missing_dispatch ns/svc:http external"}, nil} {
		lines := n.lines["nat"]["KUBE-SERVICES"]
		n.set1("nat", "KUBE-SERVICES", slices.DeleteFunc(slices.Clone(lines), func(l string) bool { return strings.Contains(l, svc.ExternalIPs[i].String()) }))
		n.read(t)
		got := Compare(&Input{Catalog: c, Rules: []Rules{n.rules()}})
		if diff := cmp.Diff(want, describe(got.Differences)); diff != "" {
			t.Errorf("%d addresses without rules (-want +got)\n%s", i+1, diff)
		}
	}
}

// TestOlderHints: a kube-proxy that does not heed hints has missed one endpoint, not all the hints.
func TestOlderHints(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 3))
	svc := service.Service{
		Name: service.Name{Namespace: "ns", Name: "svc"}, ClusterIPs: addrList("10.96.0.1"),
		Ports: []service.Port{{Name: "http", Protocol: service.TCP, Port: 80}},
	}
	var all []string
	for i := range 9 {
		all = append(all, fmt.Sprintf("10.1.0.%d:80 zone=zone-node%d node=node%d", i+1, 1+i%3, 1+i%3))
	}
	c := oneService(t, &svc, all...)
	for _, older := range []bool{false, true} {
		n := newNode(t, netfilter.IPv4)
		n.sync(t, c, flags{older: older}, rng)
		chain := kubeproxy.ServiceChain(svc.PortName(&svc.Ports[0]))
		n.edit("nat", chain, dropping("10.1.0.4:80"))
		n.read(t)
		got := Compare(&Input{Catalog: c, Rules: []Rules{n.rules()}}).Differences
		if len(got) != 1 || got[0].Kind != MissingEndpoint || got[0].Detail != "10.1.0.4:80" {
			t.Errorf("older %v: got %+v, want the missing endpoint alone", older, got)
		}
	}
}

// TestSharedAddress: of two Services with one external address each has its rules, and what one
// gives up is the other's fault at no time.
func TestSharedAddress(t *testing.T) {
	named := func(name string, n byte, external ...string) *service.Service {
		return &service.Service{
			Name: service.Name{Namespace: "ns", Name: name}, ClusterIPs: []netip.Addr{netip.AddrFrom4([4]byte{10, 96, 0, n})}, ExternalIPs: addrList(external...),
			Ports: []service.Port{{Name: "http", Protocol: service.TCP, Port: 80}},
		}
	}
	const shared = "192.0.2.1"
	a, b := named("a", 1, shared), named("b", 2, shared)
	with := func(c *service.Catalog, svc *service.Service, name service.Name, endpoints ...string) *service.Catalog {
		return c.Next(&service.Change{
			Version: c.Version + 1, Node: testNode(), Services: map[service.Name]*service.Service{name: svc},
			Endpoints: map[service.Name][]service.PortEndpoints{name: {{Port: "http", Protocol: service.TCP, Endpoints: eps(t, endpoints...)}}},
		})
	}
	both := with(with(new(service.Catalog), a, a.Name, "10.1.0.1:80"), b, b.Name, "10.1.0.2:80")
	unready := with(both, a, a.Name)
	tests := []struct {
		name         string
		written, now *service.Catalog
		want         []string
	}{
		{"both have it", both, both, nil},
		{"one has no endpoints", unready, unready, nil},
		{"one goes", both, with(both, nil, a.Name), []string{"extra_dispatch ns/a:http cluster", "extra_dispatch ns/a:http external"}},
		{"one gives it up", both, with(both, named("a", 1), a.Name, "10.1.0.1:80"), []string{"extra_dispatch ns/a:http external"}},
		{"one without endpoints goes", unready, with(unready, nil, a.Name), nil},
		{"one without endpoints gives it up", unready, with(unready, named("a", 1), a.Name), nil},
		{"both go", both, with(with(both, nil, a.Name), nil, b.Name), []string{
			"extra_dispatch ns/a:http cluster", "extra_dispatch ns/a:http external", "extra_dispatch ns/b:http cluster", "extra_dispatch ns/b:http external",
		}},
		{"one comes", with(both, nil, b.Name), both, []string{"missing_chain ns/b:http"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n := newNode(t, netfilter.IPv4)
			n.sync(t, tt.written, flags{}, rand.New(rand.NewPCG(1, 3)))
			var c Comparer
			c.Compare(&Input{Catalog: tt.written, Rules: []Rules{n.rules()}})
			got := c.Compare(&Input{Catalog: tt.now, Rules: []Rules{n.rules()}})
			if diff := cmp.Diff(tt.want, describe(got.Differences)); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			for _, d := range got.Differences {
				if !slices.Contains(got.Changed, PortFamily{d.Port, d.Family}) {
					t.Errorf("%+v is of a port that the API has not changed", d)
				}
			}
		})
	}
}

// TestNodeMissing: without the Node it is not known which endpoints are local.
func TestNodeMissing(t *testing.T) {
	f := fixtures[0]
	lines := save(strings.Split(strings.TrimSpace(f.text(t)), "\n")).without("-A KUBE-SVL-" + lbLocal).without("-A KUBE-SVC-" + web)
	got := Compare(&Input{Catalog: catalog(t), NodeMissing: true, Rules: []Rules{f.rules(t, lines.String())}})
	if diff := cmp.Diff([]string{"empty_chain default/web:http"}, describe(got.Differences)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// TestUndecided: where two slices say different things of one address, kube-proxy takes either, and
// nothing is said.
func TestUndecided(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 3))
	svc := service.Service{
		Name: service.Name{Namespace: "ns", Name: "svc"}, ClusterIPs: addrList("10.96.0.1"),
		Ports: []service.Port{{Name: "http", Protocol: service.TCP, Port: 80}},
	}
	in := func(ready, undecided bool) *service.Catalog {
		c := oneService(t, &svc, "10.1.0.1:80", "10.1.0.2:80")
		all := slices.Clone(c.EndpointsOf(svc.PortName(&svc.Ports[0]), false))
		all[1].Ready, all[1].Undecided = ready, undecided
		return c.Next(&service.Change{
			Version: 2, Node: testNode(), Endpoints: map[service.Name][]service.PortEndpoints{svc.Name: {{Port: "http", Protocol: service.TCP, Endpoints: all}}},
		})
	}
	n := newNode(t, netfilter.IPv4)
	for _, written := range []bool{false, true} {
		n.sync(t, in(written, false), flags{}, rng)
		for _, undecided := range []bool{false, true} {
			got := Compare(&Input{Catalog: in(!written, undecided), Rules: []Rules{n.rules()}}).Differences
			if len(got) > 0 == undecided {
				t.Errorf("undecided %v: got %v", undecided, got)
			}
		}
	}
}

// TestManyEndpoints: probabilities of a thousand endpoints are within what ten digits and
// 31 bits leave of them.
func TestManyEndpoints(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 3))
	svc := service.Service{
		Name: service.Name{Namespace: "ns", Name: "svc"}, ClusterIPs: addrList("10.96.0.1"),
		Ports: []service.Port{{Name: "http", Protocol: service.TCP, Port: 80}},
	}
	var all []string
	for i := range 1500 {
		all = append(all, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}), 80).String())
	}
	c := oneService(t, &svc, all...)
	n := newNode(t, netfilter.IPv4)
	n.sync(t, c, flags{large: true}, rng)
	if got := Compare(&Input{Catalog: c, Rules: []Rules{n.rules()}}); len(got.Differences) > 0 {
		t.Errorf("got %d differences, %+v", len(got.Differences), got.Differences[0])
	}
	chain := kubeproxy.ServiceChain(svc.PortName(&svc.Ports[0]))
	lines := slices.Clone(n.lines["nat"][chain])
	lines[700] = strings.Replace(lines[700], "--probability 0.00125", "--probability 0.00126", 1)
	n.set1("nat", chain, lines)
	n.read(t)
	got := Compare(&Input{Catalog: c, Rules: []Rules{n.rules()}})
	if diff := cmp.Diff([]string{"wrong_probability ns/svc:http"}, describe(got.Differences)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}
