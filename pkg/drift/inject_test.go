// SPDX-License-Identifier: Apache-2.0

package drift

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/svcscope/svcscope/pkg/kubeproxy"
	"github.com/svcscope/svcscope/pkg/service"
)

// target is the Service that is damaged.
var target = service.PortName{Name: service.Name{Namespace: "shop", Name: "target"}, Port: "http", Protocol: service.TCP}

// addTarget has it in the API and the rules.
func (w *world) addTarget() {
	svc := &service.Service{
		Name: target.Name, Type: "NodePort", ClusterIPs: addrList("10.96.200.1"),
		Ports: []service.Port{{Name: target.Port, Protocol: target.Protocol, Port: 80, NodePort: 29999}},
	}
	next := w.api.Next(&service.Change{
		Version: w.api.Version + 1, Node: w.api.Node, Services: map[service.Name]*service.Service{svc.Name: svc},
		Endpoints: map[service.Name][]service.PortEndpoints{svc.Name: {{Port: target.Port, Protocol: target.Protocol, Endpoints: eps(w.t, "10.100.200.1:8080", "10.100.200.2:8080", "10.100.200.3:8080")}}},
	})
	w.publish(next, []service.Name{svc.Name})
}

// edit changes the lines of one chain; nil deletes it.
func (n *node) edit(table, chain string, edit func([]string) []string) {
	n.set1(table, chain, edit(slices.Clone(n.lines[table][chain])))
}

func empty([]string) []string { return []string{} }

// dropping deletes the lines with a part.
func dropping(part string) func([]string) []string {
	return func(lines []string) []string {
		return slices.DeleteFunc(lines, func(l string) bool { return strings.Contains(l, part) })
	}
}

// injected are faults in a node at work.
var injected = []struct {
	name string
	do   func(n *node)
	want []string
}{
	{"flush of nat", func(n *node) {
		for chain := range n.lines["nat"] {
			n.edit("nat", chain, empty)
		}
	}, []string{"jump_missing"}},
	{"flush of filter", func(n *node) {
		for chain := range n.lines["filter"] {
			n.edit("filter", chain, empty)
		}
	}, []string{"jump_missing"}},
	{"chain deleted", func(n *node) {
		svc := kubeproxy.ServiceChain(target)
		for chain := range n.lines["nat"] {
			n.edit("nat", chain, dropping("-j "+svc))
		}
		n.set1("nat", svc, nil)
	}, []string{"missing_chain shop/target:http"}},
	{"chain emptied", func(n *node) { n.edit("nat", kubeproxy.ServiceChain(target), empty) }, []string{"empty_chain shop/target:http"}},
	{"rule edited", func(n *node) {
		n.edit("nat", kubeproxy.ServiceChain(target), func(lines []string) []string {
			i := slices.IndexFunc(lines, func(l string) bool { return strings.Contains(l, "0.5000000000") })
			lines[i] = strings.Replace(lines[i], "0.5000000000", "0.9000000000", 1)
			return lines
		})
	}, []string{"wrong_probability shop/target:http"}},
	{"dispatch rule edited", func(n *node) {
		n.edit("nat", "KUBE-SERVICES", func(lines []string) []string {
			i := slices.IndexFunc(lines, func(l string) bool { return strings.Contains(l, "10.96.200.1") })
			lines[i] = lines[i][:strings.Index(lines[i], "-j ")] + "-j " + kubeproxy.ExternalChain(target)
			return lines
		})
	}, []string{"wrong_target shop/target:http cluster"}},
	{"endpoint rule removed", func(n *node) { n.edit("nat", kubeproxy.ServiceChain(target), dropping("10.100.200.2")) }, []string{"missing_endpoint shop/target:http"}},
	{"endpoint rule added", func(n *node) {
		n.edit("nat", kubeproxy.ServiceChain(target), func(lines []string) []string { return append([]string{"-j KUBE-SEP-ABCDEFGHABCDEFGH"}, lines...) })
	}, []string{"extra_endpoint shop/target:http"}},
	{"REJECT left behind", func(n *node) {
		n.edit("filter", "KUBE-SERVICES", func(lines []string) []string {
			return append(lines, `-m comment --comment "shop/target:http has no endpoints" -m tcp -p tcp -d 10.96.200.1 --dport 80 -j REJECT`)
		})
	}, []string{"rejecting_with_endpoints shop/target:http cluster"}},
	{"jump removed", func(n *node) { n.edit("nat", "PREROUTING", empty) }, []string{"jump_missing"}},
	{"ACCEPT put above", func(n *node) {
		n.edit("nat", "PREROUTING", func(lines []string) []string { return append([]string{"-d 10.96.200.1/32 -j ACCEPT"}, lines...) })
	}, []string{"jump_shadowed"}},
	{"node ports emptied", func(n *node) { n.edit("nat", "KUBE-NODEPORTS", empty) }, []string{"empty_chain"}},
	{"everything is masqueraded", func(n *node) { n.edit("nat", "KUBE-POSTROUTING", dropping("RETURN")) }, []string{"masquerade_missing"}},
	{"masquerade removed", func(n *node) { n.edit("nat", "KUBE-POSTROUTING", dropping("MASQUERADE")) }, []string{"masquerade_missing"}},
}

// TestInjectedFaults: each fault is told by its kind, and by no other, within two intervals
// and the grace, while kube-proxy goes on syncing other Services; and ends when it is
// repaired. kube-proxy's next sync repairs what it rewrites at every sync: then there is
// no other Service to sync.
func TestInjectedFaults(t *testing.T) {
	const interval = 15 * time.Second
	for _, tt := range injected {
		for _, churning := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/churn %v", tt.name, churning), func(t *testing.T) {
				w := newWorld(t, 7, 8)
				w.addTarget()
				every := func(times int, ok func(*Verdict)) {
					for range times {
						w.run(interval)
						w.read(ok)
					}
				}
				every(4, w.none)
				shared := slices.ContainsFunc([]string{"dispatch rule edited", "REJECT left behind", "masquerade removed", "everything is masqueraded", "node ports emptied", "flush of filter", "chain deleted"}, func(s string) bool { return s == tt.name })
				if churning && !shared {
					w.churn(10*time.Minute, 30*time.Second)
					every(2, w.none)
				}
				before := map[string]chains{"nat": {}, "filter": {}}
				for table, all := range w.node.lines {
					for chain, lines := range all {
						if !strings.HasPrefix(chain, "KUBE-") {
							before[table][chain] = lines
						}
					}
				}
				tt.do(w.node)
				var got []string
				every(3, func(v *Verdict) {
					var ds []Difference
					for _, d := range v.Drifts {
						ds = append(ds, d.Difference)
					}
					got = describe(ds)
				})
				if diff := cmp.Diff(tt.want, got); diff != "" {
					t.Errorf("(-want +got)\n%s", diff)
				}
				for table, all := range before { // a full sync, after which the jumps are there
					for chain, lines := range all {
						w.node.set1(table, chain, lines)
					}
				}
				w.proxy.full = true
				w.sync()
				every(2, func(*Verdict) {})
				every(4, w.none)
			})
		}
	}
}
