// SPDX-License-Identifier: Apache-2.0

package drift

import (
	"strings"

	"github.com/svcscope/svcscope/pkg/kubeproxy"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/ruleset"
)

// nodeWide is what concerns all Services of one backend's rules of one family.
type nodeWide struct {
	differences []Difference
	// cut: no packet comes to KUBE-SERVICES of nat, so that what the Services' chains
	// hold says nothing: after a flush of nat they are empty, and kube-proxy fills
	// those alone that change.
	cut bool
	// empty: KUBE-SERVICES of nat has no rule, with the same consequence.
	empty bool
	// unreached are the chains of filter, as sharedChain names them, that no packet comes to:
	// as after a flush of filter, what they hold says nothing.
	unreached map[string]bool
	// emptied are the chains of all Services that have no rule, other than nat's KUBE-SERVICES.
	// That may be right: kube-proxy has nothing to write there, maybe.
	emptied map[string]bool
}

// explains reports whether a finding is but a consequence.
func (n *nodeWide) explains(f *finding) bool {
	if strings.HasPrefix(f.in, sharedChain("filter", "")) {
		return n.unreached[f.in]
	}
	return n.cut || n.empty
}

// look finds what is wrong with the node's chains. None of it depends on the API.
func (s *side) look() nodeWide {
	var n nodeWide
	add := func(k Kind, detail string) {
		n.differences = append(n.differences, Difference{Family: s.view.Family, Backend: s.view.Backend, Kind: k, Detail: detail})
	}
	var missing []kubeproxy.BaseJump
	for _, j := range kubeproxy.BaseJumps() {
		if !jumps(s.set.Table(j.Table), &j) {
			missing = append(missing, j)
		}
	}
	n.cut = lacks(missing, "nat", netfilter.HookPrerouting) && lacks(missing, "nat", netfilter.HookOutput)
	postrouting := lacks(missing, "nat", netfilter.HookPostrouting)
	n.unreached, n.emptied = unreached(missing), s.emptied()
	for _, j := range missing {
		kind := JumpMissing
		if j.Chain == kubeproxy.ChainPostrouting && !n.cut {
			kind = MasqueradeMissing
		}
		add(kind, j.Table+" "+j.Hook.String()+" → "+j.Chain)
	}
	nat := s.set.Table("nat")
	if !postrouting || !n.cut { // else nat was flushed, and all of it is one cause
		for _, detail := range masquerade(nat) {
			add(MasqueradeMissing, detail)
		}
	}
	if n.empty = !n.cut && isEmpty(nat.Chain(servicesChain())); n.empty {
		add(EmptyChain, "nat "+servicesChain())
	}
	if isEmpty(s.set.Table("filter").Chain(kubeproxy.ChainForward)) && !lacksChain(missing, kubeproxy.ChainForward) {
		add(EmptyChain, "filter "+kubeproxy.ChainForward)
	}
	if !n.cut {
		for _, detail := range shadows(s.view, nat) {
			add(JumpShadowed, detail)
		}
	}
	return n
}

// unreached are the chains of filter to which all jumps are missing.
func unreached(missing []kubeproxy.BaseJump) map[string]bool {
	jumps := make(map[string]int)
	for _, j := range kubeproxy.BaseJumps() {
		jumps[sharedChain(j.Table, j.Chain)]++
	}
	out := make(map[string]bool)
	for _, j := range missing {
		chain := sharedChain(j.Table, j.Chain)
		if jumps[chain]--; j.Table == "filter" && jumps[chain] == 0 {
			out[chain] = true
		}
	}
	return out
}

// emptied lists the chains of all Services that have no rule.
func (s *side) emptied() map[string]bool {
	out := make(map[string]bool)
	note := func(table, chain string) {
		if isEmpty(s.set.Table(table).Chain(chain)) {
			out[sharedChain(table, chain)] = true
		}
	}
	note("nat", nodePortsChain())
	note("filter", nodePortsChain())
	for _, chain := range kubeproxy.RefusalChains() {
		note("filter", chain)
	}
	return out
}

// servicesChain is the name of KUBE-SERVICES.
func servicesChain() string { return kubeproxy.DispatchChains()[0] }

// externalServicesChain and firewallChain are the names of KUBE-EXTERNAL-SERVICES and
// KUBE-PROXY-FIREWALL.
func externalServicesChain() string { return kubeproxy.RefusalChains()[1] }
func firewallChain() string         { return kubeproxy.RefusalChains()[2] }

