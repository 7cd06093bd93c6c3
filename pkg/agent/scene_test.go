// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/svcscope/svcscope/pkg/internal/kerneltest"
	"github.com/svcscope/svcscope/pkg/kubeproxy"
	"github.com/svcscope/svcscope/pkg/service"
)

// family is a scene's addresses in one IP family.
type family struct {
	name      string // as in the label ip_family
	iptables  string // iptables or ip6tables
	node      netip.Addr
	vip       netip.Addr
	ghost     netip.Addr // the cluster IP of a Service without endpoints
	endpoints []netip.AddrPort
	bits      int
}

func ipv4() family {
	return family{
		name: "IPv4", iptables: "iptables", node: netip.MustParseAddr("10.77.0.1"), bits: 32,
		vip: netip.MustParseAddr("10.96.0.10"), ghost: netip.MustParseAddr("10.96.0.11"),
		endpoints: []netip.AddrPort{netip.MustParseAddrPort("10.77.0.2:8080"), netip.MustParseAddrPort("10.77.0.3:8080")},
	}
}

func ipv6() family {
	return family{
		name: "IPv6", iptables: "ip6tables", node: netip.MustParseAddr("fd77::1"), bits: 128,
		vip: netip.MustParseAddr("fd96::10"), ghost: netip.MustParseAddr("fd96::11"),
		endpoints: []netip.AddrPort{netip.MustParseAddrPort("[fd77::2]:8080"), netip.MustParseAddrPort("[fd77::3]:8080")},
	}
}

const (
	vipPort  = 80
	nodePort = 30080
)

var (
	webPort   = service.PortName{Name: service.Name{Namespace: "shop", Name: "web"}, Port: "http", Protocol: service.TCP}
	ghostPort = service.PortName{Name: service.Name{Namespace: "shop", Name: "ghost"}, Protocol: service.TCP}
)

// restore loads text with iptables-<backend>-restore --noflush, as kube-proxy
// does.
func (f *family) restore(tb testing.TB, backend, text string) {
	tb.Helper()
	kerneltest.Exec(tb, text, f.iptables+"-"+backend+"-restore", "-w", "5", "--noflush", "--counters")
}

// rules is what kube-proxy writes for web and ghost. extra is put into nat
// KUBE-SERVICES.
func (f *family) rules(extra string) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("*filter\n:KUBE-SERVICES - [0:0]\n:KUBE-EXTERNAL-SERVICES - [0:0]\n:KUBE-FORWARD - [0:0]")
	line(`-A KUBE-SERVICES -m comment --comment "%s has no endpoints" -m tcp -p tcp -d %s --dport %d -j REJECT`, ghostPort, f.ghost, vipPort)
	line("COMMIT\n*nat\n:KUBE-SERVICES - [0:0]\n:KUBE-NODEPORTS - [0:0]\n:KUBE-MARK-MASQ - [0:0]\n:KUBE-POSTROUTING - [0:0]")
	line("-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000")
	line("-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN")
	line("-A KUBE-POSTROUTING -j MARK --xor-mark 0x4000")
	line(`-A KUBE-POSTROUTING -m comment --comment "kubernetes service traffic requiring SNAT" -j MASQUERADE --random-fully`)
	line(`-A KUBE-NODEPORTS -m comment --comment %s -m tcp -p tcp --dport %d -j %s`, webPort, nodePort, kubeproxy.ExternalChain(webPort))
	b.WriteString(extra)
	line(`-A KUBE-SERVICES -m comment --comment "%s cluster IP" -m tcp -p tcp -d %s --dport %d -j %s`, webPort, f.vip, vipPort, kubeproxy.ServiceChain(webPort))
	line(`-A KUBE-SERVICES -m comment --comment "kubernetes service nodeports; NOTE: this must be the last rule in this chain" -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS`)
	line("COMMIT")
	return b.String()
}

