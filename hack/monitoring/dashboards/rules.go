// SPDX-License-Identifier: Apache-2.0

package dashboards

const rulesUID = "svcscope-rules"

func ruleGrowth() Dashboard {
	return newDashboard(heading{
		uid: rulesUID, title: "Rule growth & capacity",
		description: "How many rules and chains the nodes hold, who owns them, where their number goes, " +
			"and whether the nodes are programmed alike.",
		from: "now-24h", refresh: "5m", variables: namespaceVariables(),
	},
		section{"How large are the rules?", []Panel{
			largestRules(), largestChains(), largestForecast(), lastChange(), undecoded(),
		}},
		section{"Who owns them, and where does it go?", []Panel{
			rulesByOwner(), chainsByOwner(), forecastByOwner(), ownersTable(),
		}},
		section{"What does a packet pass, and which Services cost most?", []Panel{
			dispatch(), topServiceRules(), seriesLimit(), serviceRulesTable(),
		}},
		section{"Are the nodes programmed alike, and how often?", []Panel{
			deviation(), changes("Changes by writer"), differingEndpoints(),
		}},
	)
}

// forecast is the number of rules in 30 days, by the labels, on the straight
// line through the last day. What has less than half a day of history counts
// with its present number: its line would be a guess. The subquery takes the
// sums every 15 minutes, which is far cheaper than all samples of all series.
func forecast(by string) string {
	sum := `sum by (` + by + `) (svcscope_rules{@on})`
	day := `(` + sum + `)[1d:15m]`
	return `(clamp_min(predict_linear(` + day + `, 30 * 86400), 0) and count_over_time(` + day + `) >= 48 or ` + sum + `)`
}

func largestRules() Panel {
	return stat(spec{
		title: "Rules on the largest node", unit: "short", w: 5, h: 4,
		shows: "Rules of all tables, owners and IP families on the node with the most.",
		bad:   "Tens of thousands in iptables mode: syncs take seconds and first packets milliseconds.",
		next:  "See who owns them below; think of kube-proxy's nftables mode.",
		steps: warnAt(20000, 50000),
		targets: []Target{over(
			`max by (cluster) (sum by (@node) (svcscope_rules{@on}))`, "{{cluster}}")},
	})
}

func largestChains() Panel {
	return stat(spec{
		title: "Chains on the largest node", unit: "short", w: 5, h: 4,
		shows: "Chains of all tables, owners and IP families on the node with the most.",
		bad:   "Growth without more Services or policies: chains are left behind.",
		next:  "See who owns them below.",
		targets: []Target{over(
			`max by (cluster) (sum by (@node) (svcscope_chains{@on}))`, "{{cluster}}")},
	})
}

func largestForecast() Panel {
	return stat(spec{
		title: "Largest node in 30 days", unit: "short", w: 5, h: 4,
		shows: "Rules on the node that will have the most in 30 days, if all goes on as in the last day.",
		bad:   "Far above today's number for several days on end. A node with less than half a day of history counts with today's number.",
		next:  "See below which owner grows.",
		steps: warnAt(20000, 50000),
		targets: []Target{over(
			`max by (cluster) `+forecast("@node"), "{{cluster}}")},
	})
}

func lastChange() Panel {
	const changed = `max by (@node) (svcscope_ruleset_last_change_timestamp_seconds{@on})`
	return stat(spec{
		title: "Since the last change", unit: "s", w: 5, h: 4, noValue: "none seen yet",
		shows: "Time since an agent last saw a ruleset change, newest and oldest over the nodes.",
		bad:   "One node's is far older than the others' while Services change: its kube-proxy stands still.",
		next:  "Look at kube-proxy on the nodes that deviate below.",
		targets: []Target{
			over(`min by (cluster) (time() - `+changed+`)`, "newest {{cluster}}"),
			over(`max by (cluster) (time() - `+changed+`)`, "oldest {{cluster}}"),
		},
	})
}

