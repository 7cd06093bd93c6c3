// SPDX-License-Identifier: Apache-2.0

package drift

import (
	"cmp"

	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/ruleset"
	"github.com/svcscope/svcscope/pkg/service"
)

// Kind is what is wrong; docs/drift.md tells what to do.
type Kind string

// The kinds of one Service port. EmptyChain is also of the node, where a chain
// of all Services is meant, and ExtraDispatch, where nothing tells whose chains.
const (
	// MissingDispatch: nothing sends packets to an address of the port on.
	MissingDispatch Kind = "missing_dispatch"
	// ExtraDispatch: a rule sends packets on to the port's chains that should not.
	ExtraDispatch Kind = "extra_dispatch"
	// WrongTarget: a rule leads elsewhere than it should.
	WrongTarget Kind = "wrong_target"
	// MissingChain: a chain of the port is not there.
	MissingChain Kind = "missing_chain"
	// EmptyChain: a chain is there and has no rules.
	EmptyChain Kind = "empty_chain"
	// MissingEndpoint: no connection is sent to an endpoint.
	MissingEndpoint Kind = "missing_endpoint"
	// ExtraEndpoint: connections are sent to what is no endpoint for this node.
	ExtraEndpoint Kind = "extra_endpoint"
	// WrongProbability: the endpoints are right, but not their shares.
	WrongProbability Kind = "wrong_probability"
	// AffinityMissing: clients do not come back to the endpoint that they had.
	AffinityMissing Kind = "affinity_missing"
	// SourceRangesMissing: loadBalancerSourceRanges are not enforced as they are.
	SourceRangesMissing Kind = "source_ranges_missing"
	// RejectingWithEndpoints: packets are refused although endpoints could serve.
	RejectingWithEndpoints Kind = "rejecting_with_endpoints"
	// NotRejectingWithoutEndpoints: packets that nobody serves are not refused.
	NotRejectingWithoutEndpoints Kind = "not_rejecting_without_endpoints"
)

// The kinds of the node.
const (
	// JumpMissing: packets do not come from a built-in chain to kube-proxy's.
	JumpMissing Kind = "jump_missing"
	// JumpShadowed: a rule above the jump ends packets to a Service.
	JumpShadowed Kind = "jump_shadowed"
	// TwoBackends: legacy and nf_tables rules serve the same address.
	TwoBackends Kind = "two_backends"
	// TwoModes: rules of the iptables mode serve beside those of the nftables mode.
	TwoModes Kind = "two_modes"
	// MasqueradeMissing: packets that need a source address of the node get none.
	MasqueradeMissing Kind = "masquerade_missing"
	// NotSyncing: kube-proxy does not write what the API has changed. Only a Judge
	// says so.
	NotSyncing Kind = "not_syncing"
)

// Difference is one place where the rules are not what they should be. It is
// comparable: two are the same while it lasts.
type Difference struct {
	// Port is the Service port; zero for the kinds of the node.
	Port   service.PortName
	Family netfilter.Family
	// Backend holds the rules; empty where not one alone does.
	Backend ruleset.Backend
	// Frontend is the kind of address that is concerned; empty where all are.
	Frontend service.Frontend
	Kind     Kind
	// Detail is what is concerned: an address, an endpoint, a chain, a rule.
	Detail string
	// InFlight: a change of the API that kube-proxy has not written yet, or that is
	// not known here yet, may explain it. Nothing that kube-proxy writes explains
	// the others.
	InFlight bool
}

// OfNode reports whether the difference is of the node, not of a Service.
func (d *Difference) OfNode() bool { return d.Port == service.PortName{} }

// Compare orders differences by port, the node's first, family, kind and the rest.
func (d Difference) Compare(e Difference) int {
	inFlight := func(d *Difference) int {
		if d.InFlight {
			return 1
		}
		return 0
	}
	return cmp.Or(
		d.Port.Compare(e.Port), cmp.Compare(d.Family, e.Family), cmp.Compare(d.Kind, e.Kind),
		cmp.Compare(d.Frontend, e.Frontend), cmp.Compare(d.Detail, e.Detail), cmp.Compare(d.Backend, e.Backend),
		cmp.Compare(inFlight(&d), inFlight(&e)),
	)
}
