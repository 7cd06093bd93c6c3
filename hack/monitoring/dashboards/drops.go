// SPDX-License-Identifier: Apache-2.0

package dashboards

const dropsUID = "svcscope-drops"

func drops() Dashboard {
	return newDashboard(heading{
		uid: dropsUID, title: "Drops",
		description: "Which packets do the nodes' rules refuse, why, whose rules are they, toward which Service, policy or pod, " +
			"and what do witnesses see of it?",
		from: "now-1h", refresh: "1m", variables: namespaceVariables(),
	},
		section{"How much is refused, by whose rules, and why?", []Panel{
			refusedPackets(), refusingNodes(), refusedForServices(), groupsNotRead(),
			refusedByReason(), refusedByOwner(), refusedByHook(),
		}},
		section{"Toward which Services?", []Panel{refusedTable(), refusedByService()}},
		section{"By which policies, for which pods?", []Panel{policyDrops(), policyTable()}},
		section{"What do witnesses see of it?", []Panel{witnessedPackets(), loggedPackets(), logGroups()}},
		section{"On which nodes?", []Panel{dropsByNode(), invalidByNode()}},
	)
}

func refusedPackets() Panel {
	return stat(spec{
		title: "Refused packets", unit: "pps", w: 6, h: 4,
		shows: "Packets per second that rules of the nodes dropped or rejected, whoever wrote the rules. Each counts once.",
		bad:   "Far more than usual: policies and firewalls refuse some packets by right.",
		next:  "The reason and the owner below tell which rules refuse them.",
		targets: []Target{over(
			`sum by (cluster) (rate(svcscope_drop_packets_total{@on}[$__rate_interval]))`, "{{cluster}}")},
	})
}

func refusingNodes() Panel {
	return stat(spec{
		title: "Nodes that refuse packets", unit: "none", w: 6, h: 4,
		shows: "Nodes on which a rule refused a packet lately.",
		bad:   "One node alone while its neighbours do the same work.",
		next:  "The last row names the nodes; svcscope drops in such a node's agent lists what is refused.",
		targets: []Target{over(
			`sum by (cluster) (sum by (@node) (rate(svcscope_drop_packets_total{@on}[$__rate_interval])) > bool 0)`, "{{cluster}}")},
	})
}

func refusedForServices() Panel {
	return stat(spec{
		title: "Refused toward Services", unit: "pps", w: 6, h: 4,
		shows: "Packets per second toward Services of the chosen namespaces that kube-proxy's rules refused.",
		bad:   "Anything but 0: clients fail.",
		next:  "The row on Services below tells which, and why.",
		steps: yellowFrom(anyRate),
		targets: []Target{over(
			`sum by (cluster) (rate(svcscope_drop_packets_total{@ns, service_name!=""}[$__rate_interval]))`, "{{cluster}}")},
	})
}

func groupsNotRead() Panel {
	return stat(spec{
		title: "Groups of NFLOG not read", unit: "none", w: 6, h: 4,
		shows: "Groups that agents are told to read and do not, summed over nodes: another process holds them, or no rule logs there.",
		bad:   "Anything but 0: of packets logged to such a group there are no events. Counts of refused packets are right all the same.",
		next:  "svcscope drops in the node's agent names the holder. Name another group, or none, with --nflog.group.",
		steps: yellowFrom(1),
		targets: []Target{over(
			`sum by (cluster) (1 - svcscope_nflog_group_bound{@on}) or 0 * count by (cluster) (svcscope_build_info{@on})`, "{{cluster}}")},
	})
}

func refusedByReason() Panel {
	return timeseries(spec{
		title: "Refused packets by reason", unit: "pps", w: 8, h: 8,
		shows: "Packets per second that rules refused, by reason. no_endpoints, no_local_endpoints and source_range are kube-proxy's for a Service, " +
			"policy_… those of network policies, invalid of no known connection, rule of a rule that says nothing more.",
		bad:  "no_endpoints, or a reason that was not there before.",
		next: "svcscope drops -f in a node's agent shows such packets one by one, where a rule logs them.",
		targets: []Target{over(
			`sum by (cluster, reason) (rate(svcscope_drop_packets_total{@on}[$__rate_interval]))`, "{{reason}} {{cluster}}")},
	})
}

