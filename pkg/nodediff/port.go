// SPDX-License-Identifier: Apache-2.0

package nodediff

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/svcscope/svcscope/pkg/drift"
	"github.com/svcscope/svcscope/pkg/kubeproxy"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/ruleset"
	"github.com/svcscope/svcscope/pkg/service"
)

// port is one port of a Service on one node, in one family.
type port struct {
	side   *side
	name   service.PortName
	family netfilter.Family
	hash   string
	// svc and number are the API's; svc is nil where it has none.
	svc    *service.Service
	number int
	want   *drift.Expected // what the rules should be; nil where that is not known
	rules  *familyRules    // nil where kube-proxy has none in this family
	chains kubeproxy.PortChains
	labels map[string]string // of endpoints' chains, on both nodes
}

func (s *side) port(name service.PortName, f netfilter.Family) port {
	p := port{side: s, name: name, family: f, hash: kubeproxy.Hash(name), rules: s.at[f]}
	if p.rules != nil {
		if c := p.rules.View.Ports[p.hash]; c != nil {
			p.chains = *c
		}
	}
	c := s.node.Catalog
	if c == nil {
		return p
	}
	svc := c.Service(name.Name)
	if svc == nil {
		return p.expecting(&drift.Expected{})
	}
	i := slices.IndexFunc(svc.Ports, func(q service.Port) bool { return svc.PortName(&q) == name })
	if i < 0 {
		return p.expecting(&drift.Expected{})
	}
	p.svc, p.number = svc, i
	if s.node.NodeMissing || c.Node.Name == "" {
		return p
	}
	if want, ok := drift.Expect(c, svc, &svc.Ports[i], f == netfilter.IPv6); ok {
		return p.expecting(&want)
	}
	return p.expecting(&drift.Expected{})
}

func (p port) expecting(want *drift.Expected) port {
	p.want = want
	return p
}

// kernel compares the rules of a port.
func (c *comparison) kernel(a, b *port) []aspect {
	out := compareAspects(Address, a.addresses(), b.addresses(), a.wantedAddresses(), b.wantedAddresses())
	out = append(out, compareAspects(Chain, a.present(), b.present(), a.wantedChains(), b.wantedChains())...)
	for _, kind := range []kubeproxy.Kind{kubeproxy.KindService, kubeproxy.KindLocal} {
		at, bt := a.chain(kind), b.chain(kind)
		if at == nil || bt == nil {
			continue
		}
		endpoints := compareAspects(Endpoint, a.endpoints(kind), b.endpoints(kind), a.wantedEndpoints(kind), b.wantedEndpoints(kind))
		out = append(out, endpoints...)
		out = append(out, c.content(a, b, at, bt, len(endpoints) == 0, func() bool { return false })...)
	}
	for _, kind := range []kubeproxy.Kind{kubeproxy.KindExternal, kubeproxy.KindFirewall} {
		at, bt := a.chain(kind), b.chain(kind)
		if at == nil || bt == nil {
			continue
		}
		out = append(out, c.content(a, b, at, bt, true, func() bool {
			return a.want != nil && b.want != nil && a.want.FromOutside != b.want.FromOutside && a.leadsOutside() && b.leadsOutside()
		})...)
	}
	return append(out, compareAspects(Endpoint, a.endpointRules(b), b.endpointRules(a), nil, nil)...)
}

// prefixOf is how the names of a port's chains of a kind begin.
func prefixOf(k kubeproxy.Kind) string {
	names := kubeproxy.ChainsOf("")
	i := slices.Index([]kubeproxy.Kind{kubeproxy.KindService, kubeproxy.KindLocal, kubeproxy.KindFirewall, kubeproxy.KindExternal}, k)
	if i < 0 {
		return "elsewhere"
	}
	return strings.TrimSuffix(names[i], "-")
}

// chain is the port's chain of a kind, or nil.
func (p *port) chain(k kubeproxy.Kind) *ruleset.Chain {
	switch k {
	case kubeproxy.KindService:
		return p.chains.Service
	case kubeproxy.KindLocal:
		return p.chains.Local
	case kubeproxy.KindExternal:
		return p.chains.External
	case kubeproxy.KindFirewall:
		return p.chains.Firewall
	}
	return nil
}

func chainKinds() []kubeproxy.Kind {
	return []kubeproxy.Kind{kubeproxy.KindService, kubeproxy.KindLocal, kubeproxy.KindExternal, kubeproxy.KindFirewall}
}

// present tells which chains there are.
func (p *port) present() map[string]string {
	out := make(map[string]string)
	for _, k := range chainKinds() {
		switch c := p.chain(k); {
		case c == nil:
		case len(c.Rules) == 0 && !c.Unread:
			out[prefixOf(k)] = "empty"
		default:
			out[prefixOf(k)] = "there"
		}
	}
	return out
}

