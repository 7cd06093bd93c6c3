// SPDX-License-Identifier: Apache-2.0

package dashboards

const overviewUID = "svcscope-overview"

func overview() Dashboard {
	return newDashboard(heading{
		uid: overviewUID, title: "Cluster overview",
		description: "Is every node observed, which Services get connections or refusals, which nodes are near a limit, " +
			"and are the nodes' rules what the API wants?",
		from: "now-1h", refresh: "1m", variables: namespaceVariables(),
	},
		section{"Is every node observed, and as the API wants it?", []Panel{
			silentAgents(), failingSources(), notSynced(), oldestReading(), driftingNodes(),
			versions(), proxyModes(),
		}},
		section{"Who gets connections, and who is refused?", []Panel{
			topServices(), refusedServices(), topNodes(), servicesTable(),
		}},
		section{"Which nodes are near a limit?", []Panel{topUtilisation(), lossesByNode("Packets lost in conntrack, top 10",
			"Open the Conntrack overflow dashboard, which tells the causes apart.")}},
		section{"Do the nodes agree with the API and with each other?", []Panel{
			driftingServices(), ruleSpread(), changes("Ruleset changes"),
		}},
	)
}

func silentAgents() Panel {
	return stat(spec{
		title: "Agents gone silent", unit: "none", w: 5, h: 4,
		shows: "Agents that answered within the last hour and do not now. A node that left the cluster counts for that hour too.",
		bad:   "Anything but 0 while no node is being removed.",
		next:  "Open Prometheus' targets page for the scrape error, then the pod's log and last state.",
		steps: redFrom(1),
		targets: []Target{now(
			`count by (cluster) (count by (@node) (last_over_time(svcscope_build_info{@on}[1h])))
			 - (count by (cluster) (count by (@node) (svcscope_build_info{@on}))
			    or 0 * count by (cluster) (count by (@node) (last_over_time(svcscope_build_info{@on}[1h]))))`,
			"silent {{cluster}}")},
	})
}

func failingSources() Panel {
	return stat(spec{
		title: "Failing sources", unit: "none", w: 5, h: 4,
		shows: "Nodes on which the last reading of a source failed, by source.",
		bad:   "Anything but 0: the metrics of that source are missing or old there.",
		next:  "Read the agent's log on such a node; a missing capability is the usual cause.",
		steps: redFrom(1),
		targets: []Target{over(
			`sum by (cluster, collector) (1 - svcscope_collector_success{@on})`, "{{collector}} {{cluster}}")},
	})
}

func notSynced() Panel {
	return stat(spec{
		title: "Nodes without the API", unit: "none", w: 5, h: 4,
		shows: "Agents that take names and endpoints from the rules alone, since they do not follow the Kubernetes API. " +
			"All of them with kube: never.",
		bad:   "Anything but 0 where the API should be followed: differences between API and rules are not seen there.",
		next:  "Check the ClusterRole and the way to the API server; the agent's log names the request that fails.",
		steps: yellowFrom(1),
		targets: []Target{over(
			`sum by (cluster) (1 - svcscope_kube_synced{@on})`, "nodes {{cluster}}")},
	})
}

func oldestReading() Panel {
	return stat(spec{
		title: "Oldest reading", unit: "s", w: 5, h: 4,
		shows: "Age of the oldest numbers that an agent serves.",
		bad:   "More than a few sampling intervals (15 s each by default): the agent answers but no longer reads.",
		next:  "Read that agent's log; see the duration of its sources in svcscope_collector_duration_seconds.",
		steps: warnAt(60, 300),
		targets: []Target{over(
			`max by (cluster) (time() - svcscope_snapshot_timestamp_seconds{@on})`, "{{cluster}}")},
	})
}

func driftingNodes() Panel {
	return stat(spec{
		title: "Nodes with drift", unit: "none", w: 4, h: 4,
		shows: "Nodes whose rules are not what kube-proxy should have made of the API. Nothing where no node is compared, as in mode nftables.",
		bad:   "Anything but 0: Services do not work there, or not as they should.",
		next:  "Open the Drift dashboard: it tells the kinds, the Services and the nodes.",
		steps: redFrom(1),
		targets: []Target{over(
			`count by (cluster) (max by (@node) (svcscope_node_drift{@on}) > 0 or max by (@node) (svcscope_drifting_services{@on}) > 0)
			 or 0 * count by (cluster) (svcscope_node_drift{@on})`, "{{cluster}}")},
	})
}

func proxyModes() Panel {
	return bars(spec{
		title: "Nodes by proxy mode", unit: "none", w: 12, h: 5,
		shows: "Nodes by kube-proxy's mode, and the kernel interface that holds its chains.",
		bad:   "Nodes that differ from the rest, mode unknown or none, and backend legacy,nft: two sets of rules at once.",
		next:  "Compare kube-proxy's configuration on the odd nodes; after a change of mode run kube-proxy --cleanup or restart the node.",
		targets: []Target{over(
			`count by (cluster, proxy_mode, backend) (svcscope_node_info{@on})`, "{{proxy_mode}} {{backend}} {{cluster}}")},
	})
}

