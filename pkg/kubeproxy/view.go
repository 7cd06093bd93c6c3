// SPDX-License-Identifier: Apache-2.0

package kubeproxy

import (
	"iter"
	"net/netip"

	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/ruleset"
	"github.com/svcscope/svcscope/pkg/service"
)

// View is what kube-proxy's chains in one ruleset say, of one of its modes: NewView has the
// iptables mode's, and NewNativeView the nftables mode's. It refers to the
// ruleset's chains and rules and copies none. Only Update and UpdateNative change it.
type View struct {
	Backend ruleset.Backend
	Family  netfilter.Family
	// Ports has the Service ports that have a chain of their own, by Hash.
	Ports map[string]*PortChains
	// Dispatch has the rules of nat KUBE-SERVICES and KUBE-NODEPORTS that
	// send a Service's address or node port on, in the chains' order.
	Dispatch []Dispatch
	// DispatchRules is the length of nat KUBE-SERVICES: what a first packet
	// passes at worst. In the nftables mode it is that of the chain services.
	DispatchRules int
	// Refusals has the rules that refuse a Service's packets.
	Refusals []Refusal
	// HealthChecks has the filter rules that let load balancers' health
	// checks in.
	HealthChecks []HealthCheck
	// Version grows when anything but counters changed.
	Version uint64
	// Present is true where nat has KUBE-SERVICES (or services); Prerouting and Output
	// tell whether a rule of the built-in chain jumps to it, or could while
	// that chain is unread.
	Present, Prerouting, Output bool

	// endpoints has what the rules of KUBE-SEP chains do that were read once. The
	// name is a hash of the address: the chain need not be kept.
	endpoints map[string]endpointChain
	// missing has the KUBE-SEP chains that a port jumps to and that are not known
	// yet, with the port's hash: a reading of some chains finds such.
	missing map[string]string
	// stale has the KUBE-SEP chains that were written anew since they were read, as what
	// leads to them tells.
	stale map[string]bool

	// Native is what the nftables mode has beside; nil in iptables mode.
	Native *NativeState
	// nativeNames has what the names of that mode's chains say.
	nativeNames map[string]nativeChain
}

// endpointChain is a KUBE-SEP chain that was read.
type endpointChain struct {
	rules EndpointRules
	port  string // the hash of the port that jumps to it; empty where none does
}

// EndpointRules is what the rules of a KUBE-SEP chain do.
type EndpointRules struct {
	// To is where the first DNAT rule sends to; not valid where there is none.
	To netip.AddrPort
	// Rules is their number; kube-proxy writes two.
	Rules int
	// Hairpin: a rule has the endpoint's connections to itself masqueraded.
	Hairpin bool
	// Cut: not every packet comes to the DNAT rule, or matches it.
	Cut bool
	// Remembers: the DNAT rule notes the client in the list of the chain's name, to
	// which the affinity rules of KUBE-SVC and KUBE-SVL look.
	Remembers bool
}

// EndpointRules returns what a KUBE-SEP chain does; ok is false where it was never
// read, or is Stale. It is known when the chain's rules are not kept, too.
func (v *View) EndpointRules(chain string) (r EndpointRules, ok bool) {
	e, ok := v.endpoints[chain]
	return e.rules, ok && !v.stale[chain]
}

// Stale reports whether a KUBE-SEP chain has to be read again: the rules that lead to it
// want affinity, and those of the chain, which are not kept, did not note clients. The
// rest of it is what its name is a hash of.
func (v *View) Stale(chain string) bool { return v.stale[chain] }

// Address is where a KUBE-SEP chain sends to; not valid where it was not read.
func (v *View) Address(chain string) netip.AddrPort { return v.endpoints[chain].rules.To }

// Recognised reports whether kube-proxy works here in the view's mode: its
// KUBE-SERVICES, or the nftables mode's services, is there and packets reach it.
func (v *View) Recognised() bool { return v.Present && (v.Prerouting || v.Output) }

// PortChains is the chains of one Service port in one family; chains that it
// does not have are nil. It is not changed: Update puts another in its place.
type PortChains struct {
	Hash string
	// Name is the port's name by the comments of its rules, if one was
	// found that gives this Hash; Named tells. Comments of endpoints are
	// left out by kube-proxy above 1,000 endpoints, others never.
	Name  service.PortName
	Named bool

	Service  *ruleset.Chain // KUBE-SVC-…
	Local    *ruleset.Chain // KUBE-SVL-…
	External *ruleset.Chain // KUBE-EXT-…
	Firewall *ruleset.Chain // KUBE-FW-…
	// Endpoints are those that Service and Local jump to, in the order of
	// the first jump.
	Endpoints []EndpointChains
	// Native is what the chains do in the nftables mode; nil in iptables mode.
	Native *NativePort
}

// EndpointChains is one endpoint of a port in the rules.
type EndpointChains struct {
	// Addr is where its DNAT rule or, where that was not read, its comment
	// sends to; not valid where neither tells.
	Addr netip.AddrPort
	// Chain is the name, KUBE-SEP-…. In the nftables mode it is empty of endpoints that
	// have no chain.
	Chain string
	// SEP is the chain; nil where rules jump to one that was not read.
	SEP *ruleset.Chain
}

