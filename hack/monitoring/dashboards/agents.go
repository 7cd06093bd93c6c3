// SPDX-License-Identifier: Apache-2.0

package dashboards

const agentsUID = "svcscope-agents"

func agents() Dashboard {
	return newDashboard(heading{
		uid: agentsUID, title: "Agents",
		description: "How exact are the counts, who gets in their way, and what do readings cost the nodes?",
		from:        "now-1h", refresh: "1m", variables: nodeVariables(),
	},
		section{"How exact are the counts?", []Panel{
			exactNodes(), countingMethods(), blindShare(), eventsLost(), lockOpen(),
		}},
		section{"What do readings cost?", []Panel{
			readingTime(), kernelBytes(), readingsInterrupted(),
		}},
	)
}

func exactNodes() Panel {
	const exact = `min by (@node, backend) (svcscope_ledger_exact{@on})`
	return bars(spec{
		title: "Nodes by exactness", unit: "none", w: 12, h: 5,
		shows: "Nodes whose totals can miss nothing but packets in flight at a rewrite, and those where a rewrite of rules may take " +
			"with it what they counted since they were last read.",
		bad:  "Fewer exact nodes than before: they grew beyond --exact.max-rules, or a listener stopped.",
		next: "See the share of time below: not exact matters only where rules are rewritten often.",
		targets: []Target{
			over(`sum by (cluster, backend) (`+exact+`)`, "exact {{backend}} {{cluster}}"),
			over(`sum by (cluster, backend) (1 - `+exact+`)`, "not exact {{backend}} {{cluster}}"),
		},
	})
}

func countingMethods() Panel {
	return bars(spec{
		title: "How the numbers are made", unit: "none", w: 12, h: 5,
		shows: "Nodes by what connections and refusals are counted from.",
		bad:   "Method none: those nodes cannot count, and sums over all nodes are too low.",
		next:  "See the proxy mode of these nodes; ipvs and other proxies leave no rules to count from.",
		targets: []Target{over(
			`count by (cluster, what, method) (svcscope_counting_method{@on})`, "{{what}} from {{method}} {{cluster}}")},
	})
}

func blindShare() Panel {
	return timeseries(spec{
		title: "Time whose counts a rewrite took, top 10", unit: "percentunit", w: 8, h: 8,
		shows: "Share of the time between a last reading of rules and the rewrite that took their counters away, in the table with the most.",
		bad:   "Above 50 % for long: totals of the Services that change are too low there. Others are right.",
		next:  "nf_tables: raise --exact.max-rules. Legacy: mount the lock file. The Cluster overview shows how often rules change.",
		steps: yellowFrom(0.5),
		targets: []Target{over(
			`topk(10, max by (@node) (rate(svcscope_counter_blind_seconds_total{@on}[$__rate_interval])))`, nodeLegend)},
	})
}

func eventsLost() Panel {
	return timeseries(spec{
		title: "Events lost by listener", unit: "cpm", w: 8, h: 8,
		shows: "Events per minute that the kernel could not hand over to the agents, by listener.",
		bad:   "Any that go on: the agent looks at all rules again each time, and is not exact meanwhile.",
		next:  "Lower --exact.max-rules on such nodes, or find out who changes the rules so often.",
		targets: []Target{over(
			`60 * sum by (cluster, source) (rate(svcscope_events_lost_total{@on}[$__rate_interval]))`, "{{source}} {{cluster}}")},
	})
}

func lockOpen() Panel {
	return timeseries(spec{
		title: "Xtables lock in use, top 10", unit: "percentunit", w: 8, h: 8, noValue: "not watched",
		shows: "Share of the time in which a process held the lock of legacy iptables or waited for it, on nodes where the agent sees the file.",
		bad:   "Above 50 % for a quarter of an hour: writers stand in line, and kube-proxy's syncs are late.",
		next:  "lsof /run/xtables.lock on the node names the processes; kube-proxy's sync duration says how much is its own.",
		steps: warnAt(0.5, 0.9),
		targets: []Target{over(
			`topk(10, max by (@node) (rate(svcscope_xtables_lock_open_seconds_total{@on}[$__rate_interval])))`, nodeLegend)},
	})
}

func readingTime() Panel {
	return timeseries(spec{
		title: "Time of a reading, 99 %", unit: "s", w: 8, h: 8,
		shows: "The time below which 99 % of all readings of a source stay, over all nodes.",
		bad:   "Seconds, or growth without more rules or connections.",
		next:  "Open Rule growth & capacity: readings take as long as there is to read.",
		targets: []Target{over(
			`histogram_quantile(0.99, sum by (cluster, collector, le) (rate(svcscope_collector_read_duration_seconds_bucket{@on}[$__rate_interval])))`,
			"{{collector}} {{cluster}}")},
	})
}

func kernelBytes() Panel {
	return timeseries(spec{
		title: "Read from the kernel, largest node", unit: "Bps", w: 8, h: 8,
		shows: "Bytes per second that an agent takes from its kernel, by source, on the node with the most.",
		bad:   "Megabytes for long in nf_tables: the rules change all the time, so that they are read again and again.",
		next:  "The Cluster overview shows how often rules change, Rule growth & capacity how many there are.",
		targets: []Target{over(
			`max by (cluster, collector) (sum by (@node, collector) (rate(svcscope_kernel_read_bytes_total{@on}[$__rate_interval])))`,
			"{{collector}} {{cluster}}")},
	})
}

func readingsInterrupted() Panel {
	return timeseries(spec{
		title: "Readings begun again, largest node", unit: "cpm", w: 8, h: 8,
		shows: "Readings per minute that a change of the rules spoiled, by source, on the node with the most.",
		bad:   "As many as there are readings (4 a minute by default): the agent hardly keeps up with the writers.",
		next:  "Open Rule growth & capacity and see who changes the rules.",
		targets: []Target{over(
			`60 * max by (cluster, collector) (sum by (@node, collector) (rate(svcscope_kernel_reads_interrupted_total{@on}[$__rate_interval])))`,
			"{{collector}} {{cluster}}")},
	})
}
