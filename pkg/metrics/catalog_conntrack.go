// SPDX-License-Identifier: Apache-2.0

package metrics

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
		gauge("entries_peak", "nf_conntrack_count", unitEntries, "Highest number of entries since the sampling before, from a count every second"),
		gauge("entries_limit", "nf_conntrack_max", unitEntries, "Entries allowed in each network namespace (nf_conntrack_max); new flows are dropped above it"),
		gauge("buckets", "nf_conntrack_buckets", unitBuckets, "Buckets of the hash table, which all network namespaces share (nf_conntrack_buckets)"),
	}, conntrackStatistics()...)
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
			"too long, or its tuple taken in the meantime. The packet is dropped and counts in drop too where tuples clashed"),
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