func refusedByOwner() Panel {
	return timeseries(spec{
		title: "Refused packets by owner", unit: "pps", w: 8, h: 8,
		shows: "Packets per second that rules refused, by who wrote the rules. other is a rule of nobody that the agent knows.",
		bad:   "other, where nobody should write rules of their own.",
		next:  "Chains of other are in iptables-save -c and nft list ruleset on the node: look for DROP and REJECT with counters that move.",
		targets: []Target{over(
			`sum by (cluster, owner) (rate(svcscope_drop_packets_total{@on}[$__rate_interval]))`, "{{owner}} {{cluster}}")},
	})
}

func refusedByHook() Panel {
	return timeseries(spec{
		title: "Refused packets by hook", unit: "pps", w: 8, h: 8,
		shows: "Packets per second that rules refused, by the hooks of netfilter that lead to the rule: input is to the node, forward through it, " +
			"output from it.",
		bad:  "output: processes of the node itself are refused.",
		next: "Compare with reason and owner at the same time.",
		targets: []Target{over(
			`sum by (cluster, hook) (rate(svcscope_drop_packets_total{@on}[$__rate_interval]))`, "{{hook}} {{cluster}}")},
	})
}

func refusedTable() Panel {
	const (
		sent    = `svcscope_drop_packets_total{@ns, service_name!=""}`
		inRange = `topk(100, sum by (@svc, reason) (increase(` + sent + `[$__range])) > 0)`
	)
	return table(spec{
		title: "Services that are refused", unit: "none", w: 12, h: 10, noValue: "none",
		shows: "The 100 Services and reasons with the most packets that kube-proxy's rules refused in the time shown. _other sums the Services above " +
			"the series limit.",
		bad: "no_endpoints: no pod is ready. no_local_endpoints: a traffic policy Local, and no pod on the node. " +
			"source_range: the client is not in the allowed ranges.",
		next: "Follow the Service's name to its dashboard: it tells the nodes.",
		targets: []Target{
			cells(`sum by (@svc, reason) (rate(` + sent + `[$__rate_interval])) and ` + inRange),
			cells(inRange),
		},
	}, "In this time", append(serviceColumns(), label("reason", "Reason"),
		column{from: "Value #A", name: "Now", unit: "pps", steps: plainThenRed()},
		value("B", "In this time", "short"))...)
}

func refusedByService() Panel {
	return timeseries(spec{
		title: "Refused packets by Service and reason, top 10", unit: "pps", w: 12, h: 10, noValue: "none",
		shows: "Packets per second toward Services that kube-proxy's rules refused. Clients that try again are counted again.",
		bad:   "A line that stays: its clients fail all the time.",
		next:  "kubectl get endpointslices of the Service; its traffic policies; its loadBalancerSourceRanges.",
		targets: []Target{over(
			`topk(10, sum by (@svc, reason) (rate(svcscope_drop_packets_total{@ns, service_name!=""}[$__rate_interval])) > 0)`,
			"{{service_namespace}}/{{service_name}} {{reason}} {{cluster}}")},
	})
}

// policySum adds up what a function makes of the packets that policies refused, by
// all that tells them apart. The chosen namespaces are those of the pod or of the
// policy: rules of some writers tell the one, of others the other.
func policySum(function, window string) string {
	of := func(label string) string {
		return function + `(svcscope_policy_drop_packets_total{@on, ` + label + `=~"$namespace"}[` + window + `])`
	}
	return `sum by (cluster, owner, direction, policy_namespace, policy_name, pod_namespace, pod_name) (` +
		of("pod_namespace") + ` or ` + of("policy_namespace") + `)`
}

// withPolicies is what panels of policies and pods show without the flag.
const withPolicies = "none: needs --metrics.policies"

func policyDrops() Panel {
	return timeseries(spec{
		title: "Refused by policies, top 10", unit: "pps", w: 12, h: 8, noValue: withPolicies,
		shows: "Packets per second that rules of network policies refused, by owner, policy and pod, as far as the rules tell. " +
			"Agents export this with --metrics.policies only.",
		bad:  "A pod that should be reachable, or a rise after a policy or a label has changed.",
		next: "svcscope drops in the pod's node's agent; then compare the policies that select the pod with the labels of its clients.",
		targets: []Target{over(
			`topk(10, `+policySum("rate", "$__rate_interval")+`)`,
			"{{owner}} {{policy_namespace}} {{policy_name}} {{pod_namespace}} {{pod_name}} {{cluster}}")},
	})
}

