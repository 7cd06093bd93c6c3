// SPDX-License-Identifier: Apache-2.0

package drift

import (
	"net/netip"
	"slices"

	"github.com/svcscope/svcscope/pkg/kubeproxy"
	"github.com/svcscope/svcscope/pkg/ruleset"
	"github.com/svcscope/svcscope/pkg/service"
)

// name is what the port's chain of a kind is called.
func (c *check) name(k kubeproxy.Kind) string {
	all := kubeproxy.ChainsOf(c.want.Hash) // KUBE-SVC, KUBE-SVL, KUBE-FW, KUBE-EXT
	switch k {
	case kubeproxy.KindService:
		return all[0]
	case kubeproxy.KindLocal:
		return all[1]
	case kubeproxy.KindFirewall:
		return all[2]
	}
	return all[3]
}

// wants reports whether the port should have a chain of a kind.
func (c *check) wants(k kubeproxy.Kind) bool {
	switch k {
	case kubeproxy.KindService:
		return len(c.want.Cluster) > 0
	case kubeproxy.KindLocal:
		return len(c.want.Local) > 0
	case kubeproxy.KindExternal:
		return c.want.External
	}
	return len(c.want.Ranges) > 0
}

// filled reports whether the port should have a chain, which is there, with rules, and
// read. Where it should and is not, that is told by shared.
func (c *check) filled(k kubeproxy.Kind) bool {
	chain := c.chain(k)
	return c.wants(k) && chain != nil && len(chain.Rules) > 0
}

// shared finds chains that are missing or empty. Whoever refuses packets that could be
// served has no chains for them yet. An empty chain is none of kube-proxy's: it
// removes what it does not need.
func (c *check) shared() {
	for _, k := range [...]kubeproxy.Kind{kubeproxy.KindService, kubeproxy.KindLocal, kubeproxy.KindExternal, kubeproxy.KindFirewall} {
		switch chain := c.chain(k); {
		case !c.wants(k):
		case isEmpty(chain):
			c.add(finding{kind: EmptyChain, detail: chain.Name})
		case chain == nil && !c.refused && !(k == kubeproxy.KindFirewall && c.rangesLost()):
			c.add(finding{kind: MissingChain, detail: c.name(k), inFlight: true})
		}
	}
}

// rangesLost reports whether missing source ranges were found.
func (c *check) rangesLost() bool {
	return slices.ContainsFunc(c.found, func(f finding) bool { return f.kind == SourceRangesMissing })
}

// outside compares KUBE-EXT, which packets from outside pass. Which packets are taken
// for a pod's, a flag of kube-proxy tells (--detect-local-mode): rules for these may be
// there or not.
func (c *check) outside() {
	if !c.filled(kubeproxy.KindExternal) || c.refused || c.open {
		return
	}
	e := c.readExternal()
	want := c.want.FromOutside
	if want != kubeproxy.KindOther && c.chain(want) == nil {
		want = kubeproxy.KindOther // nothing can lead to it, which is told by shared
	}
	right := e.last == want && e.marked
	if c.want.FromOutside != kubeproxy.KindService { // externalTrafficPolicy: Local
		right = right && (e.routed || c.chains.Service == nil)
	}
	if e.foreign || !right {
		c.add(finding{kind: WrongTarget, detail: c.chains.External.Name, inFlight: true})
	}
}

// external is what the rules of a KUBE-EXT do.
type external struct {
	last kubeproxy.Kind // of the chain that takes all that comes so far; KindOther: none
	// marked and routed: packets of the node's own, or all, are marked to be
	// masqueraded, and led to KUBE-SVC.
	marked, routed bool
	foreign        bool // a rule leads to another port's chains, or ends packets
}

func (c *check) readExternal() (e external) {
	local := c.want.FromOutside != kubeproxy.KindService
	for i := range c.chains.External.Rules {
		r := &c.chains.External.Rules[i]
		all := takesNew(r)
		kind, hash := kubeproxy.ParseChain(r.Action.Chain)
		switch {
		case e.last != kubeproxy.KindOther: // no packet comes so far
		case kind == kubeproxy.KindMarkMasq:
			e.marked = e.marked || all || local && fromNode(r)
		case kind == kubeproxy.KindService || kind == kubeproxy.KindLocal:
			e.foreign = e.foreign || hash != c.want.Hash
			e.routed = e.routed || kind == kubeproxy.KindService && fromNode(r)
			if all && !(local && ofPods(r)) {
				e.last = kind
			}
		default:
			e.foreign = e.foreign || r.Action.Ends()
		}
	}
	return e
}

