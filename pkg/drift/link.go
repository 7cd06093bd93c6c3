// SPDX-License-Identifier: Apache-2.0

package drift

import (
	"hash/maphash"
	"net/netip"
	"slices"
	"strconv"

	"github.com/svcscope/svcscope/pkg/kubeproxy"
	"github.com/svcscope/svcscope/pkg/ruleset"
	"github.com/svcscope/svcscope/pkg/service"
)

// link finds which port each rule of the chains of all Services is about, and marks
// the ports of which chains or such rules are others than before. kube-proxy writes
// these chains anew, in another order, at every sync: what they say of most ports is
// the same.
func (s *side) link() {
	v := s.view
	for _, p := range s.ports {
		p.sum, p.dispatch, p.refusal, p.health = 0, -1, -1, false
	}
	s.nextDispatch, s.strays = resize(s.nextDispatch, len(v.Dispatch)), nil
	for i := len(v.Dispatch) - 1; i >= 0; i-- {
		d := &v.Dispatch[i]
		p := s.owner(d.Hash, &d.Frontend, d.Named)
		if p == nil {
			s.stray(d)
			continue
		}
		s.nextDispatch[i], p.dispatch = p.dispatch, int32(i)
		p.sum += s.digest(&d.Frontend, d.Hash, uint8(d.Target), plain(d.Rule))
	}
	s.nextRefusal = resize(s.nextRefusal, len(v.Refusals))
	for i := len(v.Refusals) - 1; i >= 0; i-- {
		r := &v.Refusals[i]
		if p := s.owner(r.Hash, &r.Frontend, r.Named); p != nil && r.Table == "filter" {
			s.nextRefusal[i], p.refusal = p.refusal, int32(i)
			p.sum += s.digest(&r.Frontend, string(r.Reason), uint8(r.Rule.Action.Kind), plain(r.Rule))
		}
	}
	for i := range v.HealthChecks {
		if p := s.checked(&v.HealthChecks[i]); p != nil && !p.health {
			p.health = true
			p.sum++
		}
	}
	for hash, p := range s.ports {
		if chains := v.Ports[hash]; p.chains != chains || p.says != p.sum {
			p.chains, p.says = chains, p.sum
			s.dirty[p] = struct{}{}
		}
	}
}

// resize returns a slice of that length, in the memory of old if it fits.
func resize(old []int32, n int) []int32 { return slices.Grow(old[:0], n)[:n] }

// digest is a number for what a rule says, to be summed.
func (s *side) digest(f *kubeproxy.Frontend, what string, target uint8, plain bool) uint64 {
	return maphash.Comparable(s.seed, struct {
		addr           [16]byte
		port           uint16
		kind, protocol uint8
		target         uint8
		plain          bool
		what           string
	}{f.Addr.As16(), f.Port, uint8(f.Kind), f.Protocol.Number(), target, plain, what})
}

// owner is the port that a rule is about: the one that its hash names, if the address
// is one of that port's, or else the port that has the address. Several Services may
// have one external address: each one's rule names it. When one of them gives it up, or
// goes, a rule of its own, with its name, is not about another one that has its own, too. Nil
// where the API has none.
func (s *side) owner(hash string, f *kubeproxy.Frontend, own bool) *port {
	named := s.ports[hash]
	if named != nil && named.has(f) {
		return named
	}
	if p := s.claimant(f); p != nil && !(own && p.shares(f) && s.dispatches(p, f)) {
		return p
	}
	return named
}

// shares reports whether f is an address of the port that others may have, too.
func (p *port) shares(f *kubeproxy.Frontend) bool {
	return f.Addr.IsValid() && !slices.Contains(p.service.ClusterIPs, f.Addr)
}

// dispatches reports whether a rule sends packets to an address on to a port's chains.
func (s *side) dispatches(p *port, f *kubeproxy.Frontend) bool {
	return slices.ContainsFunc(s.view.Dispatch, func(d kubeproxy.Dispatch) bool {
		return s.ports[d.Hash] == p && same(&d.Frontend, f) && plain(d.Rule)
	})
}

// claimant is the port that is reached by f, or nil.
func (s *side) claimant(f *kubeproxy.Frontend) *port {
	c := s.intent.catalog
	if c == nil {
		return nil
	}
	var m service.Match
	var ok bool
	switch {
	case f.Addr.IsValid():
		m, ok = c.ByAddr(netip.AddrPortFrom(f.Addr, f.Port), f.Protocol)
	case f.Kind == kubeproxy.NodePort:
		m, ok = c.ByNodePort(f.Port, f.Protocol)
	}
	if !ok {
		return nil
	}
	return s.ports[kubeproxy.Hash(m.PortName())]
}

// has reports whether f is one of the port's addresses, or its node port.
func (p *port) has(f *kubeproxy.Frontend) bool {
	at := &p.service.Ports[p.index]
	switch {
	case f.Protocol != at.Protocol:
		return false
	case !f.Addr.IsValid():
		return f.Kind == kubeproxy.NodePort && at.NodePort == f.Port && f.Port != 0
	}
	return at.Port == f.Port && (slices.Contains(p.service.ClusterIPs, f.Addr) ||
		slices.Contains(p.service.ExternalIPs, f.Addr) || slices.Contains(p.service.LoadBalancerIPs, f.Addr))
}

// checked is the port whose health checks a rule lets in; the comment does not tell
// the protocol.
func (s *side) checked(h *kubeproxy.HealthCheck) *port {
	name := h.Port
	for _, name.Protocol = range [...]service.Protocol{service.TCP, service.UDP, service.SCTP} {
		p := s.ports[kubeproxy.Hash(name)]
		if p == nil || p.service.HealthCheckNodePort == 0 {
			continue
		}
		if asksFor(h.Rule, p.service.HealthCheckNodePort) && h.Rule.Action.Kind == ruleset.Accept {
			return p
		}
	}
	return nil
}

// asksFor reports whether a rule takes packets to a port.
func asksFor(r *ruleset.Rule, number uint16) bool {
	return slices.ContainsFunc(r.Matches, func(m ruleset.Match) bool {
		p, ok := m.(ruleset.DestinationPort)
		return ok && !p.Not && p.First == number && p.Last == number
	})
}

// plain reports whether a rule asks for nothing but an address or a local one, a
// protocol and a port, as kube-proxy's own do. What is not decoded is taken to hold.
func plain(r *ruleset.Rule) bool {
	for _, m := range r.Matches {
		switch m := m.(type) {
		case ruleset.Protocol, ruleset.DestinationPort, ruleset.Unknown:
		case ruleset.Destination:
			if m.Not || !m.Prefix.IsSingleIP() {
				return false
			}
		case ruleset.AddrType:
			if m.Source != 0 || m.NotDest || m.Flags != 0 {
				return false
			}
		default:
			if ruleset.MayFail(m) {
				return false
			}
		}
	}
	return true
}

// stray notes a rule that leads to chains of a port that the API has not.
func (s *side) stray(d *kubeproxy.Dispatch) {
	s.strays = append(s.strays, Difference{
		Port: d.Name, Family: s.view.Family, Backend: s.view.Backend, Frontend: label(d.Frontend.Kind),
		Kind: ExtraDispatch, Detail: reached(&d.Frontend) + " → " + d.Rule.Action.Chain, InFlight: true,
	})
}

// reached is an address and port, or a node port, as text.
func reached(f *kubeproxy.Frontend) string {
	if !f.Addr.IsValid() {
		return "port " + strconv.Itoa(int(f.Port))
	}
	return netip.AddrPortFrom(f.Addr, f.Port).String()
}
