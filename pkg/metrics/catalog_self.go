// SPDX-License-Identifier: Apache-2.0

package metrics

import "slices"

// maxKinds bounds the label kind of undecoded_total; further kinds are summed
// in kindOther.
const (
	maxKinds  = 64
	kindOther = "other"
)

func selfMetrics() []Metric {
	self := func(m Metric) Metric {
		m.Stability, m.Cost = Stable, CostNone
		return m
	}
	collector := []Label{collectorLabel("nftables", "legacy", "conntrack", "conntrack_entries", "kube", "nflog", "nfacct", "tap")}
	snapshot := "a snapshot was taken"
	return slices.Concat(nodeMetrics(), exactnessMetrics(), costMetrics(), []Metric{
		self(Metric{
			Name: "svcscope_snapshot_timestamp_seconds", Type: Gauge, Unit: unitTimestamp,
			Help: "When the numbers of this exposition were sampled", When: snapshot,
		}),
		self(Metric{
			Name: "svcscope_collector_success", Type: Gauge, Unit: unitBoolean, Labels: collector,
			Help: "Whether the last reading of the source succeeded", When: "the source is in use",
		}),
		self(Metric{
			Name: "svcscope_collector_duration_seconds", Type: Gauge, Unit: unitSeconds, Labels: collector,
			Help: "How long the last reading of the source took", When: "the source is read at each sampling; not kube, which is followed",
		}),
		self(Metric{
			Name: "svcscope_collector_last_success_timestamp_seconds", Type: Gauge, Unit: unitTimestamp, Labels: collector,
			Help: "When the source was last read with success", When: "a reading succeeded since the agent started",
		}),
		self(Metric{
			Name: "svcscope_undecoded_total", Type: Counter, Unit: unitObjects,
			Help: "Matches, targets, expressions and messages from the kernel that the agent could not decode, each counted once " +
				"while it stands in the rules; they are kept as unknown, the rest is read",
			Labels: []Label{{
				Name: "kind", Bound: "64 kinds; further ones are summed in `other`", Question: "What was it?",
			}},
			When: "something could not be decoded",
		}),
		self(Metric{
			Name: "svcscope_events_lost_total", Type: Counter, Unit: unitEvents,
			Help:   "Events that the kernel could not hand over because the agent read too slowly",
			Labels: []Label{{Name: "source", Bound: "the agent's listeners", Question: "From which listener?"}},
			When:   "the listener is in use",
		}),
		self(Metric{
			Name: "svcscope_series_limit", Type: Gauge, Unit: unitServices,
			Help: "Services with series of their own at most (--metrics.max-services)", When: snapshot,
		}),
		self(Metric{
			Name: "svcscope_series_dropped_total", Type: Counter, Unit: unitServices,
			Help: "Services that were summed in _other instead of getting series of their own", When: snapshot,
		}),
	})
}

func collectorLabel(values ...string) Label {
	return Label{Name: "collector", Values: values, Question: "Which source?"}
}

// exactnessMetrics tell how sure the totals are.
func exactnessMetrics() []Metric {
	return []Metric{
		{
			Name: "svcscope_ledger_exact", Type: Gauge, Unit: unitBoolean,
			Help: "Whether only packets in flight at a rewrite can be missing from the totals; 0 where a rewrite may take " +
				"with it what rules counted since they were last read",
			Labels: []Label{backendLabel("legacy", "nft"), familyLabel()}, Stability: Stable,
			Kernel: "NFNLGRP_NFTABLES: 1 while the agent listens; always 0 in legacy", Cost: CostCall,
			When: "the backend holds kube-proxy's rules",
		},
		{
			Name: "svcscope_counter_blind_seconds_total", Type: Counter, Unit: unitSeconds,
			Help: "Time between a last reading of rules and the rewrite that took their counters away, or until that was noticed where nothing tells when it was: " +
				"what such rules counted meanwhile is lost",
			Labels: []Label{
				backendLabel("legacy", "nft"), familyLabel(),
				{Name: "table", Bound: "the tables that kube-proxy writes: nat and filter", Question: "In which table?"},
			},
			Stability: Stable, Kernel: rulesInterface, Cost: CostRules, When: "the table holds kube-proxy's rules",
		},
		{
			Name: "svcscope_xtables_lock_open_seconds_total", Type: Counter, Unit: unitSeconds,
			Help: "Time that the file of the xtables lock was open in any process, which waited for the lock or held it. " +
				"Times of several processes overlap and count once",
			Stability: Stable, Kernel: "inotify on the lock file", Cost: CostCall,
			When: "the file is there (`--legacy.lock-file`; in a container only where it is mounted)",
		},
	}
}

