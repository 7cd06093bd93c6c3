// SPDX-License-Identifier: Apache-2.0

package rules

func agentAlerts() []alert {
	return []alert{
		{
			name: "SvcscopeDown", severity: warning, hold: "10m",
			expr:        `up{job="svcscope"} == 0`,
			summary:     "An agent cannot be scraped",
			description: theNode + ` has an agent that could not be scraped for 10 minutes: nothing is known of the node.`,
		},
		{
			name: "SvcscopeAbsent", severity: warning, hold: "15m",
			expr:    `absent(svcscope_build_info)`,
			summary: "No agent is scraped",
			description: `Prometheus has had no metrics of any agent for 15 minutes: nothing is known of any node, and of the other alerts ` +
				`only SvcscopeDown can fire.`,
		},
		{
			name: "SvcscopeCollectorFailing", severity: warning, hold: "10m",
			expr:    `avg_over_time(svcscope_collector_success{collector!~"kube|nflog"}[10m]) < 0.5`,
			summary: "An agent cannot read one of its sources",
			description: theNode + ` has an agent that cannot read {{ $labels.collector }}; of the last 10 minutes' readings ` +
				`{{ $value | humanizePercentage }} succeeded. Its numbers are missing or old.`,
		},
		{
			name: "SvcscopeSnapshotStale", severity: warning, hold: "5m",
			expr:    snapshotStale,
			summary: "An agent exports old numbers",
			description: theNode + ` has an agent that answers, but its numbers were read {{ $value | humanizeDuration }} ago and have not changed for ` +
				`10 minutes.`,
		},
		{
			name: "SvcscopeKubeNotSynced", severity: warning, hold: "10m",
			expr:    kubeNotSynced,
			summary: "An agent does not follow the API",
			description: theNode + ` has an agent that is not in step with the Kubernetes API: it goes by what it knew last, or by the rules alone, and ` +
				`does not see what has changed since.`,
		},
		{
			name: "SvcscopeCountsIncomplete", severity: info, hold: "1h",
			expr:    countsIncomplete,
			summary: "Rewrites of rules take counts along that nobody has read",
			description: theNode + ` has rules whose counters often vanish before the agent has read them: {{ $value | humanizePercentage }} of the time lies between ` +
				`a last reading and such a rewrite, more than {{ __BLIND_SHARE__ | humanizePercentage }}. What the rewritten Services counted in it is missing from the totals.`,
		},
		{
			name: "SvcscopeSeriesLimited", severity: info, hold: "1h",
			expr:    `max by (cluster) (svcscope_series_dropped_total) > 0`,
			summary: "Some Services have no series of their own",
			description: `Agents{{ with $labels.cluster }} in cluster {{ . }}{{ end }} summed up to {{ $value | humanize }} Services in _other since they started, because there are ` +
				`more than --metrics.max-services.`,
		},
		{
			name: "SvcscopeUndecoded", severity: info, hold: "1h",
			expr:    `count by (cluster, kind) (svcscope_undecoded_total > 0)`,
			summary: "Agents met something that they cannot decode",
			description: `Agents of {{ $value | humanize }} nodes` + inCluster + ` met {{ $labels.kind }} in the rules, or in connection tracking, and cannot decode it. ` +
				`The rest is read.`,
		},
	}
}

// snapshotStale asks for change, not for age: a node's clock may be wrong.
const snapshotStale = `
time() - svcscope_snapshot_timestamp_seconds
and changes(svcscope_snapshot_timestamp_seconds[10m]) == 0
and svcscope_snapshot_timestamp_seconds offset 10m
`

// countsIncomplete takes the table that loses most. A node that listens, and
// so is exact, has no such time but for moments.
const countsIncomplete = `
max by (` + byNode + `) (rate(svcscope_counter_blind_seconds_total[15m])) > __BLIND_SHARE__
`

// kubeNotSynced is silent where the API is not wanted: then there is no
// collector kube. svcscope_kube_synced stays 1 when the API goes away later.
const kubeNotSynced = `
max without (collector) (svcscope_collector_success{collector="kube"}) == 0
`
