// SPDX-License-Identifier: Apache-2.0

package kubeproxy

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/ruleset"
)

func TestEndpointRules(t *testing.T) {
	const dispatch = "-A KUBE-SVC-" + webHash + " -j " + sep + "\n"
	to := netip.MustParseAddrPort("10.180.0.1:80")
	tests := []struct {
		name, rules string
		want        EndpointRules
	}{
		{"as kube-proxy writes it", "-A " + sep + " -s 10.180.0.1/32 -j KUBE-MARK-MASQ\n-A " + sep + " -p tcp -m tcp -j DNAT --to-destination 10.180.0.1:80\n", EndpointRules{To: to, Rules: 2, Hairpin: true}},
		{
			"with affinity", "-A " + sep + " -s 10.180.0.1/32 -j KUBE-MARK-MASQ\n-A " + sep + " -p tcp -m recent --set --name " + sep + " --rsource -m tcp -j DNAT --to-destination 10.180.0.1:80\n",
			EndpointRules{To: to, Rules: 2, Hairpin: true, Remembers: true},
		},
		{"with another list", "-A " + sep + " -p tcp -m recent --set --name other --rsource -m tcp -j DNAT --to-destination 10.180.0.1:80\n", EndpointRules{To: to, Rules: 1}},
		{"without DNAT", "-A " + sep + " -s 10.180.0.1/32 -j KUBE-MARK-MASQ\n", EndpointRules{Rules: 1, Hairpin: true}},
		{"empty", "", EndpointRules{}},
		{"a rule before DNAT ends packets", "-A " + sep + " -s 10.1.0.0/16 -j ACCEPT\n-A " + sep + " -p tcp -m tcp -j DNAT --to-destination 10.180.0.1:80\n", EndpointRules{To: to, Rules: 2, Cut: true}},
		{"DNAT asks for more", "-A " + sep + " -p tcp -m tcp --sport 7 -j DNAT --to-destination 10.180.0.1:80\n", EndpointRules{To: to, Rules: 1, Cut: true}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v := NewView(parse(t, netfilter.IPv4, nat(dispatch+tt.rules)))
			got, ok := v.EndpointRules(sep)
			if diff := cmp.Diff(tt.want, got, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" || !ok {
				t.Errorf("known %v (-want +got)\n%s", ok, diff)
			}
		})
	}
	v := NewView(parse(t, netfilter.IPv4, nat("-A KUBE-SERVICES -j KUBE-SVC-"+webHash+"\n")))
	if got, ok := v.EndpointRules(sep); ok {
		t.Errorf("of a chain that is not there: got %+v", got)
	}
}

// TestAPortIsReplacedWithItsEndpointsChains: whoever keeps PortChains sees by the pointer
// that the rules of an endpoint are others.
func TestAPortIsReplacedWithItsEndpointsChains(t *testing.T) {
	const text = "-A KUBE-SVC-" + webHash + " -j " + sep + "\n-A " + sep + " -p tcp -m tcp -j DNAT --to-destination 10.180.0.1:80\n"
	rs := parse(t, netfilter.IPv4, nat(text))
	v := NewView(rs)
	before := v.Ports[webHash]
	edited := parse(t, netfilter.IPv4, nat("-A KUBE-SVC-"+webHash+" -j "+sep+"\n-A "+sep+" -p tcp -m tcp -j DNAT --to-destination 10.180.0.9:80\n")).Table("nat").Chain(sep)
	chains := []*ruleset.Chain{}
	for _, c := range rs.Table("nat").Chains {
		if c.Name == sep {
			c = edited
		}
		chains = append(chains, c)
	}
	rs.Tables = []*ruleset.Table{ruleset.NewTable("nat", 0, chains)}
	v.Update(rs, []ruleset.Delta{{Table: "nat", Changed: []*ruleset.Chain{edited}}})
	after := v.Ports[webHash]
	if after == before || after.Endpoints[0].SEP != edited || after.Endpoints[0].Addr != netip.MustParseAddrPort("10.180.0.9:80") {
		t.Errorf("got %+v", after.Endpoints)
	}
}

// TestAnEndpointsChainIsStale: affinity that comes tells that a chain whose rules are not kept
// was written anew.
func TestAnEndpointsChainIsStale(t *testing.T) {
	const head = "-A KUBE-SVC-" + webHash
	const dnat = "-A " + sep + " -p tcp -m tcp -j DNAT --to-destination 10.180.0.1:80\n"
	rs := parse(t, netfilter.IPv4, nat(head+" -j "+sep+"\n"+dnat))
	v := NewView(rs)
	chain := rs.Table("nat").Chain(sep)
	chain.Rules, chain.Unread = nil, true
	now := parse(t, netfilter.IPv4, nat(head+" -m recent --rcheck --seconds 600 --reap --name "+sep+" --rsource -j "+sep+"\n"+head+" -j "+sep+"\n"))
	service := now.Table("nat").Chain("KUBE-SVC-" + webHash)
	update := func(changed *ruleset.Chain) {
		t.Helper()
		var chains []*ruleset.Chain
		for _, c := range rs.Table("nat").Chains {
			if c.Name == changed.Name {
				c = changed
			}
			chains = append(chains, c)
		}
		rs.Tables = []*ruleset.Table{ruleset.NewTable("nat", 0, chains)}
		v.Update(rs, []ruleset.Delta{{Table: "nat", Changed: []*ruleset.Chain{changed}}})
	}
	update(service)
	if got, ok := v.EndpointRules(sep); ok || !v.Stale(sep) {
		t.Errorf("of a chain that was written anew: got %+v", got)
	}
	if v.Address(sep) != netip.MustParseAddrPort("10.180.0.1:80") {
		t.Errorf("its address is forgotten")
	}
	update(parse(t, netfilter.IPv4, nat(head+" -j "+sep+"\n"+dnat)).Table("nat").Chain(sep))
	if got, ok := v.EndpointRules(sep); !ok || v.Stale(sep) || got.Remembers {
		t.Errorf("read again: known %v, got %+v", ok, got)
	}
}