// costMetrics tell what readings take.
func costMetrics() []Metric {
	const when = "the source was read"
	total := func(name string, unit Unit, help string) Metric {
		return Metric{
			Name: "svcscope_kernel_" + name + "_total", Type: Counter, Unit: unit, Help: help,
			Labels: []Label{collectorLabel("nftables", "legacy", "conntrack_entries")}, Stability: Stable, Cost: CostNone, When: when,
		}
	}
	return []Metric{
		{
			Name: readDuration, Type: Histogram, Unit: unitSeconds,
			Help:   "How long the readings of samplings took, those that failed among them",
			Labels: []Label{collectorLabel("nftables", "legacy", "conntrack", "conntrack_entries", "nfacct")}, Stability: Stable, Cost: CostNone, When: when,
		},
		total("read_bytes", unitBytes, "Bytes that the agent took from the kernel"),
		total("messages", unitMessages, "Netlink messages that the agent took from the kernel; of legacy, calls of getsockopt"),
		total("reads_interrupted", unitReadings, "Readings that were not whole, because the rules changed or a buffer ran over; rules are read again at once, conntrack's entries at the next interval"),
	}
}

func nodeMetrics() []Metric {
	one := func(name, question string) Label {
		return Label{Name: name, Bound: "one value", Question: question}
	}
	return []Metric{
		{
			Name: "svcscope_node_info", Type: Gauge, Unit: unitInfo, Help: "What this node is",
			Labels: []Label{
				one("node", "Which node?"),
				{
					Name: "proxy_mode", Values: []string{"iptables", "nftables", "ipvs", "none", "unknown"},
					Question: "How does kube-proxy program Services here?",
				},
				{
					Name: "backend", Values: []string{"", "legacy", "nft", "legacy,nft"},
					Question: "Which kernel interface holds kube-proxy's chains? Both is a fault",
				},
				one("kernel", "Which Linux release?"),
			},
			Stability: Stable, Kernel: "uname; names of tables and chains", Cost: CostCall, When: "a snapshot was taken",
		},
		{
			Name: "svcscope_counting_method", Type: Gauge, Unit: unitInfo,
			Help: "How this node's numbers are made; none means that they cannot be made here",
			Labels: []Label{
				{Name: "what", Values: []string{"connections", "refusals"}, Question: "Which numbers?"},
				{Name: "method", Values: []string{"rules", "notices", "tap", "events", "none"}, Question: "From what?"},
			},
			Stability: Stable, Cost: CostNone, When: "a snapshot was taken",
		},
		{
			Name: "svcscope_kube_synced", Type: Gauge, Unit: unitBoolean,
			Help:      "Whether names and endpoints come from the Kubernetes API; 0 means that they come from the rules alone",
			Stability: Stable, Cost: CostNone,
		},
		{
			Name: "svcscope_build_info", Type: Gauge, Unit: unitInfo,
			Help: "A metric with a constant '1' value labeled by version, revision, branch, goversion from which svcscope " +
				"was built, and the goos and goarch for the build.",
			Labels: []Label{
				one("version", "Which release?"), one("revision", "Which commit?"), one("branch", "Which branch?"),
				one("goversion", "Which Go?"), one("goos", "Which system?"), one("goarch", "Which architecture?"),
				one("tags", "Which build tags?"),
			},
			Stability: Stable, Cost: CostNone,
		},
	}
}
