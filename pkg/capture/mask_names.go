// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"crypto/sha256"
	"encoding/base32"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/svcscope/svcscope/pkg/kubeproxy"
	"github.com/svcscope/svcscope/pkg/ruleset"
	"github.com/svcscope/svcscope/pkg/service"
)

const (
	// endpointPrefix begins the names of endpoints' chains.
	endpointPrefix = "KUBE-SEP-"
	base32Letters  = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
)

// learn finds out what the names of s are made of.
func (m *masker) learn(s *Snapshot) {
	if c := s.Node.Catalog; c != nil {
		for _, svc := range c.Services {
			for i := range svc.Ports {
				p := svc.PortName(&svc.Ports[i])
				for _, e := range slices.Concat(c.EndpointsOf(p, false), c.EndpointsOf(p, true)) {
					m.endpoint(p, e.Addr)
				}
			}
		}
	}
	for i := range s.Node.Rules {
		for c := range natChains(s.Node.Rules[i].Set) {
			m.learnChain(c)
		}
	}
	m.learnNodes(s.Node)
}

// endpoint notes the name of an endpoint's chain: the masked endpoint's is the one that
// kube-proxy would give it.
func (m *masker) endpoint(p service.PortName, at netip.AddrPort) {
	m.chains[kubeproxy.EndpointChain(p, at)] = kubeproxy.EndpointChain(p, m.addrPort(at))
}

// natChains yields the chains of nat.
func natChains(rs *ruleset.Ruleset) func(func(*ruleset.Chain) bool) {
	return func(yield func(*ruleset.Chain) bool) {
		nat := rs.Table("nat")
		if nat == nil {
			return
		}
		for _, c := range nat.Chains {
			if !yield(c) {
				return
			}
		}
	}
}

// learnChain learns of endpoints by the rules that lead to their chains, whose comment
// has port and address, and by those of the chains themselves.
func (m *masker) learnChain(c *ruleset.Chain) {
	kind, _ := kubeproxy.ParseChain(c.Name)
	for i := range c.Rules {
		r := &c.Rules[i]
		name, form, rest := kubeproxy.ParseComment(r.Comment)
		switch {
		case form == kubeproxy.FormEndpoint:
			if at, err := netip.ParseAddrPort(rest); err == nil {
				m.guess(r.Action.Chain, name, at)
			}
		case form == kubeproxy.FormBare && kind == kubeproxy.KindEndpoint && r.Action.Kind == ruleset.DNAT:
			m.guess(c.Name, name, r.Action.Details().To)
		}
	}
}

// guess notes an endpoint where it gives the chain's name: a comment has no protocol.
func (m *masker) guess(chain string, p service.PortName, at netip.AddrPort) {
	for _, p.Protocol = range []service.Protocol{service.TCP, service.UDP, service.SCTP} {
		if kubeproxy.EndpointChain(p, at) == chain {
			m.endpoint(p, at)
		}
	}
}

// chain is the name in the place of an endpoint's chain. What the name is made of may
// not be known: then it is any other.
func (m *masker) chain(name string) string {
	if other, ok := m.chains[name]; ok {
		return other
	}
	other := endpointPrefix + m.pseudonym(name, base32Letters)
	m.chains[name] = other
	return other
}

// pseudonym is a text of 16 letters in the place of a name.
func (m *masker) pseudonym(name, letters string) string {
	sum := derive(m.secret, name)
	var b strings.Builder
	for _, c := range sum[:kubeproxy.HashLen] {
		b.WriteByte(letters[int(c)%len(letters)])
	}
	return b.String()
}

// native is a name of kube-proxy's nftables mode that has an endpoint's address in it,
// with dots for colons, after a hash over the rest (servicePortEndpointChainNameBase in
// pkg/proxy/nftables/proxier.go).
var native = regexp.MustCompile(`^(endpoint|affinity)-[A-Z2-7]{8}-(.*)__([0-9a-fA-F.]+)/([0-9]+)$`)

// nativeName is the name that kube-proxy would give the masked endpoint; of one that was
// cut off, or is another's, the beginning and a hash.
func (m *masker) nativeName(s string) string {
	if parts := native.FindStringSubmatch(s); parts != nil {
		at, err := netip.ParseAddr(parts[3])
		if err != nil {
			at, err = netip.ParseAddr(strings.ReplaceAll(parts[3], ".", ":"))
		}
		if err == nil {
			address := strings.ReplaceAll(m.addr(at).String(), ":", ".")
			rest := parts[2] + "__" + address + "/" + parts[4]
			sum := sha256.Sum256([]byte(rest))
			return parts[1] + "-" + base32.StdEncoding.EncodeToString(sum[:])[:8] + "-" + rest
		}
	}
	kind, _, _ := strings.Cut(s, "-")
	return kind + "-" + m.pseudonym(s, base32Letters)
}

// dashed is an address in a node's name: ip-10-0-1-5.ec2.internal.
var dashed = regexp.MustCompile(`[0-9]{1,3}(?:-[0-9]{1,3}){3}`)

// learnNodes notes the names of nodes that have an address in them.
func (m *masker) learnNodes(n *Node) {
	names := map[string]bool{n.Name: true}
	if c := n.Catalog; c != nil {
		names[c.Node.Name] = true
		for _, svc := range c.Services {
			for i := range svc.Ports {
				p := svc.PortName(&svc.Ports[i])
				for _, e := range slices.Concat(c.EndpointsOf(p, false), c.EndpointsOf(p, true)) {
					names[e.NodeName] = true
					for _, hint := range e.ForNodes {
						names[hint] = true
					}
				}
			}
		}
	}
	var pairs [][2]string
	for name := range names {
		other := dashed.ReplaceAllStringFunc(name, m.dashes)
		if other != name {
			pairs = append(pairs, [2]string{name, other})
		}
	}
	// Of names that begin with one another the longest one is looked for first.
	slices.SortFunc(pairs, func(a, b [2]string) int {
		if len(a[0]) != len(b[0]) {
			return len(b[0]) - len(a[0])
		}
		return strings.Compare(a[0], b[0])
	})
	var flat []string
	for _, p := range pairs {
		flat = append(flat, p[0], p[1])
	}
	m.nodes = strings.NewReplacer(flat...)
}

// dashes masks an address that has dashes for dots.
func (m *masker) dashes(s string) string {
	a, err := netip.ParseAddr(strings.ReplaceAll(s, "-", "."))
	if err != nil {
		return s
	}
	b := m.addr(a).As4()
	parts := make([]string, 0, len(b))
	for _, n := range b {
		parts = append(parts, strconv.Itoa(int(n)))
	}
	return strings.Join(parts, "-")
}
