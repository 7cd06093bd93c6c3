// SPDX-License-Identifier: Apache-2.0

package kubeproxy

import "github.com/svcscope/svcscope/pkg/netfilter"

// BaseJump is a jump by which packets come from a built-in chain to kube-proxy's.
type BaseJump struct {
	Table string
	Hook  netfilter.Hook
	Chain string // where it jumps to
}

// BaseJumps returns the jumps that kube-proxy makes in every family: iptablesJumpChains
// of pkg/proxy/iptables/proxier.go, the same in 1.27 and 1.37. It makes them at full
// syncs alone and never moves them. Those of filter but to KUBE-NODEPORTS and
// KUBE-FORWARD ask for new connections (ctstate NEW). Those to KUBE-FIREWALL are left
// out: the chain is kubelet's, too.
func BaseJumps() []BaseJump {
	const nat, filter = "nat", "filter"
	return []BaseJump{
		{nat, netfilter.HookPrerouting, chainServices},
		{nat, netfilter.HookOutput, chainServices},
		{nat, netfilter.HookPostrouting, ChainPostrouting},
		{filter, netfilter.HookInput, chainExternalServices},
		{filter, netfilter.HookForward, chainExternalServices},
		{filter, netfilter.HookInput, chainNodePorts},
		{filter, netfilter.HookForward, chainServices},
		{filter, netfilter.HookOutput, chainServices},
		{filter, netfilter.HookForward, ChainForward},
		{filter, netfilter.HookInput, chainProxyFirewall},
		{filter, netfilter.HookOutput, chainProxyFirewall},
		{filter, netfilter.HookForward, chainProxyFirewall},
	}
}
