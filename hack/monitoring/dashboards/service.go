// SPDX-License-Identifier: Apache-2.0

package dashboards

const serviceUID = "svcscope-service"

// The chosen Service's connections per second by node.
const serviceByNode = `sum by (@node) (rate(svcscope_service_connections_total{@its}[$__rate_interval]))`

func service() Dashboard {
	return newDashboard(heading{
		uid: serviceUID, title: "Service",
		description: "One Service: its connections, what is refused and why, whether every node's rules are what the API wants, " +
			"and what it costs in rules.",
		from: "now-1h", refresh: "1m", variables: serviceVariables(),
	},
		section{"How is it doing?", []Panel{
			serviceConnections(), serviceRefused(), serviceReach(), serviceDrift(), serviceCost(),
		}},
		section{"Where do its connections come from and go to?", []Panel{
			serviceVia(), servicePorts(), serviceNodes(), serviceEndpoints(),
		}},
		section{"What is refused, and where?", []Panel{serviceReasons(), serviceRefusingNodes()}},
		section{"Does every node have as many endpoints as the API?", []Panel{serviceSources(), serviceNodesTable()}},
		section{"What does it cost?", []Panel{serviceEntries(), serviceTables(), serviceCostByNode()}},
	)
}

func serviceConnections() Panel {
	return stat(spec{
		title: "New connections", unit: "cps", w: 5, h: 4,
		shows: "New connections per second to the Service, from all chosen nodes.",
		bad:   "0, or far from what this Service usually gets.",
		next:  "See whether refusals rise at the same time, and which nodes stopped sending.",
		targets: []Target{over(
			`sum by (cluster) (rate(svcscope_service_connections_total{@its}[$__rate_interval]))`, "{{cluster}}")},
	})
}

func serviceRefused() Panel {
	return stat(spec{
		title: "Refused packets", unit: "pps", w: 5, h: 4,
		shows: "Packets per second to the Service that kube-proxy's rules refused.",
		bad:   "Anything but 0.",
		next:  "The row on refusals below tells the reason and the nodes.",
		steps: redFrom(anyRate),
		targets: []Target{over(
			`sum by (cluster) (rate(svcscope_service_rejected_packets_total{@its}[$__rate_interval]))
			 or 0 * sum by (cluster) (rate(svcscope_service_connections_total{@its}[$__rate_interval]))`, "{{cluster}}")},
	})
}

func serviceReach() Panel {
	return stat(spec{
		title: "Nodes that send to it", unit: "percentunit", w: 5, h: 4,
		shows: "Share of the nodes that know the Service and sent it a connection lately.",
		bad:   "A sudden fall: clients on some nodes no longer reach it or are gone.",
		next:  "Compare with the connections by node below.",
		targets: []Target{over(
			`sum by (cluster) (`+serviceByNode+` > bool 0) / count by (cluster) (`+serviceByNode+`)`, "{{cluster}}")},
	})
}

func serviceDrift() Panel {
	return stat(spec{
		title: "Drift: nodes by kind", unit: "none", w: 5, h: 4, noValue: "none known",
		shows: "Nodes on which rules of the Service are not what kube-proxy should have made of the API, by what is wrong.",
		bad:   "Any. One node: its rules were edited, or its kube-proxy has missed a change. All: kube-proxy cannot do what the Service asks for.",
		next:  driftDocs + "; svcscope drift in a node's agent tells since when, and which rule.",
		steps: redFrom(1),
		targets: []Target{over(
			`count by (cluster, kind) (max by (@node, kind) (svcscope_service_drift{@its}))`, "{{kind}} {{cluster}}")},
	})
}

func serviceCost() Panel {
	return stat(spec{
		title: "Rules, largest node", unit: "short", w: 4, h: 4,
		shows: "Rules that the Service costs the node on which it costs most.",
		bad:   "Thousands: every change of any Service rewrites or checks them.",
		next:  "Fewer endpoints or ports, or kube-proxy's nftables mode.",
		targets: []Target{over(
			`max by (cluster) (sum by (@node) (svcscope_service_rules{@its}))`, "{{cluster}}")},
	})
}

func serviceVia() Panel {
	return timeseries(spec{
		title: "Connections by address", unit: "cps", w: 8, h: 8,
		shows: "New connections per second: cluster is the cluster IP, external a node port, external or load-balancer address.",
		bad:   "One of the two falls to 0 while the other goes on.",
		next:  "external: check the load balancer's targets and health checks. cluster: check DNS and the clients.",
		targets: []Target{over(
			`sum by (cluster, via) (rate(svcscope_service_connections_total{@its}[$__rate_interval]))`, "{{via}} {{cluster}}")},
	})
}

func servicePorts() Panel {
	return timeseries(spec{
		title: "Connections by port and IP family", unit: "cps", w: 8, h: 8,
		shows: "New connections per second by the Service's port, protocol and IP family.",
		bad:   "A port or family without connections that should have some.",
		next:  "IPv6 alone missing: check the Service's ipFamilies and the clients' DNS answers.",
		targets: []Target{over(
			`sum by (cluster, port_name, protocol, ip_family) (rate(svcscope_service_connections_total{@its}[$__rate_interval]))`,
			"{{port_name}} {{protocol}} {{ip_family}} {{cluster}}")},
	})
}

func serviceNodes() Panel {
	return timeseries(spec{
		title: "Connections by node, top 10", unit: "cps", w: 8, h: 8,
		shows:   "New connections per second by the node whose rules sent them on, which is the client's node for pods.",
		bad:     "One node makes most of them, or one stopped.",
		next:    "On that node, conntrack -L -d CLUSTERIP lists the connections with their clients.",
		targets: []Target{over(`topk(10, `+serviceByNode+`)`, nodeLegend)},
	})
}

