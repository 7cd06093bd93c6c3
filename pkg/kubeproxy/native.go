// SPDX-License-Identifier: Apache-2.0

package kubeproxy

import (
	"net/netip"
	"time"

	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/ruleset"
)

// Native is View.Backend of kube-proxy's nftables mode, whose tables are beside those of
// iptables in nf_tables.
const Native ruleset.Backend = "nftables"

// NativeState is what the nftables mode has beside the Services' chains.
type NativeState struct {
	// ClusterIPs are the active ones; packets to other ports of these are refused.
	ClusterIPs []netip.Addr
	// NodePortIPs accept packets to node ports; AnyNodePortIP: all addresses of the node do.
	NodePortIPs   []netip.Addr
	AnyNodePortIP bool
	// Marks: some rule marks packets to be masqueraded; Masquerades: packets come to a rule
	// that does it.
	Marks, Masquerades bool
	// Undecoded counts what is not understood, by kind: chain, map, element, rule.
	Undecoded map[string]uint64
}

// NativePort is what the chains of one port do in the nftables mode.
type NativePort struct {
	Cluster, Local Balance // service-…, local-…
	// Sources are those that may send to the load balancer's addresses, of a port that has
	// a chain firewall-….
	Sources []AddrRange
}

// AddrRange is a range of addresses, both ends included.
type AddrRange struct{ First, Last netip.Addr }

// Balance is how a chain chooses an endpoint: the zero value is of a chain that is not
// there, or empty.
type Balance struct {
	// Shares is of how many numbers one is chosen at random, and To where each leads to;
	// not valid where that is not known. An endpoint that is alone needs no number.
	Shares uint32
	To     []netip.AddrPort
	// Returning are the endpoints to which clients are sent that come back within
	// Affinity.
	Returning []netip.AddrPort
	Affinity  time.Duration
	// Marks: packets to the cluster address are marked to be masqueraded here, in all or
	// those from outside the cluster (Kubernetes before 1.36).
	Marks bool
}

// NewNativeView finds what kube-proxy's nftables mode has in the rules of nf_tables of one
// family: the same that NewView finds of its iptables mode. Chains are those of the table
// kube-proxy; PortChains has the hash that the port's chains have in iptables mode, and
// what the nftables mode alone has in PortChains.Native and View.Native. It takes any
// ruleset, and fails on none.
func NewNativeView(rs *ruleset.Ruleset) *View {
	v := &View{Backend: Native, Ports: map[string]*PortChains{}, Native: &NativeState{}}
	if rs != nil {
		v.UpdateNative(rs)
	}
	return v
}

// UpdateNative brings v up to date with the table kube-proxy of a ruleset, of which
// something has changed. PortChains that say the same as before stay.
func (v *View) UpdateNative(rs *ruleset.Ruleset) {
	v.Version++
	v.Family = rs.Family
	v.Dispatch, v.DispatchRules, v.Refusals = nil, 0, nil
	v.Present, v.Prerouting, v.Output = false, false, false
	v.Native = &NativeState{}
	old := v.Ports
	v.Ports = make(map[string]*PortChains, len(old))
	t := rs.Table(NativeTable)
	if t == nil {
		v.nativeNames = nil
		return
	}
	b := &nativeBuilder{
		View: v, table: t, reach: t.Reach(), names: make(map[string]nativeChain, len(v.nativeNames)),
		priorities: make(map[*ruleset.Chain]int32),
	}
	b.chains()
	b.state()
	b.dispatch()
	b.endpoints()
	for hash, p := range v.Ports {
		if was := old[hash]; was != nil && was.sameNative(p) {
			v.Ports[hash] = was
		}
	}
	v.nativeNames = b.names
}

// nativeChain is what the name of a chain says, with the hash that the port has in
// iptables mode.
type nativeChain struct {
	NativeName
	hash string
}

// nativeBuilder makes a View anew.
type nativeBuilder struct {
	*View
	table *ruleset.Table
	reach map[*ruleset.Chain]ruleset.Hooks
	names map[string]nativeChain
	// priorities are of the chains that were asked for.
	priorities map[*ruleset.Chain]int32
	// seen has the endpoints of the port at hand, once these are many.
	seen map[endpointKey]bool
}

type endpointKey struct {
	addr  netip.AddrPort
	chain string
}

// odd counts something that is not understood.
func (b *nativeBuilder) odd(kind string) {
	if b.Native.Undecoded == nil {
		b.Native.Undecoded = make(map[string]uint64)
	}
	b.Native.Undecoded[kind]++
}

// name reads the name of a Service port's chain, which is known when it was read before.
func (b *nativeBuilder) name(chain string) (n nativeChain, ok bool) {
	if n, ok = b.names[chain]; ok {
		return n, true
	}
	if n, ok = b.nativeNames[chain]; !ok {
		if n.NativeName, ok = ParseNative(chain); !ok {
			return nativeChain{}, false
		}
		n.hash = Hash(n.Port)
	}
	b.names[chain] = n
	return n, true
}

// chains finds the chains of Services' ports. One that is empty, and that nothing leads to,
// waits to be deleted at kube-proxy's next sync.
func (b *nativeBuilder) chains() {
	for _, c := range b.table.Chains {
		if !OfService(c.Name) || len(c.Rules) == 0 && !c.Unread && b.reach[c] == 0 {
			continue
		}
		n, ok := b.name(c.Name)
		if !ok {
			b.odd("chain")
			continue
		}
		if n.Kind == KindEndpoint {
			continue
		}
		p := b.Ports[n.hash]
		if p == nil {
			p = &PortChains{Hash: n.hash, Name: n.Port, Named: true, Native: &NativePort{}}
			b.Ports[n.hash] = p
		}
		switch n.Kind {
		case KindService:
			p.Service = c
		case KindLocal:
			p.Local = c
		case KindExternal:
			p.External = c
		case KindFirewall:
			p.Firewall = c
		}
	}
}

// state reads what is the node's.
func (b *nativeBuilder) state() {
	b.Native.ClusterIPs = b.addresses(nativeClusterIPs)
	b.Native.NodePortIPs = b.addresses(nativeNodePortIPs)
	for c, hooks := range b.reach {
		for i := range c.Rules {
			switch a := &c.Rules[i].Action; {
			case a.Kind == ruleset.Masquerade && hooks.Has(netfilter.HookPostrouting):
				b.Native.Masquerades = true
			case marks(a) && !hooks.Has(netfilter.HookPostrouting):
				b.Native.Marks = true
			}
		}
	}
}

// marks reports whether a rule sets a bit of the mark, itself or in a chain of its own.
func marks(a *ruleset.Action) bool {
	return a.Kind == ruleset.SetMark && a.Value != 0 || a.Chain == nativeMasquerade
}

// addresses are those in a set.
func (b *nativeBuilder) addresses(set string) []netip.Addr {
	s := b.table.Sets[set]
	if s == nil || !s.HasKeys(ruleset.AddressField) {
		return nil
	}
	out := make([]netip.Addr, 0, len(s.Elements))
	for i := range s.Elements {
		if key, ok := s.Key(&s.Elements[i]); ok {
			out = append(out, key.Addr)
		} else {
			b.odd("element")
		}
	}
	return out
}