// Address is where the endpoint of that chain is; not valid where nothing tells.
func (p *PortChains) Address(chain string) netip.AddrPort {
	for i := range p.Endpoints {
		if p.Endpoints[i].Chain == chain {
			return p.Endpoints[i].Addr
		}
	}
	return netip.AddrPort{}
}

// Jump is a rule that passes a new connection on, to be counted.
type Jump struct {
	Chain  *ruleset.Chain // the chain that Rule is in
	Index  int            // of Rule in Chain
	Rule   *ruleset.Rule
	Target string // the name of the chain that it jumps to
}

// EndpointJumps yields the jumps from KUBE-SVC and KUBE-SVL to KUBE-SEP, those
// for clients that come back (affinity) too. Their packets sum to the
// connections of the port; those with one Target to the endpoint's.
func (p *PortChains) EndpointJumps() iter.Seq[Jump] {
	return func(yield func(Jump) bool) {
		_ = jumps(p.Service, isEndpoint, yield) && jumps(p.Local, isEndpoint, yield)
	}
}

// ExternalJumps yields the jumps from KUBE-EXT to KUBE-SVC and KUBE-SVL: those
// of pods and of this node under externalTrafficPolicy Local too, but not those
// to KUBE-MARK-MASQ. Their packets sum to the connections by node port,
// external or load-balancer address.
func (p *PortChains) ExternalJumps() iter.Seq[Jump] {
	return func(yield func(Jump) bool) {
		jumps(p.External, isService, yield)
	}
}

func isEndpoint(k Kind) bool { return k == KindEndpoint }
func isService(k Kind) bool  { return k == KindService || k == KindLocal }

// jumps yields the jumps of c to chains of a kind; false once yield was.
func jumps(c *ruleset.Chain, want func(Kind) bool, yield func(Jump) bool) bool {
	if c == nil {
		return true
	}
	for i := range c.Rules {
		r := &c.Rules[i]
		if r.Action.Kind != ruleset.Jump && r.Action.Kind != ruleset.Goto {
			continue
		}
		if k, _ := ParseChain(r.Action.Chain); !want(k) {
			continue
		}
		if !yield(Jump{Chain: c, Index: i, Rule: r, Target: r.Action.Chain}) {
			return false
		}
	}
	return true
}

// FrontendKind is by which kind of address a Service is reached.
type FrontendKind uint8

// The kinds of frontend.
const (
	UnknownFrontend FrontendKind = iota // an address whose rule does not tell which
	ClusterIP
	ExternalIP
	LoadBalancerIP
	NodePort
)

// Frontend is an address and port, or a node port, that packets are sent to.
type Frontend struct {
	Kind     FrontendKind
	Addr     netip.Addr // not valid for a node port
	Port     uint16
	Protocol service.Protocol // empty where the rule does not ask for one
}

// Dispatch is a rule of nat KUBE-SERVICES or KUBE-NODEPORTS; in the nftables mode an
// element of the map that the rule looks packets up in.
type Dispatch struct {
	Frontend Frontend
	// Target is the kind of chain that it jumps to: KindService, KindLocal,
	// KindExternal or KindFirewall; Hash is in that chain's name.
	Target Kind
	Hash   string
	// Name is what its comment says, with the protocol; Named is false
	// where it says nothing that gives Hash.
	Name  service.PortName
	Named bool
	Chain *ruleset.Chain
	Index int
	Rule  *ruleset.Rule
}

// Reason is why a rule refuses packets.
type Reason string

// The reasons to refuse, spelled as the label reason of
// svcscope_service_rejected_packets_total.
const (
	NoEndpoints      Reason = "no_endpoints"
	NoLocalEndpoints Reason = "no_local_endpoints"
	SourceRange      Reason = "source_range"
)

// Refusal is a rule that refuses or drops a Service's packets, or marks them
// to be dropped (Kubernetes 1.24 in nat). In the nftables mode it is an element of the map
// that the rule looks packets up in; of source ranges the rule that drops others.
type Refusal struct {
	Table    string // filter, or nat; NativeTable in the nftables mode
	Frontend Frontend
	Reason   Reason
	// Name is what the comment says; Named is false where it says nothing.
	// Hash is Name's, or that of the chain the rule is about.
	Name  service.PortName
	Named bool
	Hash  string
	Chain *ruleset.Chain
	Index int
	Rule  *ruleset.Rule
	// Hooks are those that lead there, and Priority is the lowest of the built-in chains
	// that do: of the nftables mode alone.
	Hooks    ruleset.Hooks
	Priority int32
}

// HealthCheck is a rule that accepts packets to a health check node port.
type HealthCheck struct {
	// Port's protocol is not in the rule: it is that of the port's chains
	// in this ruleset, TCP where there are none.
	Port  service.PortName
	Chain *ruleset.Chain
	Rule  *ruleset.Rule
}
