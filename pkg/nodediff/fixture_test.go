// SPDX-License-Identifier: Apache-2.0

package nodediff

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/svcscope/svcscope/pkg/capture"
	"github.com/svcscope/svcscope/pkg/internal/iptsave"
	"github.com/svcscope/svcscope/pkg/internal/realcluster"
	"github.com/svcscope/svcscope/pkg/kubeproxy"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/ruleset"
	"github.com/svcscope/svcscope/pkg/service"
)

// realNode is a node of the lab, whose rules in one backend were changed as text.
func realNode(t testing.TB, b ruleset.Backend, change func(string) string) *capture.Node {
	t.Helper()
	c, err := realcluster.Catalog()
	if err != nil {
		t.Fatal(err)
	}
	n := &capture.Node{
		Name: "node1", Time: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), Kernel: "6.18.0", Catalog: c,
		Sysctls: map[string]string{"net.ipv4.ip_forward": "1", "net.ipv4.conf.all.rp_filter": "0"},
	}
	for _, r := range realcluster.All() {
		if r.Backend != b {
			continue
		}
		text, err := r.Text()
		if err != nil {
			t.Fatal(err)
		}
		if change != nil {
			text = change(text)
		}
		n.Rules = append(n.Rules, capture.Rules{Set: parsed(t, r.Family, b, text)})
	}
	return n
}

func parsed(t testing.TB, f netfilter.Family, b ruleset.Backend, text string) *ruleset.Ruleset {
	t.Helper()
	set, err := iptsave.Parse(f, b, text)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return set
}

// told are all differences, a line each.
func told(r *Report) []string {
	var all []string
	add := func(of string, d *Difference) {
		line := fmt.Sprintf("%s: %s %s: %q, %q", of, d.What, d.Object, d.A, d.B)
		if d.Explained != "" {
			line += " by " + string(d.Explained)
		}
		all = append(all, line)
	}
	for i := range r.Node {
		add("node", &r.Node[i])
	}
	for i := range r.Services {
		s := &r.Services[i]
		of := strings.TrimSuffix(s.Namespace+"/"+s.Name+":"+s.PortName, ":") + " " + s.IPFamily
		for j := range s.Differences {
			add(of, &s.Differences[j])
		}
	}
	return all
}

// compared are the differences of two nodes.
func compared(t testing.TB, a, b *capture.Node, sel Selection) (all []string, same bool) {
	t.Helper()
	r, err := Compare(a, b, sel)
	if err != nil {
		t.Fatal(err)
	}
	return told(r), r.Same
}

// The Service of a cluster of two nodes, each with one endpoint, whose external traffic
// stays on the node.
var (
	local    = service.PortName{Name: service.Name{Namespace: "shop", Name: "web"}, Port: "http", Protocol: service.TCP}
	endpoint = map[string]netip.AddrPort{
		"node-a": netip.MustParseAddrPort("10.77.1.2:8080"), "node-b": netip.MustParseAddrPort("10.77.2.2:8080"),
	}
)

// twoNodes is a node of that cluster as its kube-proxy would write it, where these nodes
// have an endpoint that is ready.
func twoNodes(t testing.TB, name string, ready ...string) *capture.Node {
	t.Helper()
	return edited(t, func(s string) string { return s }, name, ready...)
}

// edited is such a node whose rules were changed as text.
func edited(t testing.TB, change func(string) string, name string, ready ...string) *capture.Node {
	t.Helper()
	c := &service.Catalog{
		Synced: true,
		Node: service.Node{
			Name: name, IPs: []netip.Addr{netip.AddrFrom4([4]byte{192, 0, 2, name[len(name)-1]})},
			PodRanges: []netip.Prefix{netip.PrefixFrom(endpoint[name].Addr(), 24).Masked()},
		},
		Services: []*service.Service{{
			Name: local.Name, Type: "NodePort", ClusterIPs: []netip.Addr{netip.MustParseAddr("10.96.0.10")}, ExternalLocal: true,
			Ports: []service.Port{{Name: local.Port, Protocol: local.Protocol, Port: 80, NodePort: 30080}},
		}},
		Endpoints: map[service.PortName][]service.Endpoint{},
	}
	var mine, all []netip.AddrPort
	for _, n := range ready {
		c.Endpoints[local] = append(c.Endpoints[local], service.Endpoint{Addr: endpoint[n], Ready: true, Serving: true, NodeName: n})
		if all = append(all, endpoint[n]); n == name {
			mine = append(mine, endpoint[n])
		}
	}
	return &capture.Node{
		Name: name, Catalog: c, Kernel: "6.18.0",
		Rules: []capture.Rules{{Set: parsed(t, netfilter.IPv4, ruleset.NFT, change(twoNodesRules(c, all, mine)))}},
	}
}