func (p *port) wantedChains() map[string]string {
	if p.want == nil {
		return nil
	}
	out := make(map[string]string)
	for k, is := range map[kubeproxy.Kind]bool{
		kubeproxy.KindService: len(p.want.Cluster) > 0, kubeproxy.KindLocal: len(p.want.Local) > 0,
		kubeproxy.KindExternal: p.want.External, kubeproxy.KindFirewall: len(p.want.Ranges) > 0,
	} {
		if is {
			out[prefixOf(k)] = "there"
		}
	}
	return out
}

// addresses are what becomes of packets to each address of the port.
func (p *port) addresses() map[string]string {
	out := make(map[string]string)
	for _, r := range p.rules.refusals[p.hash] {
		if r.Reason == kubeproxy.SourceRange {
			add(out, frontendText(&r.Frontend), "from other ranges dropped")
			continue
		}
		add(out, frontendText(&r.Frontend), refusedText(r.Reason))
	}
	for _, d := range p.rules.dispatch[p.hash] {
		add(out, frontendText(&d.Frontend), "→ "+prefixOf(d.Target))
	}
	for _, h := range p.rules.health[p.name.Name] {
		add(out, "health checks", "let in at "+portsOf(h.Rule))
	}
	return out
}

// add adds a word that is not there yet, in order.
func add(m map[string]string, key, word string) {
	words := []string{word}
	if had := m[key]; had != "" {
		words = append(strings.Split(had, ", "), word)
	}
	slices.Sort(words)
	m[key] = strings.Join(slices.Compact(words), ", ")
}

// refusedText is what a refusal does.
func refusedText(r kubeproxy.Reason) string {
	if r == kubeproxy.NoLocalEndpoints {
		return "dropped: no local endpoints"
	}
	return "rejected: no endpoints"
}

func (p *port) wantedAddresses() map[string]string {
	if p.want == nil {
		return nil
	}
	out := make(map[string]string)
	for i := range p.want.Frontends {
		f := &p.want.Frontends[i]
		if f.Refusal != "" {
			add(out, frontendText(&f.Frontend), refusedText(f.Refusal))
		}
		if f.To != kubeproxy.KindOther {
			add(out, frontendText(&f.Frontend), "→ "+prefixOf(f.To))
		}
		if f.To == kubeproxy.KindFirewall {
			add(out, frontendText(&f.Frontend), "from other ranges dropped")
		}
	}
	if n := p.want.HealthCheck; n != 0 {
		add(out, "health checks", "let in at "+strconv.Itoa(int(n)))
	}
	return out
}

// frontendText names an address and port, or a node port.
func frontendText(f *kubeproxy.Frontend) string {
	if !f.Addr.IsValid() {
		return fmt.Sprintf("node port %d", f.Port)
	}
	return netip.AddrPortFrom(f.Addr, f.Port).String()
}

// portsOf is the port that a rule asks for.
func portsOf(r *ruleset.Rule) string {
	for _, m := range r.Matches {
		if d, ok := m.(ruleset.DestinationPort); ok {
			return ruleset.PortRange{First: d.First, Last: d.Last}.String()
		}
	}
	return "any port"
}

// endpoints are those that a chain sends packets to.
func (p *port) endpoints(k kubeproxy.Kind) map[string]string {
	out := make(map[string]string)
	for i := range p.chain(k).Rules {
		r := &p.chain(k).Rules[i]
		if kind, _ := kubeproxy.ParseChain(r.Action.Chain); kind == kubeproxy.KindEndpoint {
			out[p.endpoint(r.Action.Chain)] = "in " + prefixOf(k)
		}
	}
	return out
}

// label gives the chains of endpoints on two nodes texts: the address that the name is
// made of, where one of them tells it.
func label(a, b *port) {
	labels := make(map[string]string)
	for _, p := range []*port{a, b} {
		for i := range p.chains.Endpoints {
			e := &p.chains.Endpoints[i]
			if kubeproxy.EndpointChain(p.name, e.Addr) == e.Chain {
				labels[e.Chain] = e.Addr.String()
			}
		}
	}
	a.labels, b.labels = labels, labels
}

// endpoint is the text for an endpoint's chain.
func (p *port) endpoint(chain string) string { return cmp.Or(p.labels[chain], chain) }

func (p *port) wantedEndpoints(k kubeproxy.Kind) map[string]string {
	if p.want == nil {
		return nil
	}
	wanted := p.want.Cluster
	if k == kubeproxy.KindLocal {
		wanted = p.want.Local
	}
	out := make(map[string]string)
	for i := range wanted {
		out[wanted[i].Addr.String()] = "in " + prefixOf(k)
	}
	return out
}

// leadsOutside reports whether KUBE-EXT hands packets from outside to what the API wants.
func (p *port) leadsOutside() bool {
	leads := kubeproxy.KindOther
	if c := p.chain(kubeproxy.KindExternal); c != nil && len(c.Rules) > 0 {
		last := &c.Rules[len(c.Rules)-1]
		if kind, hash := kubeproxy.ParseChain(last.Action.Chain); hash == p.hash && !slices.ContainsFunc(last.Matches, ruleset.MayFail) {
			leads = kind
		}
	}
	return leads == p.want.FromOutside
}
