// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/svcscope/svcscope/pkg/correlate"
	"github.com/svcscope/svcscope/pkg/internal/kerneltest"
	"github.com/svcscope/svcscope/pkg/internal/realcluster"
	"github.com/svcscope/svcscope/pkg/kubeproxy"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/service"
)

// realNative loads what the real kube-proxy wrote in its nftables mode; nft 1.0.6 leaves out
// what a map's values are.
func realNative(t *testing.T) {
	t.Helper()
	text, err := os.ReadFile(realcluster.Dir + "nftables.nft")
	if err != nil {
		t.Fatal(err)
	}
	r := strings.NewReplacer("dnat ip to numgen", "dnat ip addr . port to numgen", "dnat ip6 to numgen", "dnat ip6 addr . port to numgen")
	kerneltest.Exec(t, r.Replace(string(text)), "nft", "-f", "-")
}

// nativeSampler samples a node in that mode, whose API is that of the capture.
func nativeSampler(t *testing.T) *sampler {
	t.Helper()
	catalog, err := realcluster.Catalog()
	if err != nil {
		t.Fatal(err)
	}
	api := newFakeWatcher()
	api.catalog, api.state = catalog, apiState{Current: true}
	cfg := testConfig()
	cfg.Kube, cfg.NodeName = KubeAuto, "node1"
	return apiSampler(t, cfg, api)
}

// TestNativeModeAsTheAPIWants: in the nftables mode the endpoints of each Service in the
// kernel are those that the API wants there, in both families.
func TestNativeModeAsTheAPIWants(t *testing.T) {
	kerneltest.Run(t, func(t *testing.T) {
		realNative(t)
		s := nativeSampler(t)
		s.pass(t.Context())
		snapshot := s.latest.Load()
		if snapshot.Node.ProxyMode != "nftables" || snapshot.Node.Backend != "" {
			t.Errorf("node %+v", snapshot.Node)
		}
		checked := 0
		for _, p := range snapshot.Services {
			for _, e := range p.Endpoints {
				if !e.InAPI || !e.InKernel {
					t.Errorf("%s %v: endpoint %+v", p.Port, p.Family, e)
				}
			}
			if p.KernelCount != p.APICount || !p.Uncounted {
				t.Errorf("%s %v: %d endpoints in the kernel, %d in the API, uncounted %v", p.Port, p.Family, p.KernelCount, p.APICount, p.Uncounted)
			}
			if rules := p.Rules[kubeproxy.NativeTable]; (rules > 0) != (p.KernelCount > 0) || len(p.Rules) > 1 {
				t.Errorf("%s %v: rules %v", p.Port, p.Family, p.Rules)
			}
			if p.KernelCount > 1 {
				checked++
			}
		}
		if checked < 15 {
			t.Errorf("%d Services with more than one endpoint", checked)
		}
		if len(snapshot.Self.Undecoded) != 0 {
			t.Errorf("not understood: %v", snapshot.Self.Undecoded)
		}
		m := page(t, s)
		for _, w := range []struct {
			name   string
			labels []string
			least  float64
		}{
			{"svcscope_node_info", []string{"proxy_mode=nftables"}, 1},
			{"svcscope_rules", []string{"backend=nftables", "ip_family=IPv4", "owner=kube-proxy"}, 60},
			{"svcscope_rules", []string{"backend=nftables", "ip_family=IPv6", "owner=kube-proxy"}, 60},
			{"svcscope_dispatch_rules", []string{"backend=nftables", "ip_family=IPv4"}, 3},
			{"svcscope_service_endpoints", []string{"service_name=web", "ip_family=IPv4", "source=kernel"}, 3},
			{"svcscope_service_rules", []string{"service_name=sticky", "ip_family=IPv6", "table=kube-proxy"}, 7},
			{"svcscope_counting_method", []string{"what=refusals", "method=none"}, 1},
		} {
			if got := m.sum(w.name, w.labels...); got < w.least {
				t.Errorf("%s%v: %v, want at least %v", w.name, w.labels, got, w.least)
			}
		}
		if m["svcscope_service_connections_total"] != nil {
			t.Error("connections are told although nothing counts them")
		}
	})
}