func policyTable() Panel {
	inRange := `topk(100, ` + policySum("increase", "$__range") + ` > 0)`
	return table(spec{
		title: "Policies and pods that refuse", unit: "none", w: 12, h: 8, noValue: withPolicies,
		shows: "The 100 policies and pods with the most packets that their rules refused in the time shown. A policy without a name: no policy let " +
			"the packet pass. Agents export this with --metrics.policies only.",
		bad:  "Pods that should be reachable.",
		next: "Compare the policy with what its pods and their clients are to do.",
		targets: []Target{
			cells(policySum("rate", "$__rate_interval") + ` and ` + inRange),
			cells(inRange),
		},
	}, "In this time", label("pod_namespace", "Pod namespace"), label("pod_name", "Pod"), label("policy_namespace", "Policy namespace"),
		label("policy_name", "Policy"), label("direction", "Direction"), label("owner", "Owner"), label("cluster", "Cluster"),
		column{from: "Value #A", name: "Now", unit: "pps", steps: plainThenRed()},
		value("B", "In this time", "short"))
}

func witnessedPackets() Panel {
	return timeseries(spec{
		title: "Witnessed packets by source and reason", unit: "pps", w: 8, h: 8, noValue: "none",
		shows: "Packets per second that a witness saw being refused. They are some of the refused packets above a second time: never add the two.",
		bad:   "Nothing by itself: it says how much of what is refused can be looked at packet by packet.",
		next:  "svcscope drops -f in a node's agent shows these packets.",
		targets: []Target{over(
			`sum by (cluster, source, reason) (rate(svcscope_drop_witnessed_packets_total{@on}[$__rate_interval]))`,
			"{{source}} {{reason}} {{cluster}}")},
	})
}

func loggedPackets() Panel {
	return timeseries(spec{
		title: "Logged packets, received and lost", unit: "pps", w: 8, h: 8, noValue: "no group is read",
		shows: "Packets per second that rules logged to groups of NFLOG which agents read, and those that came too fast.",
		bad:   "Lost ones: there are no events of them. Counts of refused packets are right all the same.",
		next:  "A limit on the rule that logs (-m limit) makes fewer of them.",
		targets: []Target{
			over(`sum by (cluster, group) (rate(svcscope_nflog_packets_total{@on}[$__rate_interval]))`, "group {{group}} received {{cluster}}"),
			over(`sum by (cluster, group) (rate(svcscope_nflog_lost_packets_total{@on}[$__rate_interval]))`, "group {{group}} lost {{cluster}}"),
		},
	})
}

func logGroups() Panel {
	return bars(spec{
		title: "Nodes by group of NFLOG", unit: "none", w: 8, h: 8, noValue: "no rule logs to a group",
		shows: "Nodes by what becomes of the packets that rules log to a group: read by the agent, held by another process, left alone as others may " +
			"want it, or with --nflog.group=auto waiting until nobody has held it for 10 minutes.",
		bad:  "A group that is held where the agent should read it, or failed.",
		next: "svcscope drops in such a node's agent names the holder.",
		targets: []Target{
			over(`sum by (cluster, group, state) (svcscope_nflog_group_state{@on})`, "group {{group}} {{state}} {{cluster}}"),
		},
	})
}

func dropsByNode() Panel {
	return timeseries(spec{
		title: "Refused packets by node, top 10", unit: "pps", w: 12, h: 8,
		shows: "Packets per second that a node's rules refused.",
		bad:   "One node far above the rest.",
		next:  "Choose that node above: reason and owner are then its own. svcscope drops in its agent has the same and the last packets.",
		targets: []Target{over(
			`topk(10, sum by (@node) (rate(svcscope_drop_packets_total{@on}[$__rate_interval])))`, nodeLegend)},
	})
}

func invalidByNode() Panel {
	return timeseries(spec{
		title: "INVALID packets by node, top 10", unit: "pps", w: 12, h: 8,
		shows: "Packets per second that were refused because connection tracking takes them to be of no connection, or to be broken.",
		bad:   "A rise: connections through the node hang or are reset. A few are normal, as answers to what has ended.",
		next:  "Look for routes that differ by direction, and for a connection-tracking table that was full; the Conntrack overflow dashboard has the causes.",
		targets: []Target{over(
			`topk(10, sum by (@node) (rate(svcscope_drop_packets_total{@on, reason="invalid"}[$__rate_interval])))`, nodeLegend)},
	})
}