func undecoded() Panel {
	return stat(spec{
		title: "Not decoded", unit: "none", w: 4, h: 4, noValue: "none",
		shows: "Matches, targets and messages that the agents could not decode since they started, by kind.",
		bad:   "Any: the rules with them are counted, but what they match is not known.",
		next:  "Report the kind with the kernel's release and the program that wrote the rule.",
		steps: yellowFrom(1),
		targets: []Target{over(
			`sum by (cluster, kind) (svcscope_undecoded_total{@on})`, "{{kind}} {{cluster}}")},
	})
}

func rulesByOwner() Panel {
	return timeseries(spec{
		title: "Rules by owner, largest node", unit: "short", w: 8, h: 8,
		shows: "Rules by owner and kernel interface, each on the node where this owner has the most.",
		bad:   "An owner that grows without end, or rules in both legacy and nft.",
		next:  "kube-proxy: see the Services below. CNI: count its policies. other: find the program in the rules' comments.",
		targets: []Target{over(
			`max by (cluster, owner, backend) (sum by (@node, owner, backend) (svcscope_rules{@on}))`,
			"{{owner}} {{backend}} {{cluster}}")},
	})
}

func chainsByOwner() Panel {
	return timeseries(spec{
		title: "Chains by owner, largest node", unit: "short", w: 8, h: 8,
		shows: "Chains by owner and kernel interface, each on the node where this owner has the most.",
		bad:   "Growth without more Services or policies: chains are left behind.",
		next:  "List the owner's chains on that node; a restart of the owner usually cleans up.",
		targets: []Target{over(
			`max by (cluster, owner, backend) (sum by (@node, owner, backend) (svcscope_chains{@on}))`,
			"{{owner}} {{backend}} {{cluster}}")},
	})
}

func forecastByOwner() Panel {
	return timeseries(spec{
		title: "Rules by owner in 30 days, largest node", unit: "short", w: 8, h: 8,
		shows: "Rules by owner in 30 days, on the straight line through the last day. With less than half a day of history: today's number.",
		bad:   "An owner's line far above the one for today, for several days on end.",
		next:  "Plan for it: fewer Services or policies for each cluster, or kube-proxy's nftables mode.",
		targets: []Target{over(
			`max by (cluster, owner) `+forecast("@node, owner"), "{{owner}} {{cluster}}")},
	})
}

func ownersTable() Panel {
	const by = `max by (cluster, owner, table, backend, ip_family) `
	return table(spec{
		title: "Owners and tables", unit: "none", w: 24, h: 8,
		shows: "Rules and chains by owner, table, kernel interface and IP family on the node with the most, and the growth of the rules " +
			"in the time range on the node where it is largest, which may be another; below 0 all nodes have fewer than before.",
		bad:  "The same owner in legacy and in nft; large growth.",
		next: "Both interfaces: one is left from a change of mode; run the owner's clean-up or restart the node.",
		targets: []Target{
			cells(by + `(svcscope_rules{@on})`),
			cells(by + `(svcscope_chains{@on})`),
			cells(by + `(delta(svcscope_rules{@on}[$__range]))`),
		},
	}, "Rules",
		label("owner", "Owner"), label("table", "Table"), label("backend", "Backend"), label("ip_family", "IP family"),
		label("cluster", "Cluster"), value("A", "Rules", "short"), value("B", "Chains", "short"), value("C", "Largest growth", "short"))
}

func dispatch() Panel {
	return timeseries(spec{
		title: "Rules that a first packet passes", unit: "short", w: 8, h: 8,
		shows: "Rules in KUBE-SERVICES on the largest node: the worst case passes all, the average packet half of them.",
		bad:   "Thousands: each new connection to any Service pays for all of them.",
		next:  "kube-proxy's nftables mode looks Services up in a map instead.",
		targets: []Target{
			over(`max by (cluster, backend, ip_family) (svcscope_dispatch_rules{@on})`, "worst {{backend}} {{ip_family}} {{cluster}}"),
			over(`max by (cluster, backend, ip_family) (svcscope_dispatch_rules{@on}) / 2`, "average {{backend}} {{ip_family}} {{cluster}}"),
		},
	})
}