// TestNativeModeIsReadWhenItChanges: where nothing was committed the generation alone is
// asked for, and an endpoint that takes another's place is seen though as many rules and
// elements are there.
func TestNativeModeIsReadWhenItChanges(t *testing.T) {
	kerneltest.Run(t, func(t *testing.T) {
		realNative(t)
		s := nativeSampler(t)
		s.pass(t.Context())
		before := s.nft.stats()
		s.read(t.Context(), s.nftables)
		if n := s.nft.stats().Messages - before.Messages; n != 2 {
			t.Errorf("%d messages although nothing has changed, want the generation before and after", n)
		}
		endpoints := func() []netip.AddrPort {
			var all []netip.AddrPort
			for _, p := range s.latest.Load().Services {
				if p.Port.Name.Name != "web" || p.Family != netfilter.IPv4 {
					continue
				}
				for _, e := range p.Endpoints {
					if e.InKernel {
						all = append(all, e.Addr)
					}
				}
			}
			return all
		}
		old, other := netip.MustParseAddrPort("10.244.1.12:8080"), netip.MustParseAddrPort("10.244.1.99:8080")
		if !slices.Contains(endpoints(), old) {
			t.Fatalf("web has %v", endpoints())
		}
		web := service.PortName{Name: service.Name{Namespace: "default", Name: "web"}, Port: "http", Protocol: service.TCP}
		chain := kubeproxy.NativeChain(kubeproxy.KindService, web)
		kerneltest.Exec(t, fmt.Sprintf("flush chain ip kube-proxy %s\nadd rule ip kube-proxy %s meta l4proto tcp dnat ip addr . port to numgen random mod 3 "+
			"map { 0 : 10.244.1.11 . 8080, 1 : %s . %d, 2 : 10.244.2.11 . 8080 }\n", chain, chain, other.Addr(), other.Port()), "nft", "-f", "-")
		s.pass(t.Context())
		if got := endpoints(); len(got) != 3 || !slices.Contains(got, other) || slices.Contains(got, old) {
			t.Errorf("web has %v", got)
		}
		rows := s.latest.Load().Services
		kerneltest.Exec(t, "", "nft", "add", "element", "ip", "kube-proxy", "no-endpoint-nodeports", "{ tcp . 31999 : drop }")
		s.pass(t.Context())
		for i, p := range s.latest.Load().Services {
			if p != rows[i] {
				t.Errorf("the row of %s %v is made anew", p.Port, p.Family)
			}
		}
		kerneltest.Exec(t, "", "nft", "delete", "table", "ip", "kube-proxy")
		kerneltest.Exec(t, "", "nft", "delete", "table", "ip6", "kube-proxy")
		s.pass(t.Context())
		if got := s.latest.Load(); got.Node.ProxyMode != "none" || len(endpoints()) != 0 {
			t.Errorf("without the tables: %s, %v", got.Node.ProxyMode, endpoints())
		}
	})
}

