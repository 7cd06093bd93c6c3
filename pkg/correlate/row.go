// SPDX-License-Identifier: Apache-2.0

package correlate

import (
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/svcscope/svcscope/pkg/ledger"
)

// fewEndpoints is up to how many endpoints a list is searched, not indexed.
const fewEndpoints = 16

// setTotals gives a row that no snapshot has yet the totals of its port.
func (s *ServicePort) setTotals(t *ledger.PortTotal) {
	s.Exposed, s.Created = true, t.Created
	s.Cluster, s.External, s.Rejected = t.Cluster, t.External, reasons(t.Rejected)
	find := endpointTotals(t)
	for i := range s.Endpoints {
		e := &s.Endpoints[i]
		e.Connections, e.Created = find(e.Addr)
	}
}

// withTotals returns the row with these totals: s itself where it has them.
func (s *ServicePort) withTotals(t *ledger.PortTotal) *ServicePort {
	if s.hasTotals(t) {
		return s
	}
	p := *s
	p.Endpoints = slices.Clone(s.Endpoints)
	p.setTotals(t)
	return &p
}

func (s *ServicePort) hasTotals(t *ledger.PortTotal) bool {
	if !s.Exposed || !s.Created.Equal(t.Created) || s.Cluster != t.Cluster || s.External != t.External ||
		len(s.Rejected) != len(t.Rejected) {
		return false
	}
	for reason, n := range t.Rejected {
		if s.Rejected[Reason(reason)] != n {
			return false
		}
	}
	find := endpointTotals(t)
	for i := range s.Endpoints {
		e := &s.Endpoints[i]
		if n, created := find(e.Addr); n != e.Connections || !created.Equal(e.Created) {
			return false
		}
	}
	return true
}

// endpointTotals returns the look-up of an endpoint's total; of one that the
// ledger does not know it is 0 since nothing.
func endpointTotals(t *ledger.PortTotal) func(netip.AddrPort) (uint64, time.Time) {
	if len(t.Endpoints) <= fewEndpoints {
		return func(addr netip.AddrPort) (uint64, time.Time) {
			for i := range t.Endpoints {
				if e := &t.Endpoints[i]; e.Addr == addr {
					return e.Connections, e.Created
				}
			}
			return 0, time.Time{}
		}
	}
	byAddr := make(map[netip.AddrPort]*ledger.EndpointTotal, len(t.Endpoints))
	for i := range t.Endpoints {
		byAddr[t.Endpoints[i].Addr] = &t.Endpoints[i]
	}
	return func(addr netip.AddrPort) (uint64, time.Time) {
		if e := byAddr[addr]; e != nil {
			return e.Connections, e.Created
		}
		return 0, time.Time{}
	}
}

func reasons(m map[string]uint64) map[Reason]uint64 {
	if len(m) == 0 {
		return nil
	}
	out := make(map[Reason]uint64, len(m))
	for r, n := range m {
		out[Reason(r)] = n
	}
	return out
}

// same reports whether two rows say the same.
func (s *ServicePort) same(p *ServicePort) bool {
	return s.Port == p.Port && s.Family == p.Family &&
		s.Type == p.Type && s.ClusterIP == p.ClusterIP && s.Number == p.Number && s.NodePort == p.NodePort &&
		s.Exposed == p.Exposed && s.Created.Equal(p.Created) && s.Cluster == p.Cluster && s.External == p.External &&
		maps.Equal(s.Rejected, p.Rejected) && slices.EqualFunc(s.Endpoints, p.Endpoints, Endpoint.same) &&
		maps.Equal(s.Rules, p.Rules) && s.APICount == p.APICount && s.KernelCount == p.KernelCount &&
		s.Uncounted == p.Uncounted && s.SinceRule == p.SinceRule
}

func (e Endpoint) same(f Endpoint) bool {
	return e.Addr == f.Addr && e.InAPI == f.InAPI && e.InKernel == f.InKernel &&
		e.Connections == f.Connections && e.Created.Equal(f.Created)
}
