// SPDX-License-Identifier: Apache-2.0

package rules

func dropAlerts() []alert {
	return []alert{
		{
			name: "SvcscopeInvalidDrops", severity: info, hold: "15m",
			expr:    invalidDrops,
			summary: "A node drops more packets of no known connection than it used to",
			description: theNode + ` drops {{ $value | printf "%.0f" }} packets a second that connection tracking takes for INVALID, more than ` +
				`__INVALID_DROPS__ and more than twice as many as at this time of yesterday: connections through it may hang or be reset.`,
		},
		{
			name: "SvcscopeNFLOGLost", severity: info, hold: "15m",
			expr:    eventsLost,
			summary: "An agent loses events of logged packets",
			description: theNode + ` has rules that log packets to NFLOG group {{ $labels.group }} faster than the agent can take them: ` +
				`{{ $value | humanizePercentage }} are lost. Counts of refused packets are right all the same.`,
		},
		{
			name: "SvcscopeNFLOGGroupNotRead", severity: info, hold: "15m",
			expr:    groupNotRead,
			summary: "Agents cannot read an NFLOG group that they are told to read",
			description: `Agents of {{ $value | humanize }} nodes` + inCluster + ` cannot read NFLOG group {{ $labels.group }}, mostly because another process holds it: ` +
				`they have no events of the packets that rules log to it.`,
		},
	}
}

// invalidDrops asks for a rise over the hour before and after this time of yesterday:
// some nodes have many by right, as those to which a load balancer sends the end of
// connections that it has given to another. The same time of a week ago, where it is known,
// excuses a Monday.
const invalidDrops = `
node:svcscope_invalid_drops:rate10m > __INVALID_DROPS__
and node:svcscope_invalid_drops:rate10m > 2 * max_over_time(node:svcscope_invalid_drops:rate10m[2h] offset 23h)
unless node:svcscope_invalid_drops:rate10m <= 2 * max_over_time(node:svcscope_invalid_drops:rate10m[2h] offset 167h)
`

// eventsLost forgives one in a hundred, and with its "for", which is as long as the
// range, one burst.
const eventsLost = `
  rate(svcscope_nflog_lost_packets_total[15m])
/ (rate(svcscope_nflog_lost_packets_total[15m]) + rate(svcscope_nflog_packets_total[15m]))
> 0.01
`

// groupNotRead leaves out groups to which no rule logs: for these the collector does
// not fail.
const groupNotRead = `
count by (cluster, group) (
  svcscope_nflog_group_bound == 0
  and on (` + onTarget + `) svcscope_collector_success{collector="nflog"} == 0
)
`
