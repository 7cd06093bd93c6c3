// SPDX-License-Identifier: Apache-2.0

package rules

func conntrackAlerts() []alert {
	return append(fullAlerts(), []alert{
		{
			name: "SvcscopeConntrackDropping", severity: critical,
			expr:    dropping,
			summary: "Connections are lost because the connection-tracking table is full",
			description: theNode + ` dropped the first packet of connections, or evicted entries of others, {{ $value | humanize }} times in 5 minutes, ` +
				`because its connection-tracking table has no room.`,
		},
		{
			name: "SvcscopeConntrackInsertFailing", severity: warning, hold: "10m",
			expr:    unconfirmed,
			summary: "New connections fail because their entry cannot be inserted",
			description: theNode + ` drops {{ $value | printf "%.1f" }} first packets a second because their entry cannot be inserted, more than ` +
				`__CONNTRACK_INSERT_FAILED__: tuples clash, source ports have run out, or hash chains are too long.`,
		},
		{
			name: "SvcscopeConntrackHashOverloaded", severity: info, hold: "15m",
			expr:    `svcscope_conntrack_entries / (svcscope_conntrack_buckets > 0) > 4`,
			summary: "The connection-tracking table has too few hash buckets",
			description: theNode + ` has {{ $value | humanize }} entries a hash bucket, more than 4: each packet compares a longer list, ` +
				`and new connections are refused where a list is too long.`,
		},
		{
			name: "SvcscopeConntrackBucketsFew", severity: info, hold: "1h",
			expr:    `svcscope_conntrack_entries_limit / (svcscope_conntrack_buckets > 0) > 4`,
			summary: "The connection-tracking table has too few hash buckets for its limit",
			description: theNode + ` allows {{ $value | humanize }} entries a hash bucket, more than 4: when the table fills, hash chains get too long before ` +
				`the limit is reached.`,
		},
		{
			name: "SvcscopeConntrackLimitDiffers", severity: info, hold: "30m",
			expr:    limitDiffers,
			summary: "A node's connection-tracking limit is far below that of the others",
			description: theNode + ` has {{ $value | humanizePercentage }} of the cluster's median nf_conntrack_max, and more than 40 % of it is in use: ` +
				`it will be full before the others.`,
		},
		{
			name: "SvcscopeSourcePortsBusy", severity: warning, hold: "5m",
			expr:    `svcscope_conntrack_port_pressure_ratio > __SOURCE_PORTS__`,
			summary: "Masquerading runs short of source ports",
			description: theNode + ` takes {{ $value | humanizePercentage }} of the source ports toward one destination, more than ` +
				`{{ __SOURCE_PORTS__ | humanizePercentage }}: new connections to it take long to set up, and then fail.`,
		},
	}...)
}

func fullAlerts() []alert {
	return []alert{
		{
			name: "SvcscopeConntrackHighUtilization", severity: warning, hold: "10m",
			expr:    `node:svcscope_conntrack_utilization:ratio > __CONNTRACK_WARNING__`,
			summary: "The connection-tracking table fills up",
			description: theNode + ` uses {{ $value | humanizePercentage }} of its connection-tracking table, more than ` +
				`{{ __CONNTRACK_WARNING__ | humanizePercentage }}. When it is full, new connections are dropped.`,
		},
		{
			name: "SvcscopeConntrackCritical", severity: critical, hold: "2m",
			expr:    `node:svcscope_conntrack_utilization:ratio > __CONNTRACK_CRITICAL__`,
			summary: "The connection-tracking table is nearly full",
			description: theNode + ` uses {{ $value | humanizePercentage }} of its connection-tracking table, more than ` +
				`{{ __CONNTRACK_CRITICAL__ | humanizePercentage }}. When it is full, new connections are dropped.`,
		},
		{
			name: "SvcscopeConntrackPredictedFull", severity: warning, hold: "30m",
			expr:    predictedFull,
			summary: "The connection-tracking table will be full within 4 hours",
			description: theNode + ` uses {{ $value | humanizePercentage }} of its connection-tracking table, more than yesterday and a week ago in these hours. ` +
				`If it goes on as in the last hour, it is full within 4 hours.`,
		},
		{
			name: "SvcscopeConntrackFillingFast", severity: critical, hold: "1m",
			expr:    fillingFast,
			summary: "The connection-tracking table will be full within minutes",
			description: theNode + ` will have a full connection-tracking table in {{ $value | humanizeDuration }} if it goes on filling as it does, and ` +
				`more than half of it is in use.`,
		},
	}
}

// fillingFast leaves out the ramp of a step in the rate of connections, which ends
// when as many time out as come: with the kernel's times after two minutes.
const fillingFast = `
svcscope_conntrack_time_to_full_seconds < 600
and node:svcscope_conntrack_utilization:ratio > 0.5
`

// predictedFull guards the forecast, in this order: enough is in use to
// matter; the last hour leads to a full table, and so do its last minutes, so
// that a step that is over does not count (the alert's "for" is longer than
// they are); an hour is known at all; and the same four hours of yesterday and
// of a week ago did not go as high: a day's swing is no fill.
const predictedFull = `
node:svcscope_conntrack_utilization:ratio > 0.4
and predict_linear(svcscope_conntrack_entries[1h], 4 * 3600) > (svcscope_conntrack_entries_limit > 0)
and predict_linear(svcscope_conntrack_entries[15m], 4 * 3600) > svcscope_conntrack_entries_limit
and svcscope_conntrack_entries offset 1h
unless svcscope_conntrack_entries <= max_over_time(svcscope_conntrack_entries[4h] offset 20h)
unless svcscope_conntrack_entries <= max_over_time(svcscope_conntrack_entries[4h] offset 164h)
`

// dropping forgives ten.
const dropping = `
sum without (cause) (increase(svcscope_conntrack_losses_total{cause="table_full"}[5m])) > 10
`

// unconfirmed is what fails although there is room.
const unconfirmed = `
sum without (cause) (rate(svcscope_conntrack_losses_total{cause=~"clash|ports|chain"}[5m])) > __CONNTRACK_INSERT_FAILED__
`

// limitDiffers looks for less than half of the median only where that matters:
// kube-proxy sets the limit by the number of CPUs, so that it differs between
// kinds of nodes by right.
const limitDiffers = `
(svcscope_conntrack_entries_limit > 0)
  / on (cluster) group_left ()
quantile by (cluster) (0.5, svcscope_conntrack_entries_limit > 0)
  < 0.5
and node:svcscope_conntrack_utilization:ratio > 0.4
`
