// SPDX-License-Identifier: Apache-2.0

package drift

import (
	"slices"
	"strconv"

	"github.com/svcscope/svcscope/pkg/kubeproxy"
	"github.com/svcscope/svcscope/pkg/ruleset"
	"github.com/svcscope/svcscope/pkg/service"
)

// check compares one port.
type check struct {
	side *side
	port *port
	want Expected
	// chains are the port's; all nil where it has none.
	chains kubeproxy.PortChains
	// dispatch and refusals are the rules about the port in chains of all Services.
	dispatch []*kubeproxy.Dispatch
	refusals []*kubeproxy.Refusal
	found    []finding
	// refused: packets to some address are refused that should not be, and open: to
	// some that should be they are not. What nat has otherwise then comes of the same.
	refused, open bool
	external      externals
}

// check compares a port and notes what was found in it.
func (s *side) check(p *port) {
	p.found, p.external = nil, externals{}
	c := s.intent.catalog
	at := &p.service.Ports[p.index]
	eps := c.EndpointsOf(p.service.PortName(at), s.ipv6())
	if Undecided(eps) || (s.intent.nodeMissing || c.Node.Name == "") && NeedsNode(p.service, at, eps, s.ipv6()) {
		return // which endpoints this node should have is not known
	}
	want, ok := Expect(c, p.service, at, s.ipv6())
	if !ok {
		return
	}
	k := check{side: s, port: p, want: want}
	if p.chains != nil {
		k.chains = *p.chains
	}
	for i := p.dispatch; i >= 0; i = s.nextDispatch[i] {
		k.dispatch = append(k.dispatch, &s.view.Dispatch[i])
	}
	for i := p.refusal; i >= 0; i = s.nextRefusal[i] {
		k.refusals = append(k.refusals, &s.view.Refusals[i])
	}
	k.frontends()
	k.ranges()
	k.shared()
	k.outside()
	k.balances()
	if want.HealthCheck != 0 && !p.health {
		k.add(finding{
			kind: MissingDispatch, frontend: service.LoadBalancerFrontend, inFlight: true,
			in:     sharedChain("filter", nodePortsChain()),
			detail: "health checks at port " + strconv.Itoa(int(want.HealthCheck)),
		})
	}
	p.found, p.external = k.found, k.external
}

func (c *check) add(f finding) { c.found = append(c.found, f) }

// frontends compares what becomes of packets to each address.
func (c *check) frontends() {
	for i := range c.want.Frontends {
		f := &c.want.Frontends[i]
		reason, in := c.refusal(f)
		if f.Kind == kubeproxy.ExternalIP && !c.balanced(f) {
			c.external.wanted++
			if l := c.leads(f); reason != "" || l.right || l.wrong != nil {
				c.external.known++
			}
		}
		switch {
		case reason == f.Refusal:
		case reason == kubeproxy.NoEndpoints || f.Refusal == "":
			c.refused = true
			c.add(finding{kind: RejectingWithEndpoints, frontend: label(f.Kind), detail: reached(&f.Frontend), inFlight: true, in: in})
		default:
			c.open = true
			c.add(finding{kind: NotRejectingWithoutEndpoints, frontend: label(f.Kind), detail: reached(&f.Frontend), inFlight: true, in: in})
		}
	}
	for i := range c.want.Frontends {
		if f := &c.want.Frontends[i]; f.To != kubeproxy.KindOther && !c.refused {
			c.dispatched(f)
		}
	}
	for _, d := range c.dispatch {
		if !c.open && c.extra(d) {
			c.add(finding{kind: ExtraDispatch, frontend: label(d.Frontend.Kind), detail: reached(&d.Frontend) + " → " + d.Rule.Action.Chain, inFlight: true})
		}
	}
}

// balanced reports whether an external IP is the load balancer's, too, so that rules do not
// tell which of the two they are for.
func (c *check) balanced(f *Frontend) bool {
	return slices.ContainsFunc(c.want.Frontends, func(g Frontend) bool {
		return g.Kind == kubeproxy.LoadBalancerIP && g.Addr == f.Addr
	})
}

// refusal is why filter refuses packets to f: by what the rule does, not by what its
// comment says. in is the chain of that rule, or the one in which it would be.
func (c *check) refusal(f *Frontend) (why kubeproxy.Reason, in string) {
	for _, r := range c.refusals {
		if r.Reason == kubeproxy.SourceRange || !plain(r.Rule) || !same(&r.Frontend, &f.Frontend) {
			continue
		}
		in = sharedChain("filter", r.Chain.Name)
		if r.Rule.Action.Kind == ruleset.Reject {
			return kubeproxy.NoEndpoints, in
		}
		return kubeproxy.NoLocalEndpoints, in
	}
	if f.Kind == kubeproxy.ClusterIP {
		return "", sharedChain("filter", servicesChain())
	}
	return "", sharedChain("filter", externalServicesChain())
}

