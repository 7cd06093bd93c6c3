// SPDX-License-Identifier: Apache-2.0

package correlate

import (
	"cmp"
	"net/netip"
	"slices"
)

const (
	// portTargets is how many destinations are counted at once.
	portTargets = 4096
	// busiest is how many of them are told.
	busiest = 20
)

// portTarget is what masqueraded flows compete for source ports by.
type portTarget struct {
	source      netip.Addr
	destination netip.AddrPort
	protocol    uint8
}

// portSketch finds the targets with the most flows in fixed memory (Misra and
// Gries, Finding repeated elements, 1982): where a target finds no room, all
// counts go down by what it brings, as far as they have it. So a count is too low by
// at most one in portTargets of all flows, and never too high.
type portSketch struct {
	counts map[portTarget]uint64
}

func (s *portSketch) reset() {
	if s.counts == nil {
		s.counts = make(map[portTarget]uint64)
	}
	clear(s.counts)
}

// add counts n flows of a target.
func (s *portSketch) add(t portTarget, n uint64) {
	for n > 0 {
		if have, ok := s.counts[t]; ok || len(s.counts) < portTargets {
			s.counts[t] = have + n
			return
		}
		n -= s.lower(n)
	}
}

// lower takes what all counts have, but at most n, from each, and returns it.
func (s *portSketch) lower(n uint64) uint64 {
	for _, have := range s.counts {
		n = min(n, have)
	}
	for t, have := range s.counts {
		if have == n {
			delete(s.counts, t)
		} else {
			s.counts[t] = have - n
		}
	}
	return n
}

// top returns the busiest targets.
func (s *portSketch) top() []PortUse {
	all := make([]PortUse, 0, len(s.counts))
	for t, n := range s.counts {
		all = append(all, PortUse{Protocol: protocolOf(t.protocol), Source: t.source, Destination: t.destination, Used: n})
	}
	slices.SortFunc(all, func(a, b PortUse) int {
		return cmp.Or(cmp.Compare(b.Used, a.Used), a.Destination.Compare(b.Destination), a.Source.Compare(b.Source), cmp.Compare(a.Protocol, b.Protocol))
	})
	return slices.Clone(all[:min(len(all), busiest)])
}