// chains is what kube-proxy writes when web itself changes.
func (f *family) chains() string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	svc, ext := kubeproxy.ServiceChain(webPort), kubeproxy.ExternalChain(webPort)
	line("*nat\n:KUBE-MARK-MASQ - [0:0]\n:%s - [0:0]\n:%s - [0:0]", svc, ext)
	for _, e := range f.endpoints {
		line(":%s - [0:0]", kubeproxy.EndpointChain(webPort, e))
	}
	line("-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000")
	line(`-A %s -m comment --comment "masquerade traffic for %s external destinations" -j KUBE-MARK-MASQ`, ext, webPort)
	line(`-A %s -j %s`, ext, svc)
	for i, e := range f.endpoints {
		random := ""
		if left := len(f.endpoints) - i; left > 1 {
			random = fmt.Sprintf("-m statistic --mode random --probability %.10f ", 1/float64(left))
		}
		sep := kubeproxy.EndpointChain(webPort, e)
		line(`-A %s -m comment --comment "%s -> %s" %s-j %s`, svc, webPort, e, random, sep)
		line(`-A %s -m comment --comment %s -s %s -j KUBE-MARK-MASQ`, sep, webPort, e.Addr())
		line(`-A %s -m comment --comment %s -m tcp -p tcp -j DNAT --to-destination %s`, sep, webPort, e)
	}
	line("COMMIT")
	return b.String()
}

// jumps is what kube-proxy puts into the built-in chains.
func jumps() string {
	return `*filter
:KUBE-SERVICES - [0:0]
-I OUTPUT -m conntrack --ctstate NEW -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
COMMIT
*nat
:KUBE-SERVICES - [0:0]
:KUBE-POSTROUTING - [0:0]
-I PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-I OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-I POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING
COMMIT
`
}

// catalog is the API's picture of web.
func (f *family) catalog() *service.Catalog {
	c := &service.Catalog{
		Synced: true, Node: service.Node{Name: "node-a"},
		Services: []*service.Service{{
			Name: webPort.Name, Type: "NodePort", ClusterIPs: []netip.Addr{f.vip},
			Ports: []service.Port{{Name: webPort.Port, Protocol: webPort.Protocol, Port: vipPort, NodePort: nodePort}},
		}},
		Endpoints: map[service.PortName][]service.Endpoint{},
	}
	for _, e := range f.endpoints {
		c.Endpoints[webPort] = append(c.Endpoints[webPort], service.Endpoint{Addr: e, Ready: true, Serving: true})
	}
	return c
}

// load makes the node: addresses, a route for cluster IPs, and the rules.
func (f *family) load(tb testing.TB, backend string) {
	tb.Helper()
	kerneltest.Exec(tb, "", "ip", "link", "add", "d0", "type", "veth", "peer", "name", "d1")
	kerneltest.Exec(tb, "", "ip", "link", "set", "d0", "up")
	kerneltest.Exec(tb, "", "ip", "link", "set", "d1", "up")
	add := func(a netip.Addr) {
		args := []string{"addr", "add", netip.PrefixFrom(a, f.bits).String(), "dev", "d0"}
		if f.bits == 128 {
			args = append(args, "nodad")
		}
		kerneltest.Exec(tb, "", "ip", args...)
	}
	add(f.node)
	for _, e := range f.endpoints {
		add(e.Addr())
	}
	// IPv6 gives addresses their routes when the link is found to be ready.
	for _, e := range f.endpoints {
		for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
			out, err := kerneltest.TryExec(tb, "", "ip", "route", "get", e.Addr().String())
			if err == nil && strings.HasPrefix(out, "local ") {
				break
			}
			if time.Now().After(deadline) {
				tb.Fatalf("%v is not local: %s", e.Addr(), out)
			}
		}
	}
	// OUTPUT sees a packet only if it has a route.
	kerneltest.Exec(tb, "", "ip", "route", "add", netip.PrefixFrom(f.vip, f.bits/2).Masked().String(), "dev", "d0", "src", f.node.String())
	f.restore(tb, backend, jumps()) // naming a chain empties it: first
	f.restore(tb, backend, f.chains())
	f.restore(tb, backend, f.rules(""))
}

