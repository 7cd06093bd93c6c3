// SPDX-License-Identifier: Apache-2.0

package drift

import (
	"maps"
	"slices"

	"github.com/svcscope/svcscope/pkg/kubeproxy"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/ruleset"
)

// family is where kube-proxy's iptables mode may be at work in one family.
type family struct {
	family netfilter.Family
	rules  []*Rules // of which packets come to KUBE-SERVICES, or, without such, all with its chains
	sides  []*side  // of rules
	// native: a table of kube-proxy's nftables mode is there, too.
	native bool
}

// candidates finds the rules of one family that are to be judged.
func candidates(in *Input, f netfilter.Family) family {
	out := family{family: f}
	if ipvsMode(in) {
		return out
	}
	for i := range in.Rules {
		r := &in.Rules[i]
		if r.View.Family != f {
			continue
		}
		out.native = out.native || r.NFTablesMode
		if present(r) {
			out.rules = append(out.rules, r)
		}
	}
	if slices.ContainsFunc(out.rules, reaches) {
		out.rules = slices.DeleteFunc(out.rules, func(r *Rules) bool { return !reaches(r) })
	} else if out.native {
		out.rules = nil // what the iptables mode left behind: no packet comes to it
	}
	return out
}

// ipvsMode reports whether kube-proxy works in IPVS mode: it has a KUBE-SERVICES there,
// too, but no rule in it for a Service. Chains of Services may have been left behind by
// the iptables mode, whose KUBE-SERVICES leads to KUBE-NODEPORTS unless it was emptied. Others
// have virtual servers as well.
func ipvsMode(in *Input) bool {
	if !in.IPVS {
		return false
	}
	for i := range in.Rules {
		v := in.Rules[i].View
		if v.DispatchRules == 0 && hasServices(v) || len(v.Dispatch) > 0 || leadsToNodePorts(in.Rules[i].Set) {
			return false
		}
	}
	return true
}

// hasServices reports whether there are chains that only the iptables mode makes.
func hasServices(v *kubeproxy.View) bool {
	for _, p := range v.Ports {
		if p.Service != nil || p.Local != nil {
			return true
		}
	}
	return false
}

func leadsToNodePorts(set *ruleset.Ruleset) bool {
	services := set.Table("nat").Chain(servicesChain())
	return services != nil && slices.ContainsFunc(services.Rules, func(r ruleset.Rule) bool { return r.Action.Chain == nodePortsChain() })
}

// present reports whether kube-proxy has written its rules. Before its first sync has come
// to its end, which takes minutes for many Services, there are its chains and the jumps
// to them, and nothing in nat's. When nat was flushed with its chains, the jumps are gone
// and filter is as it was.
func present(r *Rules) bool {
	if r.View.DispatchRules > 0 || len(r.View.Ports) > 0 {
		return true
	}
	forward := r.Set.Table("filter").Chain(kubeproxy.ChainForward)
	return !reaches(r) && forward != nil && len(forward.Rules) > 0
}

func reaches(r *Rules) bool { return r.View.Recognised() }

// add adds what was found in one family.
func (r *Result) add(f *family) {
	if len(f.sides) == 0 {
		return
	}
	if f.native && serves(f.sides[0]) {
		// Which of the two kube-proxy writes is not known, and the other one is stale.
		r.Differences = append(r.Differences, Difference{Family: f.family, Kind: TwoModes, Detail: "iptables and nftables"})
		return
	}
	r.Families = append(r.Families, f.family)
	primary := f.primary()
	r.Backends[f.family] = primary.view.Backend
	r.Differences = primary.differences(r.Differences)
	maps.Copy(r.causes, primary.cause)
	if len(f.sides) == 2 && common(f.sides[0].view, f.sides[1].view) {
		r.Differences = append(r.Differences, Difference{
			Family: f.family, Kind: TwoBackends, Detail: string(ruleset.Legacy) + " and " + string(ruleset.NFT),
		})
	}
}

// serves reports whether packets to some address are sent on.
func serves(s *side) bool { return s.view.Recognised() && len(s.view.Dispatch) > 0 }

// primary is the side that kube-proxy writes: of two the one that fits the API better,
// else the one of nf_tables. Of the other nothing is said but that it is there.
func (f *family) primary() *side {
	return slices.MinFunc(f.sides, func(a, b *side) int {
		if c := len(a.odd) + len(a.strays) - len(b.odd) - len(b.strays); c != 0 {
			return c
		}
		if a.view.Backend == ruleset.NFT {
			return -1
		}
		return 1
	})
}

// common reports whether two backends send packets to the same address on.
func common(a, b *kubeproxy.View) bool {
	if !a.Recognised() || !b.Recognised() {
		return false
	}
	type key struct {
		addr     [16]byte
		port     uint16
		protocol uint8
	}
	of := func(d *kubeproxy.Dispatch) key {
		return key{d.Frontend.Addr.As16(), d.Frontend.Port, d.Frontend.Protocol.Number()}
	}
	has := make(map[key]struct{}, len(a.Dispatch))
	for i := range a.Dispatch {
		has[of(&a.Dispatch[i])] = struct{}{}
	}
	return slices.ContainsFunc(b.Dispatch, func(d kubeproxy.Dispatch) bool {
		_, ok := has[of(&d)]
		return ok
	})
}