func topServiceRules() Panel {
	return timeseries(spec{
		title: "Rules by Service, top 10", unit: "short", w: 8, h: 8,
		shows: "Rules that a Service costs the node where it costs most.",
		bad:   "One Service with a large share of all rules: many endpoints times many ports.",
		next:  "Follow its name in the table below.",
		targets: []Target{over(
			`topk(10, max by (@svc) (sum by (@node, service_namespace, service_name) (svcscope_service_rules{@ns})))`, serviceLegend)},
	})
}

func seriesLimit() Panel {
	return timeseries(spec{
		title: "Services and the series limit", unit: "short", w: 8, h: 8,
		shows: "Services with rules on the node with the most, the limit of Services with series of their own, " +
			"and Services that an agent summed in _other since it started, on the node with the most.",
		bad:  "Any summed in _other: their numbers cannot be told apart.",
		next: "Raise --metrics.max-services; each Service costs a few series on each node.",
		targets: []Target{
			over(`max by (cluster) (count by (@node) (count by (@node, service_namespace, service_name) (svcscope_service_rules{@on})))`,
				"Services {{cluster}}"),
			over(`min by (cluster) (svcscope_series_limit{@on})`, "limit {{cluster}}"),
			over(`max by (cluster) (svcscope_series_dropped_total{@on})`, "in _other {{cluster}}"),
		},
	})
}

func serviceRulesTable() Panel {
	const rules = `max by (@svc) (sum by (@node, service_namespace, service_name) (svcscope_service_rules{@ns}))`
	const only = ` and topk(100, ` + rules + `)`
	return table(spec{
		title: "Services by rules", unit: "none", w: 24, h: 8,
		shows: "The 100 Services with the most rules: rules and endpoints on the largest node, and connections in the time range.",
		bad:   "Many rules and no connections over a long time range: paid for and not used.",
		next:  "Ask the owner whether the Service is still needed. Follow its name to its dashboard.",
		targets: []Target{
			cells(`topk(100, ` + rules + `)`),
			cells(`max by (@svc) (sum by (@node, service_namespace, service_name) (svcscope_service_endpoints{@ns, source="kernel"}))` + only),
			cells(`sum by (@svc) (increase(svcscope_service_connections_total{@ns}[$__range]))` + only),
		},
	}, "Rules", append(serviceColumns(),
		value("A", "Rules", "short"), value("B", "Endpoints", "short"), value("C", "Connections", "short"))...)
}

func deviation() Panel {
	return timeseries(spec{
		title: "Deviation from the median node, top 10", unit: "percentunit", w: 8, h: 8,
		shows: "How far a node's kube-proxy rules are from those of the median node of its cluster, which is taken over all nodes.",
		bad:   "More than 10 % for a quarter of an hour: that node's kube-proxy is late or stands still. Local traffic policies make small differences.",
		next:  "Look at kube-proxy on that node, then at its number of endpoints beside this.",
		steps: warnAt(0.1, 0.25),
		targets: []Target{over(
			`topk(10, abs(sum by (@node) (svcscope_rules{@on, owner="kube-proxy"})
			 / on (cluster) group_left () quantile by (cluster) (0.5, sum by (@node) (svcscope_rules{cluster=~"$cluster", owner="kube-proxy"})) - 1))`,
			nodeLegend)},
	})
}

func differingEndpoints() Panel {
	return timeseries(spec{
		title: "Endpoints more or fewer than in the API, top 10", unit: "short", w: 8, h: 8,
		shows: "By how many endpoints a node's rules differ from the API, summed over Services and ports. " + onlyNumbers +
			" Nodes are compared where the API is followed and kube-proxy's mode is iptables.",
		bad:   "Anything but 0 for more than a minute: kube-proxy on that node is late, stuck or gone.",
		next:  "Look at kube-proxy on that node; the Service dashboard shows which Service differs where.",
		steps: redFrom(1),
		targets: []Target{over(
			`topk(10, `+endpointDifference("@node", "@ns")+`)`, nodeLegend)},
	})
}
