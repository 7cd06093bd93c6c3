// SPDX-License-Identifier: Apache-2.0

package drift

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/svcscope/svcscope/pkg/kubeproxy"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/ruleset"
	"github.com/svcscope/svcscope/pkg/service"
)

// manyServices has n Services of three endpoints each.
func manyServices(n int) *service.Catalog {
	ch := service.Change{Version: 1, Node: testNode(), Services: map[service.Name]*service.Service{}, Endpoints: map[service.Name][]service.PortEndpoints{}}
	for i := range n {
		name := service.Name{Namespace: "bench", Name: fmt.Sprintf("svc-%05d", i)}
		v4, _ := addrs(96, i)
		ch.Services[name] = &service.Service{
			Name: name, Type: "NodePort", ClusterIPs: []netip.Addr{v4},
			Ports: []service.Port{{Name: "http", Protocol: service.TCP, Port: 80, NodePort: uint16(20000 + i)}},
		}
		ch.Endpoints[name] = threeEndpoints(i, 8080)
	}
	return new(service.Catalog).Next(&ch)
}

func threeEndpoints(i int, port uint16) []service.PortEndpoints {
	out := service.PortEndpoints{Port: "http", Protocol: service.TCP}
	for e := range 3 {
		a := netip.AddrFrom4([4]byte{10, byte(100 + e), byte(i >> 8), byte(i)})
		out.Endpoints = append(out.Endpoints, service.Endpoint{Addr: netip.AddrPortFrom(a, port), Ready: true, Serving: true, NodeName: "node2"})
	}
	return []service.PortEndpoints{out}
}

// BenchmarkCompare is with 10,000 Services, each of them right.
func BenchmarkCompare(b *testing.B) {
	const services = 10000
	catalog := manyServices(services)
	n := newNode(b, netfilter.IPv4)
	p := proxier{catalog: catalog, flags: flags{detectLocal: "-i cni+", large: true}}
	p.sync()
	rng := rand.New(rand.NewPCG(1, 4))
	n.commit("filter", p.filter, nil, true, rng)
	n.commit("nat", p.nat, nil, true, rng)
	n.read(b)
	in := &Input{Catalog: catalog, Rules: []Rules{n.rules()}}
	if got := Compare(in); len(got.Differences) > 0 || len(got.Families) != 1 {
		b.Fatalf("%d differences", len(got.Differences))
	}
	const one = 4711
	name := catalog.Services[one].Name
	changed := catalog.Next(&service.Change{Version: 2, Node: catalog.Node, Endpoints: map[service.Name][]service.PortEndpoints{name: threeEndpoints(one, 9090)}})
	nat := n.set.Table("nat")
	svc := kubeproxy.ServiceChain(service.PortName{Name: name, Port: "http", Protocol: service.TCP})

	b.Run("first", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			Compare(in)
		}
	})
	b.Run("nothing changed", func(b *testing.B) {
		var c Comparer
		c.Compare(in)
		b.ReportAllocs()
		for b.Loop() {
			c.Compare(in)
		}
	})
	b.Run("one Service changed in the API", func(b *testing.B) {
		var c Comparer
		c.Compare(in)
		b.ReportAllocs()
		odd := false
		for b.Loop() {
			now := *in
			if odd = !odd; odd {
				now.Catalog = changed
			}
			if got := c.Compare(&now); (len(got.Differences) > 0) != odd || len(got.Changed) != 1 {
				b.Fatalf("got %+v", got)
			}
		}
	})
	b.Run("one Service changed in the rules, by a sync", func(b *testing.B) {
		var c Comparer
		c.Compare(in)
		b.ReportAllocs()
		b.ResetTimer()
		for range b.N {
			b.StopTimer()
			n.view.Update(n.set, []ruleset.Delta{{Table: "nat", Changed: []*ruleset.Chain{nat.Chain("KUBE-SERVICES"), nat.Chain("KUBE-NODEPORTS"), nat.Chain(svc)}}})
			b.StartTimer()
			if got := c.Compare(in); len(got.Differences) > 0 {
				b.Fatalf("got %+v", got)
			}
		}
	})
	b.Run("kept", func(b *testing.B) {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		var c Comparer
		c.Compare(in)
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(int64(after.HeapAlloc-before.HeapAlloc))/(1<<20), "MiB-kept")
		runtime.KeepAlive(&c)
	})
}

// BenchmarkJudge is of a reading in which nothing differs, and of one in which each of 1,000
// endpoints does.
func BenchmarkJudge(b *testing.B) {
	for _, n := range []int{0, 1000} {
		b.Run(fmt.Sprintf("%d differences", n), func(b *testing.B) {
			result := &Result{Families: []netfilter.Family{netfilter.IPv4}}
			for i := range n {
				d := endpointMissing
				d.Port.Name.Name = fmt.Sprint(i)
				result.Differences = append(result.Differences, d)
			}
			j, now := NewJudge(0), start
			b.ReportAllocs()
			for b.Loop() {
				now = now.Add(15 * time.Second)
				j.Judge(&Reading{Time: now, Result: result, Current: true})
			}
		})
	}
}