// twoNodesRules is what kube-proxy writes for local.
func twoNodesRules(c *service.Catalog, all, mine []netip.AddrPort) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	svc, svl, ext := kubeproxy.ServiceChain(local), kubeproxy.LocalChain(local), kubeproxy.ExternalChain(local)
	line("*filter")
	for _, chain := range []string{"INPUT", "FORWARD", "OUTPUT"} {
		line(":%s ACCEPT [0:0]", chain)
	}
	for _, chain := range []string{"KUBE-SERVICES", "KUBE-EXTERNAL-SERVICES", "KUBE-NODEPORTS", "KUBE-FORWARD", "KUBE-PROXY-FIREWALL"} {
		line(":%s - [0:0]", chain)
	}
	for _, jump := range kubeproxy.BaseJumps() {
		if jump.Table == "filter" {
			line("-A %s -j %s", jump.Hook, jump.Chain)
		}
	}
	line("-A KUBE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT")
	if len(mine) == 0 {
		line(`-A KUBE-EXTERNAL-SERVICES -p tcp -m comment --comment "%s has no local endpoints" -m addrtype --dst-type LOCAL -m tcp --dport 30080 -j DROP`, local)
	}
	line("COMMIT\n*nat\n:PREROUTING ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]")
	for _, chain := range []string{"KUBE-SERVICES", "KUBE-NODEPORTS", "KUBE-MARK-MASQ", "KUBE-POSTROUTING", svc, ext} {
		line(":%s - [0:0]", chain)
	}
	if len(mine) > 0 {
		line(":%s - [0:0]", svl)
	}
	for _, e := range all {
		line(":%s - [0:0]", kubeproxy.EndpointChain(local, e))
	}
	for _, jump := range kubeproxy.BaseJumps() {
		if jump.Table == "nat" {
			line("-A %s -j %s", jump.Hook, jump.Chain)
		}
	}
	line("-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000\n-A KUBE-POSTROUTING -m mark --mark 0x4000/0x4000 -j MASQUERADE")
	line(`-A KUBE-SERVICES -d 10.96.0.10/32 -p tcp -m comment --comment "%s cluster IP" -m tcp --dport 80 -j %s`, local, svc)
	line(`-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS`)
	line(`-A KUBE-NODEPORTS -p tcp -m comment --comment %s -m tcp --dport 30080 -j %s`, local, ext)
	line(`-A %s -s %s -m comment --comment "pod traffic for %s external destinations" -j %s`, ext, c.Node.PodRanges[0], local, svc)
	line(`-A %s -m comment --comment "masquerade LOCAL traffic for %s external destinations" -m addrtype --src-type LOCAL -j KUBE-MARK-MASQ`, ext, local)
	line(`-A %s -m comment --comment "route LOCAL traffic for %s external destinations" -m addrtype --src-type LOCAL -j %s`, ext, local, svc)
	if len(mine) > 0 {
		line("-A %s -j %s", ext, svl)
	}
	for chain, of := range map[string][]netip.AddrPort{svc: all, svl: mine} {
		for i, e := range of {
			random := ""
			if left := len(of) - i; left > 1 {
				random = fmt.Sprintf("-m statistic --mode random --probability %.11f ", 1/float64(left))
			}
			line(`-A %s -m comment --comment "%s -> %s" %s-j %s`, chain, local, e, random, kubeproxy.EndpointChain(local, e))
		}
	}
	for _, e := range all {
		line("-A %s -s %s/32 -j KUBE-MARK-MASQ", kubeproxy.EndpointChain(local, e), e.Addr())
		line("-A %s -p tcp -m tcp -j DNAT --to-destination %s", kubeproxy.EndpointChain(local, e), e)
	}
	line("COMMIT")
	return b.String()
}