// nativeText is web, and ghost at UDP, in the nftables mode. Before Kubernetes 1.34 what has
// no endpoints is refused before NAT: priority -110.
func (f *family) nativeText(priority int) string {
	ip, typ := "ip", "ipv4_addr"
	if f.bits == 128 {
		ip, typ = "ip6", "ipv6_addr"
	}
	ends := make([]string, len(f.endpoints))
	for i, e := range f.endpoints {
		ends[i] = fmt.Sprintf("%d : %s . %d", i, e.Addr(), e.Port())
	}
	r := strings.NewReplacer(
		"IPADDR", typ, "IP", ip, "VIP", f.vip.String(), "GHOST", f.ghost.String(), "NODE", f.node.String(), "PRIORITY", fmt.Sprint(priority),
		"SERVICE", kubeproxy.NativeChain(kubeproxy.KindService, webPort), "EXTERNAL", kubeproxy.NativeChain(kubeproxy.KindExternal, webPort),
		"ENDPOINTS", strings.Join(ends, ", "), "COUNT", fmt.Sprint(len(ends)),
	)
	return r.Replace(`table IP kube-proxy {
	set cluster-ips { type IPADDR; elements = { VIP, GHOST }; }
	map service-ips {
		type IPADDR . inet_proto . inet_service : verdict;
		elements = { VIP . tcp . 80 : goto SERVICE };
	}
	map service-nodeports {
		type inet_proto . inet_service : verdict;
		elements = { tcp . 30080 : goto EXTERNAL };
	}
	map no-endpoint-services {
		type IPADDR . inet_proto . inet_service : verdict;
		elements = { GHOST . udp . 80 comment "shop/ghost" : goto reject-chain };
	}
	map no-endpoint-nodeports {
		type inet_proto . inet_service : verdict;
		elements = { udp . 30053 comment "shop/ghost" : drop };
	}
	set nodeport-ips { type IPADDR; elements = { NODE }; }
	chain reject-chain { reject; }
	chain service-endpoints-check { IP daddr . meta l4proto . th dport vmap @no-endpoint-services; }
	chain nodeport-endpoints-check { IP daddr @nodeport-ips meta l4proto . th dport vmap @no-endpoint-nodeports; }
	chain filter-input {
		type filter hook input priority PRIORITY;
		ct state new jump nodeport-endpoints-check;
		ct state new jump service-endpoints-check;
	}
	chain filter-forward { type filter hook forward priority PRIORITY; ct state new jump service-endpoints-check; }
	chain filter-output { type filter hook output priority PRIORITY; ct state new jump service-endpoints-check; }
	chain services {
		IP daddr . meta l4proto . th dport vmap @service-ips;
		IP daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports;
	}
	chain nat-prerouting { type nat hook prerouting priority -100; jump services; }
	chain nat-output { type nat hook output priority -100; jump services; }
	chain nat-postrouting { type nat hook postrouting priority 100; jump masquerading; }
	chain masquerading { meta mark & 0x4000 != 0 meta mark set meta mark xor 0x4000 masquerade fully-random; }
	chain SERVICE { meta l4proto tcp dnat IP addr . port to numgen random mod COUNT map { ENDPOINTS }; }
	chain EXTERNAL {
		meta mark set meta mark or 0x4000;
		goto SERVICE;
	}
}
`)
}

// TestTapInNativeMode: what kube-proxy's nftables mode refuses, in which nothing counts, the
// tap counts and logs, in the layouts of its filter chains.
func TestTapInNativeMode(t *testing.T) {
	for _, f := range []family{ipv4(), ipv6()} {
		for _, priority := range []int{0, -110} {
			t.Run(fmt.Sprint(f.name, " ", priority), func(t *testing.T) {
				kerneltest.Run(t, func(t *testing.T) { tapNative(t, f, priority) })
			})
		}
	}
}

// startNativeTap begins to tap on a node with these rules.
func startNativeTap(t *testing.T, f family, rules string) *tapScene {
	t.Helper()
	f.load(t, "nft")
	kerneltest.Exec(t, "", "nft", "flush", "ruleset")
	kerneltest.Exec(t, rules, "nft", "-f", "-")
	cfg := testConfig()
	cfg.Kube, cfg.Tap, cfg.Interval = KubeAuto, true, 10*time.Millisecond
	s := &tapScene{f: f, backend: "nft", api: chaosAPI(&f)}
	s.sampler = apiSampler(t, cfg, s.api)
	s.run(t)
	return s
}

