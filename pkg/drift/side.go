// SPDX-License-Identifier: Apache-2.0

package drift

import (
	"hash/maphash"
	"slices"

	"github.com/svcscope/svcscope/pkg/kubeproxy"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/ruleset"
	"github.com/svcscope/svcscope/pkg/service"
)

// side is what is known of one backend's rules of one family from one call to the
// next.
type side struct {
	view   *kubeproxy.View
	set    *ruleset.Ruleset
	intent *intent
	// ports are those that the API has, by the hash in their chains' names.
	ports map[string]*port
	dirty map[*port]struct{} // to be compared
	odd   map[*port]struct{} // those that differ
	// version is View.Version when the rules were last linked; linked is false before
	// the first time, and after Services came or went.
	version uint64
	linked  bool
	// nextDispatch and nextRefusal have, for each of View.Dispatch and View.Refusals,
	// the next one of the same port; -1 ends.
	nextDispatch, nextRefusal []int32
	strays                    []Difference // of dispatch rules to chains of no port of the API
	node                      nodeWide
	cause                     map[Difference]Difference // of the last differences
	external                  externals                 // the sum of the ports'
	seed                      maphash.Seed
}

// port is one Service port.
type port struct {
	service *service.Service
	index   int // in service.Ports
	chains  *kubeproxy.PortChains
	// says sums up the rules about the port that stand in chains of all Services, as
	// last compared, and sum as last seen; dispatch and refusal are the first of each,
	// -1 without any.
	says, sum         uint64
	dispatch, refusal int32
	health            bool // health checks are let in
	found             []finding
	external          externals
}

// externals counts external IPs: those that the API has, and those of which
// kube-proxy's rules know.
type externals struct{ wanted, known int }

// finding is a Difference but for what is the same for all of a side's port.
type finding struct {
	kind     Kind
	frontend service.Frontend
	detail   string
	inFlight bool
	// in is the chain of all Services that it is about a rule of, as sharedChain names it;
	// empty where it is about chains of the port's own.
	in string
}

// sharedChain names a chain of all Services.
func sharedChain(table, chain string) string { return table + " " + chain }

func newSide(r *Rules, i *intent) *side {
	s := &side{
		view: r.View, set: r.Set, intent: i, seed: maphash.MakeSeed(),
		ports: make(map[string]*port), dirty: make(map[*port]struct{}), odd: make(map[*port]struct{}),
	}
	if i.catalog != nil {
		for _, svc := range i.catalog.Services {
			s.add(svc)
		}
	}
	return s
}

func (s *side) ipv6() bool { return s.view.Family == netfilter.IPv6 }

func (s *side) add(svc *service.Service) {
	if !served(svc, s.ipv6()) {
		return
	}
	for i := range svc.Ports {
		p := &port{service: svc, index: i}
		s.ports[kubeproxy.Hash(svc.PortName(&svc.Ports[i]))] = p
		s.dirty[p] = struct{}{}
	}
}

func (s *side) remove(svc *service.Service) {
	if !served(svc, s.ipv6()) {
		return
	}
	for i := range svc.Ports {
		hash := kubeproxy.Hash(svc.PortName(&svc.Ports[i]))
		if p := s.ports[hash]; p != nil {
			s.external.wanted -= p.external.wanted
			s.external.known -= p.external.known
			delete(s.ports, hash)
			delete(s.dirty, p)
			delete(s.odd, p)
		}
	}
}

// update takes what has changed and compares what it concerns.
func (s *side) update(n *news) {
	s.follow(n)
	if !s.linked || s.version != s.view.Version {
		s.link()
		s.node = s.look()
		s.linked, s.version = true, s.view.Version
	}
	for p := range s.dirty {
		s.external.wanted -= p.external.wanted
		s.external.known -= p.external.known
		s.check(p)
		s.external.wanted += p.external.wanted
		s.external.known += p.external.known
		if delete(s.odd, p); len(p.found) > 0 {
			s.odd[p] = struct{}{}
		}
	}
	clear(s.dirty)
}

// follow takes what the API wants otherwise than before. A side that was made for this
// call knows it already.
func (s *side) follow(n *news) {
	if n.first {
		return
	}
	for _, c := range n.services {
		s.remove(c.old)
		s.add(c.now)
		s.linked = false
	}
	if n.all {
		for _, p := range s.ports {
			s.dirty[p] = struct{}{}
		}
		return
	}
	for i := range n.changed {
		if n.changed[i].Family != s.view.Family {
			continue
		}
		if p := s.ports[kubeproxy.Hash(n.changed[i].Port)]; p != nil {
			s.dirty[p] = struct{}{}
		}
	}
}

// differences appends the side's own, but for those that others explain.
func (s *side) differences(out []Difference) []Difference {
	out = append(out, s.node.differences...)
	if s.cause = nil; s.intent.catalog == nil {
		return out
	}
	lost := make(map[string][]Difference) // by the chain that was emptied
	for p := range s.odd {
		name := p.service.PortName(&p.service.Ports[p.index])
		for i := range p.found {
			f := &p.found[i]
			if s.node.explains(f) || s.tolerated(f) {
				continue
			}
			d := Difference{
				Port: name, Family: s.view.Family, Backend: s.view.Backend,
				Frontend: f.frontend, Kind: f.kind, Detail: f.detail, InFlight: f.inFlight,
			}
			out = append(out, d)
			if s.node.emptied[f.in] {
				lost[f.in] = append(lost[f.in], d)
			}
		}
	}
	s.causes(lost)
	if !s.node.cut && !s.node.empty {
		out = append(out, s.strays...)
	}
	return out
}

// causes notes that what several ports lack of a chain that is empty is one cause. Of a single
// port its own rule may have been deleted: it is told of that one.
func (s *side) causes(lost map[string][]Difference) {
	for chain, of := range lost {
		if !slices.ContainsFunc(of, func(d Difference) bool { return d.Port != of[0].Port }) {
			continue
		}
		if s.cause == nil {
			s.cause = make(map[Difference]Difference)
		}
		for _, d := range of {
			s.cause[d] = Difference{Family: d.Family, Backend: d.Backend, Kind: EmptyChain, Detail: chain}
		}
	}
}

// tolerated reports whether a flag explains a finding: with the feature gate
// AllowServiceExternalIPs off (since 1.36) kube-proxy writes rules for no external
// IP at all.
func (s *side) tolerated(f *finding) bool {
	return f.frontend == service.ExternalFrontend && s.external.known == 0 &&
		(f.kind == MissingDispatch || f.kind == NotRejectingWithoutEndpoints)
}
