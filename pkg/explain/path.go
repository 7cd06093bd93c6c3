// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"slices"

	"github.com/svcscope/svcscope/pkg/drift"
	"github.com/svcscope/svcscope/pkg/kubeproxy"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/service"
)

// pathBuilder has what one Path is made of.
type pathBuilder struct {
	*builder
	port   *port
	family netfilter.Family
	hash   string          // in the names of the port's chains
	want   *drift.Expected // nil where kube-proxy should have nothing, or it is not known
	// unsure: which endpoints are this node's is not known, so that of want the ways
	// alone hold.
	unsure bool
	api    []service.Endpoint
	side   *side // nil where there is no path
	chains kubeproxy.PortChains
	// alone: no other backend's rules send packets on.
	alone   bool
	entries []entry
}

// paths are those of a port in one family: none where neither API nor rules have it.
func (b *builder) paths(p *port, f netfilter.Family) []Path {
	base := pathBuilder{builder: b, port: p, family: f, hash: kubeproxy.Hash(p.name)}
	base.intend()
	if b.mode(f) != "iptables" {
		if base.want == nil {
			return nil
		}
		return []Path{base.unexplained()}
	}
	sides := b.shown(f)
	about := slices.DeleteFunc(slices.Clone(sides), func(s *side) bool { return !s.knows(base.hash) })
	if len(about) == 0 {
		if base.want == nil {
			return nil
		}
		about = sides[:min(1, len(sides))]
	}
	if len(about) == 0 { // nat was flushed with its chains
		return []Path{base.path()}
	}
	var out []Path
	for _, s := range about {
		at := base
		at.side, at.alone = s, len(sides) == 1
		if chains := s.view.Ports[base.hash]; chains != nil {
			at.chains = *chains
		}
		out = append(out, at.path())
	}
	return out
}

// intend sets what the API wants.
func (p *pathBuilder) intend() {
	if p.svc == nil || p.port.api == nil {
		return
	}
	p.api = p.catalog.EndpointsOf(p.port.name, p.ipv6())
	if e, ok := drift.Expect(p.catalog, p.svc, p.port.api, p.ipv6()); ok {
		p.want = &e
	}
	if p.node.NodeMissing || p.catalog.Node.Name == "" {
		p.unsure = drift.NeedsNode(p.svc, p.port.api, p.api, p.ipv6())
	}
}

// sure is what kube-proxy should have; nil where that is not known.
func (p *pathBuilder) sure() *drift.Expected {
	if p.unsure {
		return nil
	}
	return p.want
}

func (p *pathBuilder) ipv6() bool { return p.family == netfilter.IPv6 }

// start is what every Path has.
func (p *pathBuilder) start() Path {
	return Path{
		PortName: p.port.name.Port, Protocol: string(p.port.name.Protocol), Port: p.port.number, IPFamily: p.family.String(),
		Wanted: p.wanted(), Entries: []Entry{},
	}
}

// unexplained is what is known without rules.
func (p *pathBuilder) unexplained() Path {
	out := p.start()
	out.Unexplained = unexplained(p.mode(p.family))
	out.Command = modeCommand(out.Unexplained, p.ipv6())
	p.finish(&out)
	return out
}

// path follows the rules.
func (p *pathBuilder) path() Path {
	out := p.start()
	out.Differences = p.judged()
	if p.side != nil {
		out.Backend = string(p.side.set.Backend)
		out.Arrivals = p.side.arrivals()
		out.Masquerading = p.side.masquerading()
		out.HealthChecks = p.healthChecks()
	}
	out.Chains = p.ownChains()
	for i := range out.Chains {
		for j := range out.Chains[i].Rules {
			if r := &out.Chains[i].Rules[j]; r.Role == RoleAffinity && out.AffinitySeconds == 0 {
				out.AffinitySeconds = p.affinity(out.Chains[i].Kind, j)
			}
		}
	}
	p.finish(&out)
	return out
}

// finish adds entries, endpoints and what connection tracking has of them.
func (p *pathBuilder) finish(out *Path) {
	p.findEntries()
	flows := p.flows()
	out.Conntrack = flows.all
	for i := range p.entries {
		e := p.entry(&p.entries[i], out.Chains)
		if flows.all != nil {
			e.Tracked = new(flows.byEntry[i])
		}
		out.Entries = append(out.Entries, e)
	}
	if p.side != nil {
		out.RefusalArrivals = p.side.refusalArrivals(out.Entries)
	}
	out.Endpoints = p.endpoints(flows)
}

func (p *pathBuilder) wanted() *Wanted {
	want := p.sure()
	if want == nil {
		return nil
	}
	w := &Wanted{SourceRanges: texts(want.Ranges), HealthCheckNodePort: want.HealthCheck}
	w.Endpoints, w.LocalEndpoints = addresses(want.Cluster), addresses(want.Local)
	if want.Affinity {
		w.AffinitySeconds = want.AffinitySeconds
	}
	return w
}

func addresses(eps []service.Endpoint) []string {
	var out []string
	for i := range eps {
		out = append(out, eps[i].Addr.String())
	}
	return out
}