// ofPods reports whether a rule is kube-proxy's for packets of pods: with --cluster-cidr=0.0.0.0/0
// it takes them all.
func ofPods(r *ruleset.Rule) bool {
	_, form, _ := kubeproxy.ParseComment(r.Comment)
	return form == kubeproxy.FormPodTraffic
}

// fromNode reports whether a rule asks for packets of the node's own.
func fromNode(r *ruleset.Rule) bool {
	const local = 1 << 2 // RTN_LOCAL
	return slices.ContainsFunc(r.Matches, func(m ruleset.Match) bool {
		t, ok := m.(ruleset.AddrType)
		return ok && t.Source&local != 0 && !t.NotSource
	})
}

// ranges compares what enforces source ranges: the dispatch to KUBE-FW, its rules, and
// the rule of KUBE-PROXY-FIREWALL that drops what they do not take.
func (c *check) ranges() {
	if !c.wants(kubeproxy.KindFirewall) {
		return
	}
	for i := range c.want.Frontends {
		f := &c.want.Frontends[i]
		if f.To != kubeproxy.KindFirewall || c.refused {
			continue
		}
		lost := func(detail, in string) {
			c.add(finding{kind: SourceRangesMissing, frontend: service.LoadBalancerFrontend, detail: reached(&f.Frontend) + detail, inFlight: true, in: in})
		}
		switch l := c.leads(f); {
		case !l.right && l.wrong != nil && c.explained(f, l.wrong):
			lost("", "")
		case !c.drops(f):
			lost(" in filter", sharedChain("filter", firewallChain()))
		}
	}
	if fw := c.chains.Firewall; c.filled(kubeproxy.KindFirewall) && !c.asRanges(fw) {
		c.add(finding{kind: SourceRangesMissing, frontend: service.LoadBalancerFrontend, detail: fw.Name, inFlight: true})
	}
}

// drops reports whether filter drops what came to f from outside the ranges.
func (c *check) drops(f *Frontend) bool {
	return slices.ContainsFunc(c.refusals, func(r *kubeproxy.Refusal) bool {
		return r.Reason == kubeproxy.SourceRange && r.Rule.Action.Kind == ruleset.Drop && plain(r.Rule) && same(&r.Frontend, &f.Frontend)
	})
}

// asRanges reports whether a KUBE-FW lets in what the ranges say. Where the node's address
// is in a range, which is not known here, the load balancer's own addresses are let in,
// too.
func (c *check) asRanges(fw *ruleset.Chain) bool {
	in := make(map[netip.Prefix]bool)
	for i := range fw.Rules {
		r := &fw.Rules[i]
		kind, hash := kubeproxy.ParseChain(r.Action.Chain)
		switch {
		case kind == kubeproxy.KindExternal && hash == c.want.Hash:
			in[source(r)] = true
		case kind == kubeproxy.KindService, kind == kubeproxy.KindLocal, kind == kubeproxy.KindExternal, r.Action.Ends():
			return false
		}
	}
	for _, p := range c.want.Ranges {
		if !in[p] {
			return false
		}
	}
	for p := range in {
		if !slices.Contains(c.want.Ranges, p) && !c.balancer(p) {
			return false
		}
	}
	return true
}

// source is what a rule asks of the source address; the zero Prefix where it is more or
// less than a range.
func source(r *ruleset.Rule) netip.Prefix {
	var out netip.Prefix
	for _, m := range r.Matches {
		if s, ok := m.(ruleset.Source); ok && !s.Not && !out.IsValid() {
			out = s.Prefix.Masked()
		} else if ruleset.MayFail(m) {
			return netip.Prefix{}
		}
	}
	return out
}

// balancer reports whether a range is one of the load balancer's addresses.
func (c *check) balancer(p netip.Prefix) bool {
	return p.IsSingleIP() && slices.ContainsFunc(c.want.Frontends, func(f Frontend) bool {
		return f.Kind == kubeproxy.LoadBalancerIP && f.Addr == p.Addr()
	})
}

// lets reports whether a KUBE-FW takes every packet to KUBE-EXT, and needs no
// rule of KUBE-PROXY-FIREWALL.
func (c *check) lets(fw *ruleset.Chain) bool {
	return fw != nil && slices.ContainsFunc(fw.Rules, func(r ruleset.Rule) bool {
		kind, hash := kubeproxy.ParseChain(r.Action.Chain)
		return kind == kubeproxy.KindExternal && hash == c.want.Hash && takesNew(&r)
	})
}
