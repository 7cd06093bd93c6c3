// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"slices"

	"github.com/svcscope/svcscope/pkg/correlate"
)

const (
	dropKernel  = "rule counters of DROP and REJECT; nfacct objects"
	nflogKernel = "nfnetlink_log"
)

// dropMetrics tell of packets that rules refuse.
func dropMetrics() []Metric {
	owner := Label{Name: "owner", Bound: "a fixed list, that of `svcscope_rules`", Question: "Whose rule?"}
	group := []Label{{Name: "group", Bound: "the groups that rules log to or that `--nflog.group` names", Question: "Which group of NFLOG?"}}
	state := Label{
		Name: "state", Values: correlate.LogGroupStates(),
		Question: "What becomes of its packets? `read` by the agent, `held` by another process, `waiting` until nobody has read it for long enough, `left` alone as others may want it, `no_rule` logs to it, `failed`",
	}
	return []Metric{
		{
			Name: "svcscope_drop_packets_total", Type: Counter, Unit: unitPackets,
			Help: "Packets that rules of this node refused, each once. Retransmissions count: these are packets, not connections. " +
				"In kube-proxy's nftables mode, whose rules do not count, those of Services are the tap's",
			Labels: []Label{
				{Name: "reason", Values: correlate.DropReasons(), Question: "Why?"},
				{Name: "hook", Bound: "the hooks of netfilter that lead to the rule, joined by +; unknown where none is seen to", Question: "Where?"},
				owner,
				{Name: "service_namespace", Bound: "the namespaces of the Services; empty where the rule tells of none", Question: "Toward whose Service?"},
				{Name: "service_name", Bound: "`--metrics.max-services` (default 500), and `_other`; empty where the rule tells of none", Question: "Toward which Service?"},
			},
			Stability: Stable, Kernel: dropKernel, Cost: CostRules, When: "from 0 for every rule that refuses packets; of a Service while it exists; of Services in the nftables mode only with `--tap`",
		},
		{
			Name: "svcscope_policy_drop_packets_total", Type: Counter, Unit: unitPackets,
			Help: "Of these, packets that rules of network policies refused, as far as the rules tell of pod and policy",
			Labels: []Label{
				{Name: "direction", Values: []string{"", "ingress", "egress"}, Question: "Into the pod or out of it? Empty where one rule serves both"},
				{Name: "policy_namespace", Bound: "the policies; empty for one of the cluster, and where no policy is to blame alone", Question: "Whose policy?"},
				{Name: "policy_name", Bound: "likewise", Question: "Which policy?"},
				{Name: "pod_namespace", Bound: "the pods of this node; empty where the rule does not tell, as Calico's without `--kube.pods`", Question: "Whose pod?"},
				{Name: "pod_name", Bound: "likewise", Question: "Which pod?"},
				owner,
			},
			Stability: Stable, Kernel: dropKernel, Cost: CostRules, When: "only with `--metrics.policies`; while the rule is there, and some minutes longer",
		},
		{
			Name: "svcscope_policy_drop_unnamed_packets_total", Type: Counter, Unit: unitPackets,
			Help: "Refused packets that svcscope_policy_drop_packets_total lacks: of rules that tell of a policy or pod beyond the 5,000 " +
				"combinations of these, reason, hook, owner and IP family that are named at a time",
			Stability: Stable, Kernel: dropKernel, Cost: CostRules, When: "only with `--metrics.policies`",
		},
		{
			Name: "svcscope_drop_witnessed_packets_total", Type: Counter, Unit: unitPackets,
			Help: "Packets that a witness saw being refused. Witnesses see some of the packets of svcscope_drop_packets_total " +
				"a second time, as rules log them or the tap counts them: never add the two",
			Labels: []Label{
				{Name: "source", Values: []string{string(correlate.SourceNFLOG), string(correlate.SourceTap)}, Question: "Who saw it?"},
				{Name: "reason", Values: correlate.DropReasons(), Question: "Why?"},
				{Name: "service_namespace", Bound: "the namespaces of the Services; empty where neither the packet nor its entry of connection tracking tells of one", Question: "Sent to whose Service?"},
				{Name: "service_name", Bound: "`--metrics.max-services` (default 500), and `_other`; empty likewise", Question: "Sent to which Service?"},
			},
			Stability: Stable, Kernel: nflogKernel + ", or " + tapInterface, Cost: CostNone, When: "a witness saw such a packet since the agent started; of a Service while it exists",
		},
		{
			Name: "svcscope_nflog_group_bound", Type: Gauge, Unit: unitBoolean, Labels: group,
			Help:      "Whether the agent reads the group of NFLOG; 0 where somebody else holds it, or no rule logs to a group",
			Stability: Stable, Kernel: nflogKernel, Cost: CostNone, When: "the group is named by `--nflog.group`, or with `auto` free and logged to for 10 minutes",
		},
		{
			Name: "svcscope_nflog_group_state", Type: Gauge, Unit: unitInfo, Labels: append(slices.Clone(group), state),
			Help:      "What becomes of the packets that rules log to the group of NFLOG; `svcscope drops` tells who holds it, and why",
			Stability: Stable, Kernel: nflogKernel, Cost: CostNone, When: "the group is named by `--nflog.group`, or with `auto` a rule logs to it",
		},
		{
			Name: "svcscope_nflog_packets_total", Type: Counter, Unit: unitPackets, Labels: group,
			Help:      "Packets that rules logged to the group, whether they refuse them or not, and that the agent has received",
			Stability: Stable, Kernel: nflogKernel, Cost: CostNone, When: "the group was bound since the agent started",
		},
		{
			Name: "svcscope_nflog_lost_packets_total", Type: Counter, Unit: unitPackets, Labels: group,
			Help:      "Packets that rules logged to the group and that came too fast, by the gaps in their sequence numbers",
			Stability: Stable, Kernel: nflogKernel, Cost: CostNone, When: "the group was bound since the agent started",
		},
	}
}
