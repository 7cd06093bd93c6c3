// SPDX-License-Identifier: Apache-2.0

package metrics

import "github.com/svcscope/svcscope/pkg/correlate"

const dropKernel = "rule counters of DROP and REJECT"

// dropMetrics tell of packets that rules refuse.
func dropMetrics() []Metric {
	owner := Label{Name: "owner", Bound: "a fixed list, that of `svcscope_rules`", Question: "Whose rule?"}
	return []Metric{
		{
			Name: "svcscope_drop_packets_total", Type: Counter, Unit: unitPackets,
			Help: "Packets that rules of this node refused, each once. Retransmissions count: these are packets, not connections",
			Labels: []Label{
				{Name: "reason", Values: correlate.DropReasons(), Question: "Why?"},
				{Name: "hook", Bound: "the hooks of netfilter that lead to the rule, joined by +; unknown where none is seen to", Question: "Where?"},
				owner,
				{Name: "service_namespace", Bound: "the namespaces of the Services; empty where the rule tells of none", Question: "Toward whose Service?"},
				{Name: "service_name", Bound: "`--metrics.max-services` (default 500), and `_other`; empty where the rule tells of none", Question: "Toward which Service?"},
			},
			Stability: Stable, Kernel: dropKernel, Cost: CostRules, When: "from 0 for every rule that refuses packets; of a Service while it exists",
		},
		{
			Name: "svcscope_policy_drop_packets_total", Type: Counter, Unit: unitPackets,
			Help: "Of these, packets that rules of network policies refused, as far as the rules tell of pod and policy",
			Labels: []Label{
				{Name: "direction", Values: []string{"", "ingress", "egress"}, Question: "Into the pod or out of it? Empty where one rule serves both"},
				{Name: "policy_namespace", Bound: "the policies; empty for one of the cluster, and where no policy is to blame alone", Question: "Whose policy?"},
				{Name: "policy_name", Bound: "likewise", Question: "Which policy?"},
				{Name: "pod_namespace", Bound: "the pods of this node; empty where the rule does not tell", Question: "Whose pod?"},
				{Name: "pod_name", Bound: "likewise", Question: "Which pod?"},
				owner,
			},
			Stability: Stable, Kernel: dropKernel, Cost: CostRules, When: "only with `--metrics.policies`; while the rule is there, and some minutes longer",
		},
	}
}
