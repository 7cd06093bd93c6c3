// SPDX-License-Identifier: Apache-2.0

package metrics

import "github.com/svcscope/svcscope/pkg/correlate"

const (
	sysctlFolder   = "/proc/sys/net/netfilter/"
	statsInterface = "IPCTNL_MSG_CT_GET_STATS_CPU"
	conntrackRead  = "conntrack could be read; needs no capability"
	statsRead      = "the statistics could be read"
)

func conntrackMetrics() []Metric {
	gauge := func(name, file string, unit Unit, help string) Metric {
		return Metric{
			Name: "svcscope_conntrack_" + name, Type: Gauge, Unit: unit, Help: help,
			Stability: Stable, Kernel: sysctlFolder + file, Cost: CostCall, When: conntrackRead,
		}
	}
	return append([]Metric{
		gauge("entries", "nf_conntrack_count", unitEntries, "Entries in the connection-tracking table of this node's network namespace"),
		gauge("entries_peak", "nf_conntrack_count", unitEntries, "Highest number of entries of the last minute, counted every second; since the previous sampling if that is longer ago"),
		gauge("entries_limit", "nf_conntrack_max", unitEntries, "Entries allowed in each network namespace (nf_conntrack_max); new flows are dropped above it"),
		gauge("buckets", "nf_conntrack_buckets", unitBuckets, "Buckets of the hash table, which all network namespaces share (nf_conntrack_buckets)"),
		{
			Name: "svcscope_conntrack_time_to_full_seconds", Type: Gauge, Unit: unitSeconds,
			Help: "Time until the table is full if it goes on filling as in the last 20 seconds or the last quarter of an hour, " +
				"whichever is sooner; 0 when it is full",
			Stability: Stable, Kernel: sysctlFolder + "nf_conntrack_count", Cost: CostCall,
			When: "the table is filling, and would be full within five minutes or, at the long window's rate, within hours",
		},
		{
			Name: "svcscope_conntrack_losses_total", Type: Counter, Unit: unitPackets,
			Help: "Packets that connection tracking lost, and entries that it evicted from a full table, by cause. Told from the " +
				"statistics: chain_toolong and insert_failed say so, tuples tried in vain mean that source ports ran out, and what was " +
				"dropped in a full table found no room",
			Labels: []Label{causeLabel()}, Stability: Stable, Kernel: statsInterface, Cost: CostCall, When: statsRead,
		},
	}, append(conntrackStatistics(), conntrackEntries()...)...)
}

func causeLabel() Label {
	l := Label{Name: "cause", Question: "Why were they lost?"}
	for c := range correlate.LossCause(correlate.NumLossCauses) {
		l.Values = append(l.Values, c.String())
	}
	return l
}

// conntrackEntries are made of a dump of all entries.
func conntrackEntries() []Metric {
	owner := Label{Name: "owner", Question: "What are the entries there for?"}
	for o := range correlate.Owner(correlate.NumOwners) {
		owner.Values = append(owner.Values, o.String())
	}
	dumped := func(name string, unit Unit, help string, labels ...Label) Metric {
		return Metric{
			Name: "svcscope_conntrack_" + name, Type: Gauge, Unit: unit, Help: help, Labels: labels,
			Stability: Stable, Kernel: flowsInterface, Cost: CostEntries, When: "the entries were read",
		}
	}
	return []Metric{
		dumped("entries_by_state", unitEntries, "Entries by protocol and state, of the last reading of all entries",
			Label{Name: "protocol", Values: []string{"tcp", "udp", "sctp", "icmp", "icmpv6", "other"}, Question: "Which protocol?"},
			Label{Name: "state", Bound: "the states of `conntrack -L` in lower case; replied and unreplied where a protocol has none", Question: "In which state?"}),
		dumped("entries_by_owner", unitEntries, "Entries by what they are there for, of the last reading: a Service's address, something "+
			"else that redirects (a port of the host, a Service that was deleted), an endpoint that was reached without one here, a pod of this "+
			"node on its way out, the node itself, or nothing known", owner),
		dumped("port_pressure_ratio", unitRatio, "Worst share of the 64,512 source ports that masqueraded connections with one "+
			"protocol, source address, destination and port take, the node's own and those that are closing among them; near 1 new ones fail, "+
			"sooner where source NAT has a smaller range. `svcscope conntrack` names the destination"),
		dumped("dump_interval_seconds", unitSeconds, "Time between the starts of the last two readings of all entries: "+
			"--conntrack.interval, or longer where a reading would take more than 2 % of a core"),
	}
}

func conntrackStatistics() []Metric {
	stat := func(name string, unit Unit, minKernel, help string) Metric {
		m := Metric{
			Name: "svcscope_conntrack_" + name + "_total", Type: Counter, Unit: unit, Help: help,
			Stability: Stable, Kernel: statsInterface, MinKernel: minKernel, Cost: CostCall, When: statsRead,
		}
		if minKernel != "" {
			m.When += " and the kernel has the statistic"
		}
		return m
	}
	return []Metric{
		stat("found", unitEvents, "", "Tuples that NAT tried for a new connection and found taken. Not look-ups: a rising rate "+
			"means that source ports for masquerading run short"),
		stat("invalid", unitPackets, "", "Packets that could not be tracked because they fit no connection or protocol state"),
		stat("insert_failed", unitPackets, "", "New connections that could not be confirmed: the entry was dying, its hash chain "+
			"too long, or its tuple taken in the meantime. The packet is dropped and counts in drop too where tuples clashed. Before "+
			"Linux 5.10 also clashes that were resolved, of which nothing was lost"),
		stat("drop", unitPackets, "", "Packets dropped because no entry could be made (table full, no memory), because tuples "+
			"clashed (then in insert_failed too), or by a protocol's tracker or helper"),
		stat("early_drop", unitEntries, "", "Entries evicted to make room in a full table; the new packet passed"),
		stat("error", unitPackets, "", "ICMP error packets that could not be tracked"),
		stat("search_restart", unitEvents, "", "Look-ups started again because the hash table was resized or an entry moved meanwhile"),
		stat("clash_resolve", unitPackets, "5.10", "Packets of one flow that raced to make its entry and were merged; nothing was lost"),
		stat("chain_toolong", unitPackets, "5.15", "Packets dropped because their hash chain was too long: "+
			"too few buckets for the number of entries"),
	}
}