// serve answers on the endpoints until the test ends.
func (f *family) serve(tb testing.TB) {
	tb.Helper()
	for _, e := range f.endpoints {
		l, err := net.Listen("tcp", e.String())
		if err != nil {
			tb.Fatal(err)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				_, _ = io.Copy(io.Discard, c) // until the client resets it
				_ = c.Close()
			}
		}()
		tb.Cleanup(func() {
			_ = l.Close()
			<-done
		})
	}
}

// connect opens n connections to an address; each must succeed.
func connect(tb testing.TB, to netip.AddrPort, n int) {
	tb.Helper()
	for range n {
		c, err := net.DialTimeout("tcp", to.String(), 5*time.Second)
		if err != nil {
			tb.Fatal(err)
		}
		// Reset it: in TIME_WAIT it would meet a later connection that is
		// masqueraded to the same port, whose SYN then goes out, and is
		// counted, a second time.
		_ = c.(*net.TCPConn).SetLinger(0)
		_ = c.Close()
	}
}

func (f *family) cluster() netip.AddrPort  { return netip.AddrPortFrom(f.vip, vipPort) }
func (f *family) external() netip.AddrPort { return netip.AddrPortFrom(f.node, nodePort) }

// scrape is a page of metrics.
type scrape map[string]*dto.MetricFamily

func parse(tb testing.TB, r io.Reader) scrape {
	tb.Helper()
	p := expfmt.NewTextParser(model.UTF8Validation)
	families, err := p.TextToMetricFamilies(r)
	if err != nil {
		tb.Fatal(err)
	}
	return families
}

// get scrapes an agent over HTTP.
func get(tb testing.TB) scrape {
	tb.Helper()
	resp, err := http.Get(metricsURL)
	if err != nil {
		tb.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		tb.Fatalf("%s: %s", metricsURL, resp.Status)
	}
	return parse(tb, resp.Body)
}

// page scrapes a sampler without a server.
func page(tb testing.TB, s *sampler) scrape {
	tb.Helper()
	pages, err := newPages(s)
	if err != nil {
		tb.Fatal(err)
	}
	w := httptest.NewRecorder()
	pages.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	return parse(tb, w.Body)
}

// sum adds up the series of a metric that have all the labels, given as
// name=value.
func (s scrape) sum(name string, labels ...string) float64 {
	total := 0.0
	if s[name] == nil {
		return 0
	}
	for _, m := range s[name].Metric {
		matched := 0
		for _, l := range m.Label {
			if slices.Contains(labels, l.GetName()+"="+l.GetValue()) {
				matched++
			}
		}
		if matched == len(labels) {
			total += m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return total
}

// text is the first line of an HTTP answer with its status.
func text(tb testing.TB, url string) (int, string) {
	tb.Helper()
	resp, err := http.Get(url)
	if err != nil {
		tb.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		tb.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// testConfig is for an agent in a namespace of its own.
func testConfig() Config {
	c := DefaultConfig()
	c.Kube, c.NodeName, c.Endpoints = KubeNever, "node-a", true
	c.Interval = 20 * time.Millisecond // below what Validate allows
	return c
}

// start runs an agent until the test ends.
func start(t *testing.T, s *sampler) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx, s) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("agent: %v", err)
		}
	})
	passes(t, s, 1)
}

// passes waits for n snapshots from now on: two hold all that happened before.
func passes(t *testing.T, s *sampler, n int) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	last := s.latest.Load()
	for n > 0 {
		if now := s.latest.Load(); now != last {
			last = now
			n--
			continue
		}
		if time.Now().After(deadline) {
			t.Fatal("the agent does not sample")
		}
		time.Sleep(time.Millisecond)
	}
}

func newTestSampler(cfg Config) *sampler {
	return newSampler(cfg, thisHost(), newKube(cfg, openWatcher(cfg)))
}
