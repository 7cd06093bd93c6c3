// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"slices"

	"github.com/svcscope/svcscope/pkg/drift"
	"github.com/svcscope/svcscope/pkg/service"
)

const (
	driftKernel = "the rules of kube-proxy's iptables mode, compared with the API"
	driftJudged = "kube-proxy's iptables mode is recognised in that family, and the API is followed"
)

// driftMetrics tell where the rules are not what the API wants.
func driftMetrics() []Metric {
	drifting := func(m Metric) Metric {
		m.Stability, m.Kernel, m.Cost = Stable, driftKernel, CostRules
		return m
	}
	family := familyLabel()
	return []Metric{
		drifting(Metric{
			Name: "svcscope_service_drift", Type: Gauge, Unit: unitInfo,
			Help: "Present while the rules of the Service are not what kube-proxy should have made of the API, and it has had its time",
			Labels: serviceLabels(
				Label{Name: "kind", Values: kindValues(drift.ServiceKinds()), Question: "What is wrong? See docs/drift.md"},
				Label{
					Name: "frontend", Question: "Which kind of address is concerned? Empty: all of them",
					Values: []string{"", string(service.ClusterFrontend), string(service.NodePortFrontend), string(service.ExternalFrontend), string(service.LoadBalancerFrontend)},
				},
			),
			When: "something differs, and " + driftJudged,
		}),
		drifting(Metric{
			Name: "svcscope_drifting_services", Type: Gauge, Unit: unitServices,
			Help: "Services whose rules are not what kube-proxy should have made of the API, by what is wrong; 0 where none are",
			Labels: []Label{
				{Name: "kind", Values: kindValues(drift.ServiceKinds()), Question: "What is wrong?"}, family,
			},
			When: driftJudged,
		}),
		drifting(Metric{
			Name: "svcscope_node_drift", Type: Gauge, Unit: unitRules,
			Help: "Places where the node's own chains of kube-proxy are not what they should be, by what is wrong; 0 where none are",
			Labels: []Label{
				{Name: "kind", Values: kindValues(drift.NodeKinds()), Question: "What is wrong?"}, family,
			},
			When: "kube-proxy's iptables mode is recognised in that family; of kind not_syncing only while the API is followed, and of kind two_modes also while it is told",
		}),
		drifting(Metric{
			Name: "svcscope_kube_proxy_last_commit_timestamp_seconds", Type: Gauge, Unit: unitTimestamp,
			Help:   "When kube-proxy's chains were last seen to be written anew, as far as samplings are apart; in legacy a sync that changes no rule is seen only where connections were counted",
			Labels: []Label{family}, When: "they were since the agent started",
		}),
		drifting(Metric{
			Name: "svcscope_kube_proxy_pending_change_seconds", Type: Gauge, Unit: unitSeconds,
			Help:   "How long a change of the API has waited for kube-proxy to write anything; 0 where none waits",
			Labels: []Label{family}, When: driftJudged,
		}),
		{
			Name: programmingDelay, Type: Histogram, Unit: unitSeconds,
			Help: "Time from the arrival of a change of a Service's endpoints from the API to the rules in this kernel that have these endpoints; " +
				"each change by itself, but for those that were taken back before they were written",
			Labels: []Label{family}, Stability: Stable, Kernel: driftKernel, Cost: CostRules,
			When: "a change was written since the agent started",
		},
	}
}

func kindValues(kinds []drift.Kind) []string {
	var out []string
	for _, k := range kinds {
		out = append(out, string(k))
	}
	slices.Sort(out)
	return out
}
