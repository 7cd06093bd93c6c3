// SPDX-License-Identifier: Apache-2.0

package drift

import (
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

// TestNodeMissing: without the Node it is not known which endpoints are local.
func TestNodeMissing(t *testing.T) {
	f := fixtures[0]
	lines := save(strings.Split(strings.TrimSpace(f.text(t)), "\n")).without("-A KUBE-SVL-" + lbLocal).without("-A KUBE-SVC-" + web)
	got := Compare(&Input{Catalog: catalog(t), NodeMissing: true, Rules: []Rules{f.rules(t, lines.String())}})
	if diff := cmp.Diff([]string{"empty_chain default/web:http"}, describe(got.Differences)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
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