func versions() Panel {
	return bars(spec{
		title: "Agents that answer, by version", unit: "none", w: 12, h: 5,
		shows: "Agents whose metrics arrive, by release.",
		bad:   "Fewer than the DaemonSet wants, or several releases while no rollout is going on.",
		next:  "Look at the DaemonSet's rollout status, and at nodes that it cannot schedule to.",
		targets: []Target{over(
			`count by (cluster, version) (svcscope_build_info{@on})`, "{{version}} {{cluster}}")},
	})
}

func topServices() Panel {
	return timeseries(spec{
		title: "Connections by Service, top 10", unit: "cps", w: 12, h: 8,
		shows: "New connections per second that the nodes' rules sent to endpoints. _other sums the Services above the series limit.",
		bad:   "A Service that falls to 0 or leaves its usual range.",
		next:  "Open the Service dashboard from the table below.",
		targets: []Target{over(
			`topk(10, sum by (@svc) (rate(svcscope_service_connections_total{@ns}[$__rate_interval])))`, serviceLegend)},
	})
}

func refusedServices() Panel {
	return timeseries(spec{
		title: "Refused packets by Service and reason, top 10", unit: "pps", w: 12, h: 8, noValue: "none",
		shows: "Packets per second that kube-proxy's rules refused. Clients that try again are counted again.",
		bad:   "Any: no_endpoints means that no pod is ready, source_range that a client is not among the allowed ones.",
		next: "no_endpoints: kubectl get endpointslices of the Service, then its pods. source_range: the Service's loadBalancerSourceRanges. " +
			"Open the Drops dashboard for what all other rules refuse.",
		targets: []Target{over(
			`topk(10, sum by (@svc, reason) (rate(svcscope_service_rejected_packets_total{@ns}[$__rate_interval])))`,
			"{{service_namespace}}/{{service_name}} {{reason}} {{cluster}}")},
	})
}

func topNodes() Panel {
	return timeseries(spec{
		title: "Connections by node, top 10", unit: "cps", w: 12, h: 10,
		shows: "New connections per second to the chosen namespaces' Services, by the node that sent them on.",
		bad:   "One node far above the rest: its clients are not spread, or a load balancer prefers it.",
		next:  "Choose that node above and see which Services its connections go to.",
		targets: []Target{over(
			`topk(10, sum by (@node) (rate(svcscope_service_connections_total{@ns}[$__rate_interval])))`, nodeLegend)},
	})
}

func servicesTable() Panel {
	const (
		connections = `sum by (@svc) (rate(svcscope_service_connections_total{@ns}[$__rate_interval]))`
		refused     = `sum by (@svc) (rate(svcscope_service_rejected_packets_total{@ns}[$__rate_interval]))`
		only        = ` and (topk(100, ` + connections + `) or topk(100, ` + refused + ` > 0))`
	)
	return table(spec{
		title: "Services", unit: "none", w: 12, h: 10,
		shows: "The 100 Services with the most connections and the 100 with the most refused packets: connections and refused packets " +
			"per second, and the rules that they cost the largest node.",
		bad:  "Refused packets, or many rules for hardly any connections.",
		next: "Follow the Service's name to its dashboard.",
		targets: []Target{
			cells(`(` + connections + ` or 0 * ` + refused + `)` + only),
			cells(`(` + refused + ` or 0 * ` + connections + `)` + only),
			cells(`max by (@svc) (sum by (@node, service_namespace, service_name) (svcscope_service_rules{@ns}))` + only),
		},
	}, "Connections", append(serviceColumns(),
		value("A", "Connections", "cps"),
		column{from: "Value #B", name: "Refused", unit: "pps", steps: plainThenRed()},
		value("C", "Rules", "short"))...)
}

func topUtilisation() Panel {
	return timeseries(spec{
		title: "Conntrack table in use, top 10", unit: "percentunit", w: 12, h: 8,
		shows: "Share of the allowed entries that the connection-tracking table held at its peak of the last minute.",
		bad:   "Above 75 % for long. At 100 % new connections are dropped.",
		next:  "Open the Conntrack overflow dashboard.",
		steps: warnAt(0.75, 0.9),
		targets: []Target{over(
			`topk(10, `+peakInUse+`)`, nodeLegend)},
	})
}

// lossesByNode says next what to do then.
func lossesByNode(title, next string) Panel {
	return timeseries(spec{
		title: title, unit: "pps", w: 12, h: 8,
		shows: "Packets per second that connection tracking lost, and entries that it evicted to make room.",
		bad:   "Anything that lasts: these are connections that fail or are cut.",
		next:  next,
		targets: []Target{over(
			`topk(10, sum by (@node) (rate(svcscope_conntrack_losses_total{@on}[$__rate_interval])))`, nodeLegend)},
	})
}

func ruleSpread() Panel {
	const perNode = `(sum by (@node) (svcscope_rules{@on}))`
	return timeseries(spec{
		title: "Rules by node: largest, median, smallest", unit: "short", w: 8, h: 8,
		shows: "All rules of a node: of the node with the most, of the one in the middle, of the one with the fewest.",
		bad:   "A gap that opens: some nodes are not programmed as the others are. Steady growth of all three.",
		next:  "Open Rule growth & capacity: it names the nodes that deviate and the owners that grow.",
		targets: []Target{
			over(`max by (cluster) `+perNode, "largest {{cluster}}"),
			over(`quantile by (cluster) (0.5, sum by (@node) (svcscope_rules{@on}))`, "median {{cluster}}"),
			over(`min by (cluster) `+perNode, "smallest {{cluster}}"),
		},
	})
}
