// SPDX-License-Identifier: Apache-2.0

package dashboards

const conntrackUID = "svcscope-conntrack"

// Shares of the table in use, and the seconds until it is full: as the agents
// see it come, or at the pace of the last hour where it grows. A limit of 0 is
// none.
const (
	limit     = `(svcscope_conntrack_entries_limit{@on} > 0)`
	inUse     = `max by (@node) (svcscope_conntrack_entries{@on} / ` + limit + `)`
	peakInUse = `max by (@node) (svcscope_conntrack_entries_peak{@on} / ` + limit + `)`
	untilFull = `(min by (@node) (svcscope_conntrack_time_to_full_seconds{@on}) or min by (@node) ((` + limit + ` - svcscope_conntrack_entries{@on})
		/ (deriv(svcscope_conntrack_entries{@on}[1h]) > 0) < 7 * 86400))`
)

func conntrack() Dashboard {
	return newDashboard(heading{
		uid: conntrackUID, title: "Conntrack overflow",
		description: "Is any node's connection-tracking table filling up, when will it be full, and what is lost already?",
		from:        "now-3h", refresh: "1m", variables: nodeVariables(),
	},
		section{"Is any table filling up?", []Panel{
			fullest(), nodesAbove(), soonestFull(), lostInRange(),
		}},
		section{"How full are they, and when will they be full?", []Panel{
			utilisation(), timeToFull(),
		}},
		section{"Who fills them, and what in them leads nowhere?", []Panel{
			entryOwners(), entryServices(), entryStates(), staleEntries(), unansweredEntries(), sourcePorts(),
		}},
		section{"What is lost, and why?", []Panel{losses(), oddities()}},
		section{"Which node needs what?", []Panel{conntrackTable(), loadFactor()}},
	)
}

func fullest() Panel {
	return stat(spec{
		title: "Fullest table", unit: "percentunit", w: 6, h: 4,
		shows:   "Highest share of the allowed entries in use on any node, at the peak of the last minute.",
		bad:     "Above 75 %; at 100 % new connections are dropped.",
		next:    "Find the node in the table below. Raise nf_conntrack_max, or shorten the timeouts of what fills it.",
		steps:   warnAt(0.75, 0.9),
		targets: []Target{over(`max by (cluster) (`+peakInUse+`)`, "{{cluster}}")},
	})
}

func nodesAbove() Panel {
	return stat(spec{
		title: "Nodes above 75 %", unit: "none", w: 6, h: 4,
		shows:   "Nodes whose table is more than 75 % full.",
		bad:     "Anything but 0. Many at once: the limit is too small for this cluster; one alone: see what runs there.",
		next:    "See the forecast below for the time that is left.",
		steps:   redFrom(1),
		targets: []Target{over(`sum by (cluster) (`+inUse+` > bool 0.75)`, "nodes {{cluster}}")},
	})
}

func soonestFull() Panel {
	return stat(spec{
		title: "First table full in", unit: "s", w: 6, h: 4, noValue: "none filling",
		shows: "Time until the first table is full: what an agent sees coming from its counts of every second, else if it grows on as in " +
			"the last hour; only tables that would be full within a week.",
		bad:     "Less than a working day of 8 hours (yellow); less than an hour (red) leaves no time to wait and see.",
		next:    "Raise nf_conntrack_max on that node now (it takes effect at once), then look for the cause.",
		steps:   badBelow(8*3600, 3600),
		targets: []Target{over(`min by (cluster) (`+untilFull+`)`, "{{cluster}}")},
	})
}

func lostInRange() Panel {
	return stat(spec{
		title: "Packets lost", unit: "short", w: 6, h: 4,
		shows: "Packets that connection tracking lost in the time range shown, on all nodes, and entries that it evicted.",
		bad:   "Anything but 0: each was a connection attempt or part of one.",
		next:  "The row on losses below tells the cause.",
		steps: redFrom(1),
		targets: []Target{now(
			`sum by (cluster) (increase(svcscope_conntrack_losses_total{@on}[$__range]))`, "{{cluster}}")},
	})
}

func utilisation() Panel {
	return timeseries(spec{
		title: "Table in use at its peak, top 10", unit: "percentunit", w: 12, h: 8,
		shows:   "Share of the allowed entries in use at the peak of the last minute, by node.",
		bad:     "Above 75 % for long, or peaks that reach 100 %.",
		next:    "Compare with connections by node on the Cluster overview to see whether traffic or long timeouts fill it.",
		steps:   warnAt(0.75, 0.9),
		targets: []Target{over(`topk(10, `+peakInUse+`)`, nodeLegend)},
	})
}

