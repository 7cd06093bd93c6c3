// SPDX-License-Identifier: Apache-2.0

package dashboards

const driftUID = "svcscope-drift"

func drift() Dashboard {
	return newDashboard(heading{
		uid: driftUID, title: "Drift",
		description: "Where are the nodes' rules not what kube-proxy should have made of the API, does kube-proxy keep up, " +
			"and how long do changes take from the API into the kernel?",
		from: "now-1h", refresh: "1m", variables: namespaceVariables(),
	},
		section{"Is anything drifting now?", []Panel{
			driftingCount(), brokenNodes(), standingProxies(), unjudgedNodes(), longestWait(),
		}},
		section{"Which Services?", []Panel{driftKinds(), driftingServices(), driftTable()}},
		section{"Which nodes, and what is wrong with them?", []Panel{nodeKinds(), nodeTable()}},
		section{"Does kube-proxy keep up, and is it watched?", []Panel{lastCommit(), pendingChanges(), unjudgedModes()}},
		section{"How long do changes take into the kernel?", []Panel{programmingTime(), programmingNodes(), programmingShares()}},
	)
}

// driftDocs is where the kinds are explained.
const driftDocs = "docs/drift.md has what each kind means, what it does and what to do"

func driftingCount() Panel {
	return stat(spec{
		title: "Drifting Services", unit: "none", w: 5, h: 4,
		shows: "Services whose rules are not what the API wants on at least one node, although kube-proxy has had its time. " +
			"Those above the series limit of an agent count as one.",
		bad:   "Anything but 0.",
		next:  "The next row tells which, and what is wrong.",
		steps: redFrom(1),
		targets: []Target{over(
			`count by (cluster) (sum by (@svc) (svcscope_service_drift{@on})) or 0 * count by (cluster) (svcscope_drifting_services{@on})`,
			"{{cluster}}")},
	})
}

func brokenNodes() Panel {
	return stat(spec{
		title: "Nodes with broken chains", unit: "none", w: 5, h: 4,
		shows: "Nodes that have lost rules which all Services need, where somebody's rules keep packets from Services, or with two sets of kube-proxy's rules.",
		bad:   "Anything but 0: mostly no Service works there.",
		next:  "The row on nodes names them and the kind. Restart kube-proxy there, then find out who flushed or wrote rules.",
		steps: redFrom(1),
		targets: []Target{over(
			`sum by (cluster) (max by (@node) (svcscope_node_drift{@on, kind!="not_syncing"}) > bool 0)`, "{{cluster}}")},
	})
}

func standingProxies() Panel {
	return stat(spec{
		title: "Nodes that do not sync", unit: "none", w: 5, h: 4,
		shows: "Nodes whose kube-proxy has written nothing for a minute or more although the API has changed. Of their Services nothing is said.",
		bad:   "Anything but 0: rules there are getting old.",
		next:  "See kube-proxy's log and /healthz on such a node, its way to the API, and what holds the xtables lock.",
		steps: redFrom(1),
		targets: []Target{over(
			`sum by (cluster) (max by (@node) (svcscope_node_drift{@on, kind="not_syncing"}) > bool 0)`, "{{cluster}}")},
	})
}

func unjudgedNodes() Panel {
	return stat(spec{
		title: "Nodes not judged", unit: "none", w: 5, h: 4,
		shows: "Nodes whose agent answers, but does not compare the rules of Services with the API.",
		bad:   "Any in a cluster whose kube-proxy works in iptables mode: nobody would see drift there.",
		next:  "The panel of nodes by proxy mode tells whether the mode is why; else svcscope drift in such a node's agent says it.",
		steps: yellowFrom(1),
		targets: []Target{over(
			`count by (cluster) (count by (@node) (svcscope_build_info{@on}) unless count by (@node) (svcscope_drifting_services{@on}))
			 or 0 * count by (cluster) (svcscope_build_info{@on})`, "{{cluster}}")},
	})
}

