// SPDX-License-Identifier: Apache-2.0

package dashboards

// The sum over source of this is the number of endpoints that the API expects
// beyond those in the rules; a series that exists on one side alone counts.
// It knows only the nodes where both sides are known: the API is followed,
// kube-proxy's mode is iptables, and the last reading of the rules succeeded.
func endpointSurplus(selector string) string {
	return `((svcscope_service_endpoints{` + selector + `, source="api"}
		or -1 * svcscope_service_endpoints{` + selector + `, source="kernel"})
		and on (cluster, job, instance) (svcscope_kube_synced{@on} == 1)
		and on (cluster, job, instance) svcscope_counting_method{@on, what="connections", method=~"rules|notices"}
		unless on (cluster, job, instance) (svcscope_collector_success{@on, collector=~"legacy|nftables"} == 0))`
}

// endpointDifference adds up, by the labels, by how many endpoints the two
// sides differ. It compares numbers: one endpoint instead of another is no
// difference.
func endpointDifference(by, selector string) string {
	return `sum by (` + by + `) (abs(sum by (@node, service_namespace, service_name, port_name, protocol, ip_family) (` +
		endpointSurplus(selector) + `)))`
}

// onlyNumbers is what the reader of a comparison of endpoints must know.
const onlyNumbers = "Numbers are compared: a pod in place of another is not seen."

func driftingServices() Panel {
	return timeseries(spec{
		title: "Services that drift by node, top 10", unit: "short", w: 8, h: 8,
		shows: "Services whose rules on a node are not what the API wants, although kube-proxy has had its time; the more, the more kinds. " +
			"Nodes are compared where the API is followed and kube-proxy's mode is iptables.",
		bad:   "Anything but 0.",
		next:  "svcscope drift in that node's agent lists them, since when, and what to do: mostly to restart kube-proxy, and to find out who writes rules.",
		steps: redFrom(1),
		targets: []Target{over(
			`topk(10, sum by (@node) (max by (@node, kind) (svcscope_drifting_services{@on})))`, nodeLegend)},
	})
}

func changes(title string) Panel {
	return timeseries(spec{
		title: title, unit: "cpm", w: 8, h: 8,
		shows: "How often the rules of a node changed per minute, summed over nodes, by writer. " +
			"The writer is unknown unless the agent can tell.",
		bad:  "A steady high rate without deployments: two programs undo each other's rules, or endpoints flap.",
		next: "Choose one node, then compare with kube-proxy's sync rate and the CNI's log.",
		targets: []Target{over(
			`60 * sum by (cluster, backend, writer) (rate(svcscope_ruleset_changes_total{@on}[$__rate_interval]))`,
			"{{writer}} {{backend}} {{cluster}}")},
	})
}