func lacks(missing []kubeproxy.BaseJump, table string, h netfilter.Hook) bool {
	for _, j := range missing {
		if j.Table == table && j.Hook == h {
			return true
		}
	}
	return false
}

func lacksChain(missing []kubeproxy.BaseJump, chain string) bool {
	for _, j := range missing {
		if j.Chain == chain {
			return true
		}
	}
	return false
}

// jumps reports whether a built-in chain of the hook has the jump for all new
// connections, or is not read.
func jumps(t *ruleset.Table, j *kubeproxy.BaseJump) bool {
	for c := range t.BaseChains {
		if c.Base.Hook != j.Hook {
			continue
		}
		if c.Unread {
			return true
		}
		for i := range c.Rules {
			if r := &c.Rules[i]; r.Action.Chain == j.Chain && takesNew(r) {
				return true
			}
		}
	}
	return false
}

// takesNew reports whether a rule takes the first packet of every connection.
func takesNew(r *ruleset.Rule) bool {
	const stateNew = 8 // XT_CONNTRACK_STATE of NEW, include/uapi/linux/netfilter/xt_conntrack.h
	for _, m := range r.Matches {
		switch m := m.(type) {
		case ruleset.ConntrackState:
			if m.Not == (m.Mask&stateNew != 0) {
				return false
			}
		case ruleset.Unknown:
		default:
			if ruleset.MayFail(m) {
				return false
			}
		}
	}
	return true
}

func isEmpty(c *ruleset.Chain) bool { return c != nil && !c.Unread && len(c.Rules) == 0 }

// masquerade says what of KUBE-POSTROUTING and KUBE-MARK-MASQ keeps marked packets from
// getting the node's address, or packets from being marked. The bit of the mark is
// free (--iptables-masquerade-bit), and --random-fully depends on the release.
func masquerade(nat *ruleset.Table) []string {
	var out []string
	if c := nat.Chain(kubeproxy.ChainPostrouting); c == nil {
		out = append(out, "nat has no "+kubeproxy.ChainPostrouting)
	} else if marked, others := masquerades(c); !c.Unread && !marked {
		out = append(out, kubeproxy.ChainPostrouting+" does not come to MASQUERADE")
	} else if !c.Unread && others {
		out = append(out, kubeproxy.ChainPostrouting+" masquerades what is not marked, too")
	}
	if c := nat.Chain(kubeproxy.ChainMarkMasq); c == nil {
		out = append(out, "nat has no "+kubeproxy.ChainMarkMasq)
	} else if !c.Unread && !marks(c) {
		out = append(out, kubeproxy.ChainMarkMasq+" does not mark")
	}
	return out
}

// masquerades reports whether packets with the mark come to a MASQUERADE, and whether all
// others do, too.
func masquerades(c *ruleset.Chain) (marked, others bool) {
	others = true
	for i := range c.Rules {
		switch r := &c.Rules[i]; {
		case !r.Action.Ends():
		case r.Action.Kind == ruleset.Masquerade && asks(r, withMark):
			return true, others && asks(r, nothing)
		case asks(r, nothing):
			return false, false
		case asks(r, withoutMark):
			others = false
		}
	}
	return false, false
}

// What a rule asks of a packet's mark.
type markCondition int

const (
	nothing     markCondition = iota // no condition at all
	withMark                         // at most that it has the mark
	withoutMark                      // that it has not, most likely
)

// asks reports whether a rule asks that, and nothing else. A condition that is not decoded may be
// that a packet has no mark.
func asks(r *ruleset.Rule, what markCondition) bool {
	for _, m := range r.Matches {
		mark, ok := m.(ruleset.Mark)
		_, unknown := m.(ruleset.Unknown)
		switch {
		case !ruleset.MayFail(m):
		case ok && what == withMark && !mark.Not, what == withoutMark && (ok && mark.Not || unknown):
		default:
			return false
		}
	}
	return true
}

// marks reports whether every packet is marked.
func marks(c *ruleset.Chain) bool {
	for i := range c.Rules {
		r := &c.Rules[i]
		if !takesNew(r) {
			continue
		}
		if r.Action.Kind == ruleset.SetMark {
			return true
		}
		if r.Action.Ends() {
			return false
		}
	}
	return false
}