func longestWait() Panel {
	return stat(spec{
		title: "Longest wait", unit: "s", w: 4, h: 4,
		shows: "How long the oldest change of the API has waited for a kube-proxy to write anything.",
		bad:   "More than a minute.",
		next:  "The panel of changes that wait names the node.",
		steps: warnAt(60, 300),
		targets: []Target{over(
			`max by (cluster) (svcscope_kube_proxy_pending_change_seconds{@on})`, "{{cluster}}")},
	})
}

func driftKinds() Panel {
	return timeseries(spec{
		title: "Services that drift, by kind", unit: "short", w: 16, h: 8, noValue: "none",
		shows: "Services whose rules are not what the API wants, by what is wrong, summed over nodes. A Service counts once a node and kind.",
		bad:   "Any. source_ranges_missing lets sources in that should not be; most other kinds let connections fail.",
		next:  "One node: its rules were edited, or its kube-proxy has missed a change. All nodes: look at the Service. " + driftDocs + ".",
		targets: []Target{over(
			`sum by (cluster, kind) (max by (@node, kind) (svcscope_drifting_services{@on})) > 0`, "{{kind}} {{cluster}}")},
	})
}

func driftTable() Panel {
	const (
		where = `count by (@svc, kind, frontend) (max by (@node, service_namespace, service_name, kind, frontend) (svcscope_service_drift{@ns}))`
		ports = `count by (@svc, kind, frontend) (max by (@svc, port_name, protocol, ip_family, kind, frontend) (svcscope_service_drift{@ns}))`
	)
	return table(spec{
		title: "Services and what is wrong with them", unit: "none", w: 24, h: 8, noValue: "none",
		shows: "The 100 Services and kinds that drift on the most nodes: the kind of address that is concerned (none: all that use the chain), " +
			"on how many nodes, and how many of its ports and IP families.",
		bad:  "Any.",
		next: "Follow the Service's name to its dashboard. svcscope drift in a node's agent tells since when, and which rule. " + driftDocs + ".",
		targets: []Target{
			cells(`topk(100, ` + where + `)`),
			cells(ports + ` and topk(100, ` + where + `)`),
		},
	}, "Nodes", append(serviceColumns(), label("kind", "Kind"), label("frontend", "Address"),
		column{from: "Value #A", name: "Nodes", unit: "short", steps: redFrom(1)}, value("B", "Ports", "short"))...)
}

func nodeKinds() Panel {
	return timeseries(spec{
		title: "Nodes that drift, by kind", unit: "short", w: 10, h: 8, noValue: "none",
		shows: "Nodes on which something is wrong that all Services suffer from, by what it is.",
		bad:   "Any. not_syncing: rules get old. All other kinds: Services do not work, or an old set of rules serves them.",
		next:  "The table beside this names the nodes. " + driftDocs + ".",
		targets: []Target{over(
			`sum by (cluster, kind) (max by (@node, kind) (svcscope_node_drift{@on}) > bool 0) > 0`, "{{kind}} {{cluster}}")},
	})
}

func nodeTable() Panel {
	return table(spec{
		title: "Nodes and what is wrong with them", unit: "none", w: 14, h: 8, noValue: "none",
		shows: "The 100 nodes and kinds with the most places where something is wrong, and in how many IP families.",
		bad:   "Any.",
		next:  "svcscope drift in the node's agent tells since when, which chain or rule, and what to do.",
		targets: []Target{
			cells(`topk(100, sum by (@node, kind) (svcscope_node_drift{@on}) > 0)`),
			cells(`count by (@node, kind) (svcscope_node_drift{@on} > 0)`),
		},
	}, "Places", append(nodeColumns(), label("kind", "Kind"),
		column{from: "Value #A", name: "Places", unit: "short", steps: redFrom(1)}, value("B", "IP families", "short"))...)
}

func lastCommit() Panel {
	return timeseries(spec{
		title: "Since kube-proxy's last commit, top 10", unit: "s", w: 8, h: 8, noValue: "none seen yet",
		shows: "Time since kube-proxy's chains were last seen to be written anew, in the IP family with the longest.",
		bad:   "One node's grows while those of the others start again and again: its kube-proxy stands still.",
		next:  "See kube-proxy's log on that node. Where no Service changes, kube-proxy writes only once an hour or less.",
		targets: []Target{over(
			`topk(10, max by (@node) (time() - svcscope_kube_proxy_last_commit_timestamp_seconds{@on}))`, nodeLegend)},
	})
}

