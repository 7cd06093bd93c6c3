// SPDX-License-Identifier: Apache-2.0

package drift

import (
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
	// filterCut: some jump to the chains that refuse packets is missing, as after a
	// flush of filter.
	filterCut bool
}

// explains reports whether a finding is but a consequence.
func (n *nodeWide) explains(f *finding) bool {
	if f.filter {
		return n.filterCut
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
	for _, j := range missing {
		n.filterCut = n.filterCut || j.Table == "filter" && j.Chain != kubeproxy.ChainForward
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

// servicesChain is the name of KUBE-SERVICES.
func servicesChain() string { return kubeproxy.DispatchChains()[0] }

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
	} else if !c.Unread && !masquerades(c) {
		out = append(out, kubeproxy.ChainPostrouting+" does not come to MASQUERADE")
	}
	if c := nat.Chain(kubeproxy.ChainMarkMasq); c == nil {
		out = append(out, "nat has no "+kubeproxy.ChainMarkMasq)
	} else if !c.Unread && !marks(c) {
		out = append(out, kubeproxy.ChainMarkMasq+" does not mark")
	}
	return out
}

// masquerades reports whether marked packets come to a MASQUERADE.
func masquerades(c *ruleset.Chain) bool {
	for i := range c.Rules {
		r := &c.Rules[i]
		onMark := true // no other condition
		always := true
		for _, m := range r.Matches {
			_, mark := m.(ruleset.Mark)
			always = always && !ruleset.MayFail(m)
			onMark = onMark && (mark || !ruleset.MayFail(m))
		}
		switch {
		case r.Action.Kind == ruleset.Masquerade && onMark:
			return true
		case always && r.Action.Ends():
			return false
		}
	}
	return false
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
