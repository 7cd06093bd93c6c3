// SPDX-License-Identifier: Apache-2.0

package drift

import (
	"slices"

	"github.com/svcscope/svcscope/pkg/kubeproxy"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/ruleset"
)

// shadows finds rules in the built-in chains of nat, above the jump to KUBE-SERVICES, and
// in KUBE-SERVICES itself, that end the way of a packet to an address which kube-proxy
// serves. A rule counts where the packet's destination alone decides that it matches: one
// that asks for a source, a device or a mark is somebody's choice. So are rules in other
// chains: host ports (CNI-HOSTPORT-DNAT), containers (DOCKER) and network plugins stand
// above KUBE-SERVICES rightly.
func shadows(v *kubeproxy.View, nat *ruleset.Table) []string {
	var out []string
	for c := range nat.BaseChains {
		if c.Base.Hook != netfilter.HookPrerouting && c.Base.Hook != netfilter.HookOutput {
			continue
		}
		jump := slices.IndexFunc(c.Rules, func(r ruleset.Rule) bool {
			return r.Action.Chain == servicesChain() && takesNew(&r)
		})
		out = append(out, shadowing(v, c, c.Rules[:max(jump, 0)], func(int, *kubeproxy.Dispatch) bool { return true })...)
	}
	services := nat.Chain(servicesChain())
	if services == nil {
		return out
	}
	nodePorts := slices.IndexFunc(services.Rules, func(r ruleset.Rule) bool { return r.Action.Chain == nodePortsChain() })
	return append(out, shadowing(v, services, services.Rules, func(i int, d *kubeproxy.Dispatch) bool {
		if d.Chain == services {
			return i < d.Index
		}
		return i < nodePorts
	})...)
}

// nodePortsChain is the name of KUBE-NODEPORTS.
func nodePortsChain() string { return kubeproxy.DispatchChains()[1] }

// shadowing lists the rules of a chain that end packets to an address for which a
// rule below, as below tells by the index, sends them on.
func shadowing(v *kubeproxy.View, c *ruleset.Chain, rules []ruleset.Rule, below func(int, *kubeproxy.Dispatch) bool) []string {
	var out []string
	for i := range rules {
		r := &rules[i]
		if !r.Action.Ends() || !decidable(r) {
			continue
		}
		if slices.ContainsFunc(v.Dispatch, func(d kubeproxy.Dispatch) bool { return below(i, &d) && meets(r, &d.Frontend) }) {
			out = append(out, "nat "+c.Name+": "+r.Spec(v.Family))
		}
	}
	return out
}

// decidable reports whether a packet's destination decides whether a rule matches its
// first packet.
func decidable(r *ruleset.Rule) bool {
	for _, m := range r.Matches {
		switch m := m.(type) {
		case ruleset.Protocol, ruleset.Destination, ruleset.DestinationPort, ruleset.ConntrackState:
		case ruleset.Multiport:
			if m.Source {
				return false
			}
		case ruleset.AddrType:
			if m.Source != 0 || m.Flags != 0 {
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

// meets reports whether a decidable rule matches the first packet to a frontend: of a
// node port, to some address of the node.
func meets(r *ruleset.Rule, f *kubeproxy.Frontend) bool {
	for _, m := range r.Matches {
		if !holds(m, f) {
			return false
		}
	}
	return true
}

func holds(m ruleset.Match, f *kubeproxy.Frontend) bool {
	const stateNew = 8     // as in takesNew
	const local = 1 << 2   // RTN_LOCAL, include/uapi/linux/rtnetlink.h
	const unicast = 1 << 1 // RTN_UNICAST
	nodePort := !f.Addr.IsValid()
	switch m := m.(type) {
	case ruleset.Protocol:
		return (m.Number == f.Protocol.Number()) != m.Not
	case ruleset.Destination:
		// Which addresses a node has is not known here: only a rule for all of them
		// is sure to meet a node port.
		if nodePort {
			return m.Not == (m.Prefix.Bits() > 0)
		}
		return m.Prefix.Contains(f.Addr) != m.Not
	case ruleset.DestinationPort:
		return (m.First <= f.Port && f.Port <= m.Last) != m.Not
	case ruleset.Multiport:
		in := slices.ContainsFunc(m.Ports, func(p ruleset.PortRange) bool { return p.First <= f.Port && f.Port <= p.Last })
		return in != m.Not
	case ruleset.ConntrackState:
		return (m.Mask&stateNew != 0) != m.Not
	case ruleset.AddrType:
		// An external address may be one of the node's, a cluster IP is none.
		switch {
		case nodePort:
			return (m.Dest&local != 0) != m.NotDest
		case f.Kind == kubeproxy.ClusterIP:
			return (m.Dest&unicast != 0) != m.NotDest
		}
		return false
	}
	return true
}
