// SPDX-License-Identifier: Apache-2.0

package correlate

import (
	"maps"
	"net/netip"

	"github.com/svcscope/svcscope/pkg/kubeproxy"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/policy"
	"github.com/svcscope/svcscope/pkg/ruleset"
	"github.com/svcscope/svcscope/pkg/service"
)

// Way is one way to a Service's port: an address, or a node port where Addr is the
// unspecified address of the family (0.0.0.0, ::).
type Way struct {
	Addr     netip.Addr
	Protocol uint8 // IPPROTO_*
	Port     uint16
}

// TapPort is whose a way is.
type TapPort struct {
	service.PortName
	Family   Family
	External bool // a node port, external or load-balancer address
}

// TapRefusal is a way by which a rule refuses packets.
type TapRefusal struct {
	Way
	Port   service.PortName // the zero value where no name is known
	Reason Reason
	Table  string
	Chain  string
	// Hooks are those that lead to the rule.
	Hooks ruleset.Hooks
	// Early: the rule is before the filter table's chains, and sees where packets were sent
	// before any translation (kube-proxy's nftables mode before Kubernetes 1.34).
	Early bool
	// Uncounted: the rule has no counter (kube-proxy's nftables mode).
	Uncounted bool
	// Sources are those that are let pass, where Reason is SourceRange and this mode's.
	Sources []kubeproxy.AddrRange
}

// ofRanges reports whether the source of a packet decides, which the way does not tell.
func (r *TapRefusal) ofRanges() bool { return r.Uncounted && r.Reason == SourceRange }

// Here reports whether the rule refuses packets of this host itself.
func (r *TapRefusal) Here() bool { return r.Hooks.Has(netfilter.HookOutput) }

// TapRefusals finds the ways by which kube-proxy's rules refuse packets of a family, of a view
// in either mode; known is of iptables' rules alone. Where several rules
// refuse those of one way, the first is it. A rule that nothing leads to refuses nothing. In the
// nftables mode a way may be subject to source ranges, and be refused to all that pass
// these.
func TapRefusals(v *kubeproxy.View, known *policy.Refusals, names *Names) []TapRefusal {
	type refusing struct {
		Way
		ranges bool
	}
	var all []TapRefusal
	seen := make(map[refusing]struct{})
	for i := range v.Refusals {
		r := tapRefusal(v, &v.Refusals[i], known, names)
		if r.Hooks == 0 {
			continue
		}
		for _, r.Way = range refusedWays(v, &v.Refusals[i]) {
			key := refusing{r.Way, r.ofRanges()}
			if _, twice := seen[key]; twice {
				continue
			}
			seen[key] = struct{}{}
			if r.ofRanges() && r.Sources == nil { // whom it is open to is not known
				continue
			}
			all = append(all, r)
		}
	}
	return all
}

// tapRefusal is what a rule tells, whatever the way.
func tapRefusal(v *kubeproxy.View, f *kubeproxy.Refusal, known *policy.Refusals, names *Names) TapRefusal {
	native := v.Native != nil
	r := TapRefusal{
		Reason: Reason(f.Reason), Table: f.Table, Chain: f.Chain.Name, Hooks: f.Hooks,
		Early: f.Priority < 0, Uncounted: native,
	}
	if !native {
		r.Hooks = known.Hooks(f.Table, f.Chain.Name)
	}
	if p := v.Ports[f.Hash]; r.ofRanges() && p != nil && p.Native != nil {
		r.Sources = p.Native.Sources
	}
	if name, ok := names.refusal(f); ok {
		r.Port = name
	}
	return r
}

// refusedWays are those that a rule of the filter table, or of the nftables mode's, refuses;
// one of nat marks packets, and what becomes of them another rule tells. The nftables mode
// looks packets to node ports up where they are sent to some of the node's addresses, or to
// any of them.
func refusedWays(v *kubeproxy.View, f *kubeproxy.Refusal) []Way {
	w := Way{Addr: f.Frontend.Addr, Protocol: f.Frontend.Protocol.Number(), Port: f.Frontend.Port}
	if f.Table == "nat" || w.Protocol == 0 || w.Port == 0 {
		return nil
	}
	if f.Frontend.Kind == kubeproxy.NodePort {
		if n := v.Native; n != nil && !n.AnyNodePortIP {
			return waysOf(w, n.NodePortIPs)
		}
		w.Addr = unspecified(v.Family)
	}
	if !w.Addr.IsValid() {
		return nil
	}
	return []Way{w}
}