func pendingChanges() Panel {
	return timeseries(spec{
		title: "Changes that wait for kube-proxy, top 10", unit: "s", w: 8, h: 8,
		shows: "How long the oldest change of the API has waited for kube-proxy to write anything, in the IP family with the longest; 0 where none waits.",
		bad:   "More than a minute. A saw of some seconds is a kube-proxy at work.",
		next:  "kube-proxy's log and /healthz, its way to the API, and iptables -w that waits for the lock.",
		steps: warnAt(60, 300),
		targets: []Target{over(
			`topk(10, max by (@node) (svcscope_kube_proxy_pending_change_seconds{@on}))`, nodeLegend)},
	})
}

func unjudgedModes() Panel {
	return bars(spec{
		title: "Nodes not judged, by proxy mode", unit: "none", w: 8, h: 8, noValue: "all are judged",
		shows: "Nodes whose agent answers, but does not compare the rules of Services with the API, by kube-proxy's mode.",
		bad: "Mode iptables: the API is not followed, rules cannot be read, or no Services are in them. nftables, ipvs and none are " +
			"not compared yet.",
		next: "iptables: svcscope drift in such a node's agent says why; the Cluster overview counts nodes without the API and failing sources.",
		targets: []Target{over(
			`count by (cluster, proxy_mode) (svcscope_node_info{@on} unless on (cluster, job, instance) svcscope_drifting_services{@on})`,
			"{{proxy_mode}} {{cluster}}")},
	})
}

// programmed is how often changes took how long, by the labels.
func programmed(by string) string {
	return `sum by (` + by + `, le) (rate(svcscope_programming_delay_seconds_bucket{@on}[$__rate_interval]))`
}

func programmingTime() Panel {
	return timeseries(spec{
		title: "Time of a change, 50 % and 99 %", unit: "s", w: 8, h: 10, noValue: "no change was written",
		shows: "The time below which half and 99 % of the changes of endpoints stay, from their arrival from the API to the rules in the kernel, over all nodes.",
		bad:   "More than some seconds: new pods wait for connections, and pods that are gone still get some. Growth with the number of Services.",
		next:  "Compare the nodes beside this. All of them: kube-proxy's minSyncPeriod, and the number of rules on Rule growth & capacity.",
		targets: []Target{
			over(`histogram_quantile(0.99, `+programmed("cluster")+`)`, "99 % {{cluster}}"),
			over(`histogram_quantile(0.5, `+programmed("cluster")+`)`, "50 % {{cluster}}"),
		},
	})
}

func programmingNodes() Panel {
	return timeseries(spec{
		title: "Time of a change, 99 %, slowest nodes, top 10", unit: "s", w: 8, h: 10, noValue: "no change was written",
		shows: "The time below which 99 % of the changes of endpoints stay, by node.",
		bad:   "A node far above the others, or above 30 s for a quarter of an hour.",
		next:  "On that node: kube-proxy's CPU limit and log, other writers of rules, the xtables lock on the Agents dashboard.",
		steps: warnAt(10, 30),
		targets: []Target{over(
			`topk(10, histogram_quantile(0.99, `+programmed("@node")+`))`, nodeLegend)},
	})
}

func programmingShares() Panel {
	const (
		within = `increase(svcscope_programming_delay_seconds_bucket{@on, le!="+Inf"}[$__range])`
		all    = `increase(svcscope_programming_delay_seconds_bucket{@on, le="+Inf"}[$__range])`
	)
	return bars(spec{
		title: "Changes written within so many seconds", unit: "percentunit", w: 8, h: 10, noValue: "no change was written",
		shows: "Share of the changes of endpoints in the time shown that were in the kernel within a time in seconds, over all nodes.",
		bad:   "Less than nearly all within the time that clients can wait.",
		next:  "See beside this when the late ones were, and on which nodes.",
		targets: []Target{now(
			`sort(sum by (cluster, le) (`+within+`) / on (cluster) group_left () sum by (cluster) (`+all+`))`, "{{le}} s {{cluster}}")},
	})
}
