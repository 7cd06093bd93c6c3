// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/svcscope/svcscope/pkg/drift"
	"github.com/svcscope/svcscope/pkg/kubeproxy"
	"github.com/svcscope/svcscope/pkg/ruleset"
	"github.com/svcscope/svcscope/pkg/service"
)

// entry is a way to the port, with what is about it.
type entry struct {
	at       kubeproxy.Frontend
	want     *drift.Frontend // nil where the API does not have it, or is not known
	dispatch []*kubeproxy.Dispatch
	refusals []*kubeproxy.Refusal
}

// findEntries lists the ways that the API has, in its order, and then those that rules
// alone have.
func (p *pathBuilder) findEntries() {
	p.entries = nil
	if p.want != nil {
		for i := range p.want.Frontends {
			f := &p.want.Frontends[i]
			p.entries = append(p.entries, entry{at: f.Frontend, want: f})
		}
	}
	known := len(p.entries)
	if p.side != nil {
		v := p.side.view
		for i := range v.Dispatch {
			if e := p.find(&v.Dispatch[i].Frontend, v.Dispatch[i].Hash); e != nil {
				e.dispatch = append(e.dispatch, &v.Dispatch[i])
			}
		}
		for i := range v.Refusals {
			r := &v.Refusals[i]
			if r.Table != filter { // Kubernetes 1.24: in the port's own chains
				continue
			}
			if e := p.find(&r.Frontend, r.Hash); e != nil {
				e.refusals = append(e.refusals, r)
			}
		}
	}
	slices.SortStableFunc(p.entries[known:], func(a, b entry) int {
		return cmp.Or(cmp.Compare(order(a.at.Kind), order(b.at.Kind)), a.at.Addr.Compare(b.at.Addr), cmp.Compare(a.at.Port, b.at.Port))
	})
}

// order is that of drift.Expected.Frontends; unknown ones come last.
func order(k kubeproxy.FrontendKind) int {
	if k == kubeproxy.UnknownFrontend {
		return int(kubeproxy.NodePort) + 1
	}
	return int(k)
}

// find returns the entry that a rule is about: by its address, and by its kind where an
// address has two. A rule of the port that is about no entry known makes one; nil for
// rules of others.
func (p *pathBuilder) find(f *kubeproxy.Frontend, hash string) *entry {
	var found *entry
	for i := range p.entries {
		e := &p.entries[i]
		if !sameWay(&e.at, f) {
			continue
		}
		if e.at.Kind == f.Kind {
			return e
		}
		if found == nil {
			found = e
		}
	}
	if found != nil || hash != p.hash {
		return found
	}
	p.entries = append(p.entries, entry{at: *f})
	return &p.entries[len(p.entries)-1]
}

// sameWay reports whether two are one address and port, or one node port.
func sameWay(a, b *kubeproxy.Frontend) bool {
	return a.Addr == b.Addr && a.Port == b.Port && a.Protocol == b.Protocol &&
		(a.Addr.IsValid() || (a.Kind == kubeproxy.NodePort) == (b.Kind == kubeproxy.NodePort))
}

// entry describes one way.
func (p *pathBuilder) entry(e *entry, chains []Chain) Entry {
	out := Entry{
		Frontend: frontendName(e.at.Kind), Port: e.at.Port, Dispatch: p.dispatches(e), Refusals: p.refusals(e),
		Masquerades: p.masquerades(e, chains), Command: p.conntrackCommand(netip.AddrPortFrom(e.at.Addr, e.at.Port), ""),
	}
	if e.at.Addr.IsValid() {
		out.Address = e.at.Addr.String()
	}
	if p.catalog != nil {
		out.InAPI = new(e.want != nil)
	}
	if e.want != nil && !p.unsure {
		out.WantedRefusal = string(e.want.Refusal)
		if e.want.To != kubeproxy.KindOther {
			out.WantedChain = chainName(e.want.To, p.hash)
		}
	}
	return out
}

// frontendName is the label frontend's word.
func frontendName(k kubeproxy.FrontendKind) string {
	switch k {
	case kubeproxy.ClusterIP:
		return string(service.ClusterFrontend)
	case kubeproxy.ExternalIP:
		return string(service.ExternalFrontend)
	case kubeproxy.LoadBalancerIP:
		return string(service.LoadBalancerFrontend)
	case kubeproxy.NodePort:
		return string(service.NodePortFrontend)
	}
	return ""
}

// chainName is that of a port's chain.
func chainName(k kubeproxy.Kind, hash string) string {
	all := kubeproxy.ChainsOf(hash) // KUBE-SVC, KUBE-SVL, KUBE-FW, KUBE-EXT
	switch k {
	case kubeproxy.KindService:
		return all[0]
	case kubeproxy.KindLocal:
		return all[1]
	case kubeproxy.KindFirewall:
		return all[2]
	}
	return all[3]
}

// dispatches are the rules that send packets of an entry on; those of a node port pass
// KUBE-SERVICES first.
func (p *pathBuilder) dispatches(e *entry) []Rule {
	out := []Rule{}
	if slices.ContainsFunc(e.dispatch, func(d *kubeproxy.Dispatch) bool { return d.Chain.Name == nodePortsChain() }) {
		if c := p.side.set.Table(nat).Chain(servicesChain()); c != nil {
			for i := range c.Rules {
				if c.Rules[i].Action.Chain == nodePortsChain() {
					r := p.side.rule(nat, c, i, RoleNodePorts)
					r.Destination = destination(&c.Rules[i])
					out = append(out, r)
				}
			}
		}
	}
	for _, d := range e.dispatch {
		r := p.side.rule(nat, d.Chain, d.Index, RoleDispatch)
		if d.Frontend.Kind == kubeproxy.NodePort {
			r.Destination = destination(d.Rule)
		}
		out = append(out, r)
	}
	return out
}

// destination is which addresses of the node a rule for node ports asks for.
func destination(r *ruleset.Rule) string {
	for _, m := range r.Matches {
		if to, ok := m.(ruleset.Destination); ok {
			if to.Not {
				return "any but " + prefixText(to.Prefix)
			}
			return prefixText(to.Prefix)
		}
	}
	return ""
}

func (p *pathBuilder) refusals(e *entry) []Rule {
	var out []Rule
	for _, f := range e.refusals {
		r := p.side.rule(f.Table, f.Chain, f.Index, RoleRefusal)
		r.Reason = string(f.Reason)
		out = append(out, r)
	}
	return out
}

// masquerades says whose connections by a way are marked: of the rules in the first of
// the port's chains that an entry's packets come to, KUBE-FW aside.
func (p *pathBuilder) masquerades(e *entry, chains []Chain) []Masquerade {
	for _, d := range e.dispatch {
		if d.Hash != p.hash {
			continue
		}
		kind := map[kubeproxy.Kind]ChainKind{
			kubeproxy.KindService: ChainCluster, kubeproxy.KindLocal: ChainLocal,
			kubeproxy.KindExternal: ChainExternal, kubeproxy.KindFirewall: ChainExternal,
		}[d.Target]
		for i := range chains {
			if c := &chains[i]; c.Kind == kind {
				return marking(c)
			}
		}
	}
	return nil
}

func marking(c *Chain) []Masquerade {
	var out []Masquerade
	for i := range c.Rules {
		if r := &c.Rules[i]; r.Role == RoleMasquerade {
			out = append(out, Masquerade{Reason: r.Reason, Clients: cmp.Or(r.Clients, "all")})
		}
	}
	return out
}