// waysOf are the same at each of some addresses.
func waysOf(w Way, addrs []netip.Addr) []Way {
	all := make([]Way, len(addrs))
	for i, a := range addrs {
		all[i] = Way{a, w.Protocol, w.Port}
	}
	return all
}

func unspecified(family Family) netip.Addr {
	if family == netfilter.IPv6 {
		return netip.IPv6Unspecified()
	}
	return netip.IPv4Unspecified()
}

// TapPlan says what a tap counts, and whose it is. It does not change.
type TapPlan struct {
	Services map[Way]TapPort
	Refused  map[Way]TapRefusal
	// Ranges are ways that are refused to some sources: of the nftables mode.
	Ranges map[Way]TapRefusal
}

// NewTapPlan plans to count all that kube-proxy serves: the Services of the API, or
// of the rows where it is not known.
func NewTapPlan(c *service.Catalog, rows []*ServicePort, refusals []TapRefusal) *TapPlan {
	p := &TapPlan{Services: make(map[Way]TapPort), Refused: make(map[Way]TapRefusal, len(refusals)), Ranges: make(map[Way]TapRefusal)}
	for _, svc := range flowCatalog(c, rows).Services {
		for _, f := range families(svc) {
			for i := range svc.Ports {
				p.port(svc, &svc.Ports[i], f)
			}
		}
	}
	for _, r := range refusals {
		if r.ofRanges() {
			p.Ranges[r.Way] = r
		} else {
			p.Refused[r.Way] = r
		}
	}
	return p
}

// port adds the ways to a port in one family. One that two Services have is that of the
// first, as in service.Catalog.
func (p *TapPlan) port(svc *service.Service, port *service.Port, f Family) {
	add := func(a netip.Addr, number uint16, external bool) {
		w := Way{Addr: a, Protocol: port.Protocol.Number(), Port: number}
		old, taken := p.Services[w]
		if w.Protocol == 0 || taken && (!old.External || external) { // a cluster IP goes before the others
			return
		}
		p.Services[w] = TapPort{PortName: svc.PortName(port), Family: f, External: external}
	}
	v6 := f == netfilter.IPv6
	add(svc.ClusterIP(v6), port.Port, false)
	for _, list := range [][]netip.Addr{svc.ExternalIPs, svc.LoadBalancerIPs} {
		for _, a := range list {
			if a.Is6() == v6 {
				add(a, port.Port, true)
			}
		}
	}
	if port.NodePort != 0 {
		add(unspecified(f), port.NodePort, true)
	}
}

// SourceTap is a table of the agent's own.
const SourceTap DropSource = "tap"

// refused finds the refusal of packets to an address; ranges: on account of their source.
func (p *TapPlan) refused(to netip.AddrPort, protocol uint8, ranges bool) (r TapRefusal, ok bool) {
	w := Way{Addr: to.Addr(), Protocol: protocol, Port: to.Port()}
	if ranges {
		r, ok = p.Ranges[w]
		return r, ok
	}
	if r, ok = p.Refused[w]; ok {
		return r, true
	}
	w.Addr = netip.IPv4Unspecified()
	if to.Addr().Is6() {
		w.Addr = netip.IPv6Unspecified()
	}
	r, ok = p.Refused[w]
	return r, ok
}

// Keeps returns the plan with what another one has refused, too: packets that were
// logged by that are still to be read.
func (p *TapPlan) Keeps(old *TapPlan) *TapPlan {
	both := func(old, now map[Way]TapRefusal) map[Way]TapRefusal {
		all := make(map[Way]TapRefusal, len(old)+len(now))
		maps.Copy(all, old)
		maps.Copy(all, now)
		return all
	}
	return &TapPlan{Services: p.Services, Refused: both(old.Refused, p.Refused), Ranges: both(old.Ranges, p.Ranges)}
}

// dropRule is what is told of a packet that the tap has logged.
func (r *TapRefusal) dropRule(group uint16, hook string) *DropRule {
	return &DropRule{
		Source: SourceTap, Group: group, Hook: hook, Refused: true, Table: r.Table, Chain: r.Chain,
		Refuser: policy.Refuser{Owner: policy.KubeProxy, Reason: policy.Reason(r.Reason)},
	}
}
