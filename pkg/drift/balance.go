// SPDX-License-Identifier: Apache-2.0

package drift

import (
	"math"
	"net/netip"

	"github.com/svcscope/svcscope/pkg/kubeproxy"
	"github.com/svcscope/svcscope/pkg/ruleset"
	"github.com/svcscope/svcscope/pkg/service"
)

// balances compares KUBE-SVC and KUBE-SVL: how connections are shared out.
func (c *check) balances() {
	if c.filled(kubeproxy.KindService) {
		c.balance(c.chains.Service, c.want.Cluster, c.want.Older)
	}
	if c.filled(kubeproxy.KindLocal) {
		c.balance(c.chains.Local, c.want.Local, nil)
	}
}

// balance is what the rules of a KUBE-SVC or KUBE-SVL do.
type balance struct {
	shares []*ruleset.Rule // that share connections out, in order
	sticky map[string]*ruleset.Recent
	to     map[string]bool // the chains that shares lead to
	// foreign: a rule that is none of kube-proxy's ends packets.
	foreign bool
}

func readBalance(chain *ruleset.Chain) balance {
	b := balance{to: make(map[string]bool, len(chain.Rules))}
	for i := range chain.Rules {
		r := &chain.Rules[i]
		kind, _ := kubeproxy.ParseChain(r.Action.Chain)
		switch {
		case kind != kubeproxy.KindEndpoint:
			b.foreign = b.foreign || r.Action.Ends()
		case kubeproxy.Returning(r) == nil:
			b.shares = append(b.shares, r)
			b.to[r.Action.Chain] = true
		case len(b.shares) == 0: // below the shares no client would come to it
			if b.sticky == nil {
				b.sticky = make(map[string]*ruleset.Recent)
			}
			b.sticky[r.Action.Chain] = kubeproxy.Returning(r)
		}
	}
	return b
}

// balance compares one chain. older are sets that are as good.
func (c *check) balance(chain *ruleset.Chain, want []service.Endpoint, older [][]service.Endpoint) {
	b := readBalance(chain)
	if b.foreign {
		c.add(finding{kind: WrongTarget, detail: chain.Name, inFlight: true})
		return
	}
	names := c.nearest(&b, want, older)
	for name, addr := range names {
		if !b.to[name] {
			c.add(finding{kind: MissingEndpoint, detail: addr.String(), inFlight: true})
		}
	}
	for name := range b.to {
		if _, ok := names[name]; !ok {
			c.add(finding{kind: ExtraEndpoint, detail: c.endpoint(name), inFlight: true})
		}
	}
	if b.leadsTo(names) && !b.even() {
		c.add(finding{kind: WrongProbability, detail: chain.Name})
	}
	c.affinity(chain, &b, names)
	c.endpoints(&b, names)
}

// names are the chains of endpoints.
func (c *check) names(eps []service.Endpoint) map[string]netip.AddrPort {
	out := make(map[string]netip.AddrPort, len(eps))
	for i := range eps {
		out[kubeproxy.EndpointChain(c.want.Port, eps[i].Addr)] = eps[i].Addr
	}
	return out
}

// nearest are the chains of those endpoints that the fewest shares differ from. An older
// kube-proxy, of whose rules one was deleted, has not missed the hints besides.
func (c *check) nearest(b *balance, want []service.Endpoint, older [][]service.Endpoint) map[string]netip.AddrPort {
	names := c.names(want)
	for _, other := range older {
		if n := c.names(other); b.apart(n) < b.apart(names) {
			names = n
		}
	}
	return names
}

// apart is how many chains the shares lack of these, or have beside them.
func (b *balance) apart(names map[string]netip.AddrPort) int {
	common := 0
	for name := range names {
		if b.to[name] {
			common++
		}
	}
	return len(names) + len(b.to) - 2*common
}

// leadsTo reports whether the shares lead to these chains and to no others.
func (b *balance) leadsTo(names map[string]netip.AddrPort) bool {
	return b.apart(names) == 0
}

// endpoint is the address of an endpoint's chain, or the chain where nothing tells.
func (c *check) endpoint(chain string) string {
	if addr := c.chains.Address(chain); addr.IsValid() {
		return addr.String()
	}
	return chain
}

// even reports whether every share is the same: of n rules the one at i takes a packet
// with the probability 1/(n-i), and the last one takes what is left.
func (b *balance) even() bool {
	for i, r := range b.shares {
		left := len(b.shares) - i
		var random *ruleset.Random
		for _, m := range r.Matches {
			switch m := m.(type) {
			case ruleset.Random:
				if random != nil {
					return false
				}
				random = &m
			case ruleset.Unknown:
			default:
				if ruleset.MayFail(m) {
					return false
				}
			}
		}
		if random == nil && left > 1 || random != nil && (left == 1 || !oneOf(random, left)) {
			return false
		}
	}
	return true
}

// oneOf reports whether a rule takes one packet of n. kube-proxy writes 1/n with ten
// digits, of which iptables makes a number of 31 bits, in both backends: it may be off by
// one.
func oneOf(r *ruleset.Random, n int) bool {
	return !r.Not && math.Abs(float64(r.Threshold)-(1<<31)/float64(n)) <= 1
}

// affinity compares the rules that take clients back to the endpoint that they had.
func (c *check) affinity(chain *ruleset.Chain, b *balance, names map[string]netip.AddrPort) {
	if !c.want.Affinity {
		if len(b.sticky) > 0 {
			// Clients that come back take no part in the sharing.
			c.add(finding{kind: WrongProbability, detail: chain.Name, inFlight: true})
		}
		return
	}
	for name := range names {
		// Of an endpoint that is missing that is told.
		if r := b.sticky[name]; b.to[name] && (r == nil || r.List != name || r.Seconds != c.want.AffinitySeconds) {
			c.add(finding{kind: AffinityMissing, detail: chain.Name, inFlight: true})
			return
		}
	}
}

// endpoints compares the chains of endpoints. Their names are hashes of the addresses:
// no change of the API makes one send to another address.
func (c *check) endpoints(b *balance, names map[string]netip.AddrPort) {
	for name, addr := range names {
		r, known := c.side.view.EndpointRules(name)
		switch {
		case !known || !b.to[name]:
		case r.Rules == 0:
			c.add(finding{kind: EmptyChain, detail: name})
		case r.To != addr || r.Cut || !r.Hairpin:
			c.add(finding{kind: WrongTarget, detail: name})
		case c.want.Affinity && !r.Remembers:
			c.add(finding{kind: AffinityMissing, detail: name, inFlight: true})
		}
	}
}