func tapNative(t *testing.T, f family, priority int) {
	s := startNativeTap(t, f, f.nativeText(priority))
	f.serve(t)
	connect(t, f.cluster(), 7)
	connect(t, f.external(), 4)
	refuse(t, f, 9)
	const refused = "svcscope_drop_packets_total"
	s.until(t, "all is counted", func() bool {
		return s.sum(t, refused) == 9 && s.sum(t, "svcscope_service_attempts_total", "service_name=web") == 11
	})
	for _, w := range []struct {
		name   string
		labels []string
		want   float64
	}{
		{"svcscope_node_info", []string{"proxy_mode=nftables"}, 1},
		{"svcscope_service_attempts_total", []string{"service_name=web", "via=cluster", "ip_family=" + f.name}, 7},
		{"svcscope_service_translated_attempts_total", []string{"service_name=web"}, 11},
		{refused, []string{"reason=no_endpoints", "service_namespace=shop", "service_name=ghost", "hook=output", "owner=kube-proxy"}, 9},
		{"svcscope_drop_witnessed_packets_total", []string{"source=tap"}, 9},
		{"svcscope_counting_method", []string{"what=refusals", "method=tap"}, 1},
		{"svcscope_counting_method", []string{"what=connections", "method=none"}, 1},
		{"svcscope_collector_success", []string{"collector=tap"}, 1},
	} {
		if got := s.sum(t, w.name, w.labels...); got != w.want {
			t.Errorf("%s%v: %v, want %v", w.name, w.labels, got, w.want)
		}
	}
	var events []correlate.DropEvent
	s.until(t, "events came", func() bool {
		events, _, _, _ = s.sampler.groups.events.after(0, 100)
		return len(events) == 9
	})
	d := s.dropReport(&events[0])
	if d.Source != "tap" || d.Service == nil || d.Service.Name != "ghost" || d.Table != kubeproxy.NativeTable || d.Chain != "service-endpoints-check" || d.Hook != "output" {
		t.Errorf("got %+v", d)
	}
}

// TestTapOfNodePortsInNativeMode: what is sent to a node port is counted where kube-proxy
// refuses it, and at no other address of the node.
func TestTapOfNodePortsInNativeMode(t *testing.T) {
	for _, f := range []family{ipv4(), ipv6()} {
		for _, tt := range []struct {
			name, match string
			want        float64
		}{
			{"at the node ports' addresses", "daddr @nodeport-ips", 5},
			{"at any address", "fib daddr type local", 5 + 8},
		} {
			for _, priority := range []int{0, -110} {
				t.Run(fmt.Sprint(f.name, " ", tt.name, " ", priority), func(t *testing.T) {
					kerneltest.Run(t, func(t *testing.T) {
						rules := f.nativeText(priority)
						if !strings.Contains(tt.match, "@") {
							rules = strings.NewReplacer("ip daddr @nodeport-ips", tt.match, "ip6 daddr @nodeport-ips", tt.match).Replace(rules)
						}
						s := startNativeTap(t, f, rules)
						sendUDP(t, netip.AddrPortFrom(f.node, 30053), 5)
						sendUDP(t, netip.AddrPortFrom(f.endpoints[0].Addr(), 30053), 8)
						const refused = "svcscope_drop_packets_total"
						for n := range 2 { // the second is counted in a reading that began when all had been sent
							refuse(t, f, 1)
							s.until(t, "all is counted", func() bool { return s.sum(t, refused, "reason=no_endpoints") == float64(n+1) })
						}
						labels := []string{"reason=no_local_endpoints", "service_name=ghost", "hook=input"}
						if got := s.sum(t, refused, labels...); got != tt.want {
							t.Errorf("%s%v: %v, want %v", refused, labels, got, tt.want)
						}
					})
				})
			}
		}
	}
}

// sendUDP sends n datagrams of one flow.
func sendUDP(t *testing.T, to netip.AddrPort, n int) {
	t.Helper()
	c, err := net.ListenUDP("udp", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range n {
		if _, err := c.WriteToUDPAddrPort([]byte("x"), to); err != nil {
			t.Fatal(err)
		}
	}
}