func timeToFull() Panel {
	return timeseries(spec{
		title: "Time until full, by node", unit: "s", w: 12, h: 8, noValue: "none filling",
		shows: "Time until the table is full: what the agent sees coming from its counts of every second, else if it grows on as in the " +
			"last hour; only tables that would be full within a week.",
		bad:     "A line that falls steadily towards 0.",
		next:    "Raise nf_conntrack_max on that node, then look for the cause.",
		targets: []Target{over(`bottomk(10, `+untilFull+`)`, nodeLegend)},
	})
}

func losses() Panel {
	return timeseries(spec{
		title: "Losses by cause", unit: "pps", w: 12, h: 8,
		shows: "Packets lost per second, on all nodes, by cause; table_full with the entries evicted from a full table to make room.",
		bad: "table_full: an overflow. ports: masquerading finds no free source port. clash in small numbers is the known " +
			"race of parallel DNS queries. chain: too few buckets.",
		next: "table_full: raise the limit. ports: spread the clients' destinations or sources. clash: use a node-local DNS cache or TCP. " +
			"chain: raise nf_conntrack_buckets.",
		targets: []Target{
			over(`sum by (cluster, cause) (rate(svcscope_conntrack_losses_total{@on}[$__rate_interval]))`, "{{cause}} {{cluster}}"),
		},
	})
}

func oddities() Panel {
	return timeseries(spec{
		title: "Not tracked or tried again", unit: "cps", w: 12, h: 8,
		shows: "Per second, on all nodes: packets that fit no connection, ICMP errors that could not be tracked, " +
			"look-ups that started again, racing packets of one flow that were merged, and tuples that NAT tried and found taken.",
		bad: "invalid in large numbers: asymmetric routes, or connections that outlived their entry. taken that rises with traffic: " +
			"source ports run short.",
		next: "Compare invalid with the drops of kube-proxy's INVALID rule and with changes of routes; taken with the source ports above.",
		targets: []Target{
			over(`sum by (cluster) (rate(svcscope_conntrack_found_total{@on}[$__rate_interval]))`, "taken {{cluster}}"),
			over(`sum by (cluster) (rate(svcscope_conntrack_invalid_total{@on}[$__rate_interval]))`, "invalid {{cluster}}"),
			over(`sum by (cluster) (rate(svcscope_conntrack_error_total{@on}[$__rate_interval]))`, "ICMP errors {{cluster}}"),
			over(`sum by (cluster) (rate(svcscope_conntrack_search_restart_total{@on}[$__rate_interval]))`, "look-ups again {{cluster}}"),
			over(`sum by (cluster) (rate(svcscope_conntrack_clash_resolve_total{@on}[$__rate_interval]))`, "merged {{cluster}}"),
		},
	})
}

func conntrackTable() Panel {
	only := ` and topk(100, ` + inUse + `)`
	return table(spec{
		title: "Nodes", unit: "none", w: 16, h: 10,
		shows: "The 100 nodes with the fullest tables: entries, limit, share in use, peak of the last minute, growth per hour " +
			"over the last hour, time until full where it grows, and packets lost per second.",
		bad:  "In use above 75 % together with growth; any losses.",
		next: "Choose the node above to see it alone.",
		targets: []Target{
			cells(`max by (@node) (svcscope_conntrack_entries{@on})` + only),
			cells(`max by (@node) (svcscope_conntrack_entries_limit{@on})` + only),
			cells(`topk(100, ` + inUse + `)`),
			cells(`max by (@node) (svcscope_conntrack_entries_peak{@on})` + only),
			cells(`3600 * max by (@node) (deriv(svcscope_conntrack_entries{@on}[1h]))` + only),
			cells(`sum by (@node) (rate(svcscope_conntrack_losses_total{@on}[$__rate_interval]))` + only),
			cells(untilFull + only),
		},
	}, "In use", append(nodeColumns(),
		value("A", "Entries", "short"), value("B", "Limit", "short"),
		column{from: "Value #C", name: "In use", unit: "percentunit", steps: warnAt(0.75, 0.9)},
		value("D", "Peak", "short"), value("E", "Growth/h", "short"),
		column{from: "Value #F", name: "Lost", unit: "pps", steps: plainThenRed()},
		value("G", "Full in", "s"))...)
}

func loadFactor() Panel {
	return timeseries(spec{
		title: "Entries per hash bucket, top 10", unit: "short", w: 8, h: 10,
		shows: "Entries per bucket of the hash table. All network namespaces share the buckets; only the node's own entries are counted here.",
		bad:   "Above 4: every look-up walks long chains. Newer kernels drop new connections when a chain grows too long.",
		next:  "Raise net.netfilter.nf_conntrack_buckets (or nf_conntrack's hashsize) along with the limit.",
		steps: warnAt(2, 4),
		targets: []Target{over(
			`topk(10, max by (@node) (svcscope_conntrack_entries{@on} / svcscope_conntrack_buckets{@on}))`, nodeLegend)},
	})
}
