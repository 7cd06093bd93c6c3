// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"net/netip"
	"slices"

	"github.com/svcscope/svcscope/pkg/capture"
	"github.com/svcscope/svcscope/pkg/kubeproxy"
)

// flows are the entries of connection tracking that came by a port's entries.
type flows struct {
	all        []Flow   // nil where they were not read
	byEntry    []uint64 // as pathBuilder.entries
	byEndpoint map[netip.AddrPort]tally
}

// tally sums entries.
type tally struct{ entries, unreplied, closing uint64 }

// tracked is the sum beside what the endpoint's rule has counted, if that is known. An
// entry that is younger than the rule was counted by it, so what is more than that
// is older.
func (t tally) tracked(counted *uint64) *Tracked {
	out := &Tracked{Entries: t.entries, Unreplied: t.unreplied, Closing: t.closing}
	if counted != nil {
		out.OlderAtLeast = new(t.entries - min(t.entries, *counted))
	}
	return out
}

// flows finds the entries of the port.
func (p *pathBuilder) flows() flows {
	out := flows{byEntry: make([]uint64, len(p.entries)), byEndpoint: make(map[netip.AddrPort]tally)}
	// Of IPVS the kernel does not mark entries as translated: they were not read.
	if p.node.Flows == nil || p.mode(p.family) == "ipvs" {
		return out
	}
	out.all = []Flow{}
	for i := range p.node.Flows {
		t := &p.node.Flows[i]
		e := p.came(t)
		if e < 0 {
			continue
		}
		out.byEntry[e] += t.Entries
		sum := out.byEndpoint[t.From]
		out.byEndpoint[t.From] = tally{sum.entries + t.Entries, sum.unreplied + t.Unreplied, sum.closing + t.Closing}
		out.all = append(out.all, Flow{
			To: t.To.String(), Endpoint: t.From.String(), Entries: t.Entries, Unreplied: t.Unreplied, Closing: t.Closing,
			Command: p.conntrackCommand(t.To, t.From.String()),
		})
	}
	return out
}

// came is the entry by which connections came, or -1.
func (p *pathBuilder) came(t *capture.FlowTally) int {
	if t.Protocol != p.port.name.Protocol.Number() || t.To.Addr().Is6() != p.ipv6() {
		return -1
	}
	at := slices.IndexFunc(p.entries, func(e entry) bool { return netip.AddrPortFrom(e.at.Addr, e.at.Port) == t.To })
	if at >= 0 {
		return at
	}
	at = slices.IndexFunc(p.entries, func(e entry) bool { return e.at.Kind == kubeproxy.NodePort && e.at.Port == t.To.Port() })
	if at < 0 || !p.ofNode(t) {
		return -1
	}
	return at
}

// ofNode reports whether connections came by a node port: to an address of the node, or
// to another one that is no Service's and from which they went to an endpoint of the
// port. The API does not have all addresses of a node.
func (p *pathBuilder) ofNode(t *capture.FlowTally) bool {
	to := t.To.Addr()
	if to.IsLoopback() {
		return true
	}
	if p.catalog != nil {
		if slices.Contains(p.catalog.Node.IPs, to) {
			return true
		}
		if _, ok := p.catalog.ByAddr(t.To, p.port.name.Protocol); ok {
			return false
		}
	}
	for i := range p.chains.Endpoints {
		if p.chains.Endpoints[i].Addr == t.From {
			return true
		}
	}
	for i := range p.api {
		if p.api[i].Addr == t.From {
			return true
		}
	}
	return false
}
