// SPDX-License-Identifier: Apache-2.0

package drift

// ServiceKinds returns the kinds of a Service port, in the order of docs/drift.md.
func ServiceKinds() []Kind {
	return []Kind{
		MissingDispatch, ExtraDispatch, WrongTarget, MissingChain, EmptyChain, MissingEndpoint, ExtraEndpoint,
		WrongProbability, AffinityMissing, SourceRangesMissing, RejectingWithEndpoints, NotRejectingWithoutEndpoints,
	}
}

// NodeKinds returns the kinds of the node.
func NodeKinds() []Kind {
	return []Kind{JumpMissing, JumpShadowed, TwoBackends, TwoModes, MasqueradeMissing, EmptyChain, ExtraDispatch, NotSyncing}
}

// Remedy is what to do, in a few words; docs/drift.md has more.
func (k Kind) Remedy() string {
	switch k {
	case JumpShadowed:
		return "ask whose rule that is; it must not end packets to Services"
	case TwoBackends:
		return "remove the rules of the backend that kube-proxy does not use, or reboot the node"
	case TwoModes:
		return "run kube-proxy --cleanup on the node and restart kube-proxy"
	case NotSyncing:
		return "see kube-proxy's log, its /healthz and what holds the xtables lock"
	case JumpMissing:
		return "restart kube-proxy on the node, then find out who flushed the rules"
	case SourceRangesMissing:
		return "restart kube-proxy on the node; until then block the sources elsewhere"
	case AffinityMissing:
		return "restart kube-proxy on the node; it needs the kernel's xt_recent"
	}
	return "restart kube-proxy on the node; if it comes back, find out who writes rules"
}
