// SPDX-License-Identifier: Apache-2.0

package correlate

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/svcscope/svcscope/pkg/internal/iptsave"
	"github.com/svcscope/svcscope/pkg/kubeproxy"
	"github.com/svcscope/svcscope/pkg/ledger"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/ruleset"
	"github.com/svcscope/svcscope/pkg/service"
)

// cluster is a node with Services of three endpoints each in both families, all
// of them counted, and the API that caused them.
type cluster struct {
	catalog *service.Catalog
	rules   []Rules
	ledger  *ledger.Ledger
	reading [2]ledger.Reading
	now     time.Time
}

const clusterEndpoints = 3

func clusterPort(i int) service.PortName {
	return service.PortName{
		Name: service.Name{Namespace: fmt.Sprintf("team-%d", i%100), Name: fmt.Sprintf("service-%05d", i)},
		Port: "http", Protocol: service.TCP,
	}
}

func clusterAddr(f Family, net, n int) netip.Addr {
	if f == netfilter.IPv4 {
		return netip.AddrFrom4([4]byte{10, byte(net + n>>16), byte(n >> 8), byte(n)})
	}
	return netip.AddrFrom16([16]byte{0: 0xfd, 1: byte(net), 13: byte(n >> 16), 14: byte(n >> 8), 15: byte(n)})
}

func clusterEndpoint(f Family, i, e int) netip.AddrPort {
	return netip.AddrPortFrom(clusterAddr(f, 100, i*clusterEndpoints+e), 8080)
}

func newCluster(tb testing.TB, n int) *cluster {
	tb.Helper()
	c := &cluster{catalog: &service.Catalog{Synced: true, Endpoints: make(map[service.PortName][]service.Endpoint, n)}, now: at}
	c.catalog.Node.Name = "node-a"
	for i := range n {
		p := clusterPort(i)
		c.catalog.Services = append(c.catalog.Services, &service.Service{
			Name: p.Name, Type: "ClusterIP",
			ClusterIPs: []netip.Addr{clusterAddr(netfilter.IPv4, 96, i), clusterAddr(netfilter.IPv6, 96, i)},
			Ports:      []service.Port{{Name: p.Port, Protocol: p.Protocol, Port: 80}},
		})
		var endpoints []service.Endpoint
		for _, f := range bothFamilies() {
			for e := range clusterEndpoints {
				endpoints = append(endpoints, service.Endpoint{Addr: clusterEndpoint(f, i, e), Ready: true, Serving: true})
			}
		}
		c.catalog.Endpoints[p] = endpoints
	}
	slices.SortFunc(c.catalog.Services, func(a, b *service.Service) int { return a.Name.Compare(b.Name) })
	c.ledger = ledger.New(n)
	c.ledger.Know(KnownPorts(nil, NewNames(c.catalog)), c.now)
	for i, f := range bothFamilies() {
		rs := clusterRules(tb, f, n)
		rules := NewRules(rs)
		c.rules = append(c.rules, rules)
		c.reading[i] = wholeReading(rs, rules.View, NewNames(c.catalog))
		for range 2 {
			c.ledger.Apply(c.reading[i], c.now)
		}
	}
	return c
}

// clusterRules is what kube-proxy writes for the Services' cluster IPs.
func clusterRules(tb testing.TB, f Family, n int) *ruleset.Ruleset {
	tb.Helper()
	var chains, rules strings.Builder
	for i := range n {
		p := clusterPort(i)
		svc := kubeproxy.ServiceChain(p)
		fmt.Fprintf(&chains, ":%s - [0:0]\n", svc)
		fmt.Fprintf(&rules, "[0:0] -A KUBE-SERVICES -d %s -p tcp -m comment --comment \"%s cluster IP\" -m tcp --dport 80 -j %s\n",
			clusterAddr(f, 96, i), p, svc)
		for e := range clusterEndpoints {
			addr := clusterEndpoint(f, i, e)
			sep := kubeproxy.EndpointChain(p, addr)
			fmt.Fprintf(&chains, ":%s - [0:0]\n", sep)
			fmt.Fprintf(&rules, "[0:0] -A %s -m comment --comment \"%s -> %s\" -j %s\n", svc, p, addr, sep)
			fmt.Fprintf(&rules, "[0:0] -A %s -p tcp -m comment --comment %s -m tcp -j DNAT --to-destination %s\n", sep, p, addr)
		}
	}
	text := "*nat\n:PREROUTING ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:KUBE-SERVICES - [0:0]\n" + chains.String() +
		"[0:0] -A PREROUTING -j KUBE-SERVICES\n[0:0] -A OUTPUT -j KUBE-SERVICES\n" + rules.String() + "COMMIT\n"
	rs, err := iptsave.Parse(f, ruleset.NFT, text)
	if err != nil {
		tb.Fatal(err)
	}
	handle(rs)
	return rs
}

// traffic has each of the first n Services count a connection in each family.
func (c *cluster) traffic(n int) {
	for i := range c.reading {
		r := &c.reading[i]
		part := ledger.Reading{Source: r.Source, ConnectionsFirst: true, Cover: make(ledger.Cover, n)}
		first := make(map[string]bool, n)
		for i := range n {
			chain := kubeproxy.ServiceChain(clusterPort(i))
			first[chain] = true
			part.Cover[ledger.ChainName{Table: "nat", Chain: chain}] = struct{}{}
		}
		for i := range r.Counters {
			if k := &r.Counters[i]; first[k.Chain] {
				k.Packets++
				part.Counters = append(part.Counters, *k)
			}
		}
		c.ledger.Apply(part, c.now)
	}
}

func (c *cluster) inputs(names *Names) Inputs {
	return Inputs{NodeName: "node-a", Names: names, Rules: c.rules, Ledger: c.ledger, Self: Self{SeriesLimit: len(c.catalog.Services)}}
}

// BenchmarkBuild makes snapshots of 10,000 Services in both families.
func BenchmarkBuild(b *testing.B) {
	const n = 10_000
	c := newCluster(b, n)
	names := NewNames(c.catalog)
	for _, bb := range []struct {
		name   string
		change func(*Builder)
	}{
		{"nothing changed", func(*Builder) {}},
		{"100 Services counted", func(*Builder) { c.traffic(100) }},
		{"rules changed", func(*Builder) { c.rules[0].View.Version++ }},
		{"API changed", func(*Builder) {
			c.catalog = c.catalog.Next(&service.Change{Node: c.catalog.Node})
			names = NewNames(c.catalog)
		}},
		{"at first", func(builder *Builder) { *builder = Builder{} }},
	} {
		b.Run(bb.name, func(b *testing.B) {
			builder := &Builder{}
			s := builder.Build(c.inputs(names), at)
			if len(s.Services) != 2*n || !s.Services[0].Exposed || s.Services[n].KernelCount != clusterEndpoints {
				b.Fatalf("%d rows, of which one is %+v", len(s.Services), s.Services[n])
			}
			b.ReportAllocs()
			for b.Loop() {
				b.StopTimer()
				bb.change(builder)
				b.StartTimer()
				builder.Build(c.inputs(names), at)
			}
		})
	}
}