// same reports whether two are one address and port, or one node port.
func same(a, b *kubeproxy.Frontend) bool {
	return a.Addr == b.Addr && a.Port == b.Port && a.Protocol == b.Protocol &&
		(a.Addr.IsValid() || a.Kind == kubeproxy.NodePort && b.Kind == kubeproxy.NodePort)
}

// lead is where nat sends packets to an address.
type lead struct {
	right bool                // a rule leads where it should
	wrong *kubeproxy.Dispatch // one that does not; nil without any
}

// leads finds where nat sends packets to f. A rule with further conditions counts for
// nothing where it leads to the right chain, as the one for 127.0.0.0/8 does that
// kube-proxy has with --iptables-localhost-nodeports.
func (c *check) leads(f *Frontend) (l lead) {
	for _, d := range c.dispatch {
		if !same(&d.Frontend, &f.Frontend) {
			continue
		}
		right := d.Hash == c.want.Hash && d.Target == f.To
		switch {
		case right && plain(d.Rule):
			l.right = true
		case !right && l.wrong == nil && !c.rightForOther(d):
			l.wrong = d
		}
	}
	return l
}

// rightForOther reports whether a rule is another frontend's of the same address: it may
// be an external IP and the load balancer's, and is then in two rules.
func (c *check) rightForOther(d *kubeproxy.Dispatch) bool {
	return d.Hash == c.want.Hash && slices.ContainsFunc(c.want.Frontends, func(f Frontend) bool {
		return same(&d.Frontend, &f.Frontend) && d.Target == f.To
	})
}

// extra reports whether a rule should not be there. Releases before 1.30 have rules for
// a load balancer's addresses with ipMode Proxy.
func (c *check) extra(d *kubeproxy.Dispatch) bool {
	if d.Frontend.Kind == kubeproxy.LoadBalancerIP && slices.Contains(c.port.service.ProxyModeIPs, d.Frontend.Addr) {
		return false
	}
	for i := range c.want.Frontends {
		f := &c.want.Frontends[i]
		if f.To == kubeproxy.KindOther || !same(&d.Frontend, &f.Frontend) {
			continue
		}
		// In place of the right rule it is that one's fault, told by dispatched.
		if d.Hash == c.want.Hash && d.Target == f.To || c.explained(f, d) || !c.leads(f).right {
			return false
		}
	}
	return true
}

// dispatched compares where nat sends packets to f.
func (c *check) dispatched(f *Frontend) {
	l := c.leads(f)
	switch {
	case l.right:
	case l.wrong == nil:
		if c.chain(f.To) != nil { // else nothing can lead there
			in := servicesChain()
			if f.Kind == kubeproxy.NodePort {
				in = nodePortsChain()
			}
			c.add(finding{kind: MissingDispatch, frontend: label(f.Kind), detail: reached(&f.Frontend), inFlight: true, in: sharedChain("nat", in)})
		}
	case c.explained(f, l.wrong):
	default:
		c.add(finding{kind: WrongTarget, frontend: label(f.Kind), detail: reached(&f.Frontend) + " → " + l.wrong.Rule.Action.Chain, inFlight: true})
	}
}

// explained reports whether a rule that leads to the other of KUBE-EXT and KUBE-FW is
// told as what it does to source ranges, or does nothing: releases up to 1.33 have a
// KUBE-FW for a range that holds every address.
func (c *check) explained(f *Frontend, d *kubeproxy.Dispatch) bool {
	if d.Hash != c.want.Hash || !plain(d.Rule) {
		return false
	}
	if f.To == kubeproxy.KindFirewall {
		return d.Target == kubeproxy.KindExternal
	}
	return f.To == kubeproxy.KindExternal && f.Kind == kubeproxy.LoadBalancerIP && d.Target == kubeproxy.KindFirewall &&
		c.lets(c.chains.Firewall)
}

// chain is the port's chain of a kind, or nil.
func (c *check) chain(k kubeproxy.Kind) *ruleset.Chain {
	switch k {
	case kubeproxy.KindService:
		return c.chains.Service
	case kubeproxy.KindLocal:
		return c.chains.Local
	case kubeproxy.KindExternal:
		return c.chains.External
	case kubeproxy.KindFirewall:
		return c.chains.Firewall
	}
	return nil
}