func serviceEndpoints() Panel {
	return timeseries(spec{
		title: "Connections by endpoint, top 20", unit: "cps", w: 24, h: 8, noValue: "none: needs --metrics.endpoints",
		shows: "New connections per second by endpoint. Agents export this with --metrics.endpoints only.",
		bad:   "Endpoints with far more or fewer than the others: rules choose at random, so equal shares are expected.",
		next:  "Check for session affinity, traffic policies, and nodes with more or fewer endpoints than the API.",
		targets: []Target{over(
			`topk(20, sum by (cluster, endpoint_address) (rate(svcscope_service_endpoint_connections_total{@its}[$__rate_interval])))`,
			"{{endpoint_address}} {{cluster}}")},
	})
}

func serviceReasons() Panel {
	return timeseries(spec{
		title: "Refused packets by reason", unit: "pps", w: 12, h: 8, noValue: "none",
		shows: "Packets per second that were refused, by reason, and with --tap first packets that were sent to no endpoint, whoever refused " +
			"them or not. Clients that try again are counted again.",
		bad: "Any. no_endpoints: no pod is ready. no_local_endpoints: a Local traffic policy and no pod on this node. " +
			"source_range: the client is not in the allowed ranges.",
		next: "Look at the Service's EndpointSlices and pods, its traffic policies, or its loadBalancerSourceRanges. " +
			"What network policies refuse on the way to its pods is on the Drops dashboard.",
		targets: []Target{over(
			`sum by (cluster, reason) (rate(svcscope_service_rejected_packets_total{@its}[$__rate_interval]))`, "{{reason}} {{cluster}}"),
			over(`sum by (cluster, via) (rate(svcscope_service_attempts_total{@its}[$__rate_interval]))
			 - sum by (cluster, via) (rate(svcscope_service_translated_attempts_total{@its}[$__rate_interval]))`, "sent to no endpoint, via {{via}} {{cluster}}")},
	})
}

func serviceRefusingNodes() Panel {
	return timeseries(spec{
		title: "Refused packets by node, top 10", unit: "pps", w: 12, h: 8, noValue: "none",
		shows: "Packets per second that were refused, by node.",
		bad:   "One node alone: its rules are old, or its clients use the wrong address.",
		next:  "Compare that node's endpoints in the table below.",
		targets: []Target{over(
			`topk(10, sum by (@node) (rate(svcscope_service_rejected_packets_total{@its}[$__rate_interval])))`, nodeLegend)},
	})
}

func serviceSources() Panel {
	return timeseries(spec{
		title: "Endpoints: API and rules", unit: "short", w: 10, h: 8,
		shows: "Endpoints by source, port and IP family, summed over nodes: api is what the nodes should have, kernel what they have.",
		bad:   "Two lines of one port that stay apart.",
		next:  "The table beside this shows on which nodes.",
		targets: []Target{over(
			`sum by (cluster, source, port_name, protocol, ip_family) (svcscope_service_endpoints{@its})`,
			"{{source}} {{port_name}} {{protocol}} {{ip_family}} {{cluster}}")},
	})
}

func serviceNodesTable() Panel {
	difference := endpointDifference("@node", "@its")
	only := ` and topk(100, ` + difference + `)`
	return table(spec{
		title: "Endpoints by node", unit: "none", w: 14, h: 8,
		shows: "The 100 nodes that differ most: how many endpoints are in the API and in the rules, and by how many these differ. " + onlyNumbers,
		bad:   "A difference for more than a minute.",
		next:  "Look at kube-proxy on that node: its log, its last sync, whether it follows the API.",
		targets: []Target{
			cells(`sum by (@node) (svcscope_service_endpoints{@its, source="api"})` + only),
			cells(`sum by (@node) (svcscope_service_endpoints{@its, source="kernel"})` + only),
			cells(`topk(100, ` + difference + `)`),
		},
	}, "Difference", append(nodeColumns(),
		value("A", "API", "short"), value("B", "Rules", "short"),
		column{from: "Value #C", name: "Difference", unit: "short", steps: redFrom(1)})...)
}

func serviceEntries() Panel {
	return timeseries(spec{
		title: "Entries of connection tracking", unit: "short", w: 8, h: 8,
		shows:   "The Service's entries on all nodes by state.",
		bad:     "closing far above replied: a connection for each request. unreplied that grows: its endpoints do not answer.",
		next:    "Conntrack overflow has stale and unanswered entries; svcscope watch SERVICE shows its connections as they come and go.",
		targets: []Target{over(`sum by (cluster, state) (svcscope_service_conntrack_entries{@its})`, "{{state}} {{cluster}}")},
	})
}

func serviceTables() Panel {
	return timeseries(spec{
		title: "Rules by table, largest node", unit: "short", w: 8, h: 8,
		shows: "Rules that the Service costs the node on which it costs most, by table and IP family.",
		bad:   "Growth without more endpoints or ports.",
		next:  "Compare with the endpoints above; Rule growth & capacity ranks the Services.",
		targets: []Target{over(
			`max by (cluster, table, ip_family) (sum by (@node, table, ip_family) (svcscope_service_rules{@its}))`,
			"{{table}} {{ip_family}} {{cluster}}")},
	})
}

func serviceCostByNode() Panel {
	return timeseries(spec{
		title: "Rules by node, top 10", unit: "short", w: 8, h: 8,
		shows: "Rules that the Service costs each node.",
		bad:   "Nodes that differ while the Service has no local traffic policy.",
		next:  "See whether the same nodes differ in their endpoints.",
		targets: []Target{over(
			`topk(10, sum by (@node) (svcscope_service_rules{@its}))`, nodeLegend)},
	})
}
