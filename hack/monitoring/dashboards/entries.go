// SPDX-License-Identifier: Apache-2.0

package dashboards

func entryOwners() Panel {
	return timeseries(spec{
		title: "Entries by what they are there for", unit: "short", w: 8, h: 8,
		shows: "Entries on all nodes: reached by a Service's address; redirected by something else, such as a port of the host or what was " +
			"a Service; an endpoint reached without one, as another node's traffic is; pods on their way out; the node itself; unknown.",
		bad:     "One that grows while connections do not: long timeouts, or a client that does not close.",
		next:    "service: the panel beside this. pod: svcscope conntrack on that node, and its table of source ports.",
		targets: []Target{over(`sum by (cluster, owner) (svcscope_conntrack_entries_by_owner{@on})`, "{{owner}} {{cluster}}")},
	})
}

func entryServices() Panel {
	return timeseries(spec{
		title: "Services with most entries, top 10", unit: "short", w: 8, h: 8,
		shows: "Entries by Service, on all nodes.",
		bad:   "One Service that takes a large part of a table that fills.",
		next:  "Many closing: its clients open a connection for each request. Many replied: they are kept open; look at idle timeouts.",
		targets: []Target{over(
			`topk(10, sum by (@svc) (svcscope_service_conntrack_entries{@on}))`, serviceLegend)},
	})
}

func entryStates() Panel {
	return timeseries(spec{
		title: "Entries by state, top 10", unit: "short", w: 8, h: 8,
		shows: "Entries on all nodes by protocol and state.",
		bad:   "Many syn_sent or unreplied: something does not answer, or a scan. Many time_wait: short connections.",
		next:  "svcscope conntrack on the fullest node shows which Services they belong to.",
		targets: []Target{over(
			`topk(10, sum by (cluster, protocol, state) (svcscope_conntrack_entries_by_state{@on}))`, "{{protocol}} {{state}} {{cluster}}")},
	})
}

func staleEntries() Panel {
	return timeseries(spec{
		title: "Stale entries by Service, top 10", unit: "short", w: 8, h: 8, noValue: "none",
		shows: "Entries that lead to an address which is no endpoint of the Service any more.",
		bad: "UDP: clients that go on sending reach nobody until the entry times out, which their packets put off. TCP: connections to " +
			"a pod that is gone hang until their timeout.",
		next:  "UDP: kube-proxy should have deleted them; conntrack -D -p udp -d ADDRESS --dport PORT does. TCP: clients need keepalives or deadlines.",
		steps: redFrom(1),
		targets: []Target{over(
			`topk(10, sum by (@svc, protocol) (svcscope_service_conntrack_stale_entries{@on}))`, serviceLegend+" {{protocol}}")},
	})
}

func unansweredEntries() Panel {
	return timeseries(spec{
		title: "Unanswered entries by Service, top 10", unit: "short", w: 8, h: 8, noValue: "none",
		shows: "Entries toward an endpoint from which nothing has come back, by whether it is on the same node or on another.",
		bad:   "local: the pod does not listen or is overloaded. remote alone: the way between the nodes, or a policy there.",
		next:  "Compare nodes: one node as the target is its network; one Service everywhere is its pods. One-way UDP is always unanswered.",
		targets: []Target{over(
			`topk(10, sum by (@svc, where) (svcscope_service_conntrack_unanswered_entries{@on}))`, serviceLegend+" {{where}}")},
	})
}

func sourcePorts() Panel {
	return timeseries(spec{
		title: "Source ports in use toward one destination, top 10", unit: "percentunit", w: 8, h: 8,
		shows:   "Share of the source ports that masqueraded connections take toward the busiest destination, by node.",
		bad:     "Above 80 %: finding a free port takes long, and near 100 % new connections fail.",
		next:    "svcscope conntrack on that node names the destination. Keep connections open, or give it more addresses.",
		steps:   warnAt(0.5, 0.8),
		targets: []Target{over(`topk(10, max by (@node) (svcscope_conntrack_port_pressure_ratio{@on}))`, nodeLegend)},
	})
}
