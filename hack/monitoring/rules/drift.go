// SPDX-License-Identifier: Apache-2.0

package rules

func driftAlerts() []alert {
	return append(nodeDriftAlerts(), []alert{
		{
			name: "SvcscopeServiceDrift", severity: warning, hold: "5m",
			expr:    serviceDrift,
			summary: "A node's rules of Services are not what the API wants",
			description: theNode + ` has {{ $value | humanize }} Services whose rules are not what kube-proxy should have made of the API ({{ $labels.kind }}), although ` +
				`it has had its time: somebody else wrote them, or kube-proxy has missed a change.`,
		},
		{
			name: "SvcscopeSourceRangesMissing", severity: critical, hold: "5m",
			expr:    sourceRangesMissing,
			summary: "The source ranges of a Service's load balancer are not enforced",
			description: theService + ` has loadBalancerSourceRanges, and on {{ $value | humanize }} nodes rules do not enforce them as they are written: ` +
				`sources may be let in that should not be.`,
		},
		{
			name: "SvcscopeProgrammingSlow", severity: warning, hold: "15m",
			expr:    programmingSlow,
			summary: "Changes of endpoints come late into a node's rules",
			description: theNode + ` needs {{ $value | humanizeDuration }} to get 99 % of the changes of endpoints from the API into its rules, more than ` +
				`__PROGRAMMING_DELAY__ seconds: new pods wait for connections, and pods that are gone still get some.`,
		},
		{
			name: "SvcscopeDriftNotJudged", severity: info, hold: "1h",
			expr:    driftNotJudged,
			summary: "A node's rules cannot be compared with the API",
			description: theNode + ` has kube-proxy's chains of the iptables mode, but no Services in them that packets come to: they are left over, or kube-proxy ` +
				`does not come to the end of its first sync.`,
		},
	}...)
}

// nodeDriftAlerts are about all Services of a node. While one of these kinds is told,
// the agent says nothing of the Services that suffer from it.
func nodeDriftAlerts() []alert {
	return []alert{
		{
			name: "SvcscopeNodeRulesMissing", severity: critical, hold: "1m",
			expr:    nodeRulesMissing,
			summary: "A node has lost rules that all Services need",
			description: theNode + ` has lost rules of kube-proxy that all its Services need ({{ $labels.kind }}): connections to Services from it or ` +
				`through it fail.`,
		},
		{
			name: "SvcscopeServicesShadowed", severity: critical, hold: "2m",
			expr:    servicesShadowed,
			summary: "Somebody's rules keep packets from Services",
			description: theNode + ` has {{ $value | humanize }} rules above kube-proxy's that end packets to addresses of Services: ` +
				`these Services do not work there.`,
		},
		{
			name: "SvcscopeTwoRulesets", severity: warning, hold: "5m",
			expr:    twoRulesets,
			summary: "Two sets of kube-proxy's rules serve the same addresses",
			description: theNode + ` serves the same addresses of Services by two sets of kube-proxy's rules ({{ $labels.kind }}), of which one is no longer kept ` +
				`up to date: connections go to endpoints that are gone.`,
		},
		{
			name: "SvcscopeKubeProxyNotSyncing", severity: warning, hold: "5m",
			expr:    notSyncing,
			summary: "kube-proxy does not write what the API has changed",
			description: theNode + ` has a kube-proxy that has written nothing although a change of the API has waited for {{ $value | humanizeDuration }}: ` +
				`Services whose endpoints change have old rules.`,
		},
	}
}

// nodeRulesMissing waits for less than any other alert: two readings have seen it, and no
// change of the API explains it. A kube-proxy whose chains are gone writes them anew within
// half a minute.
const nodeRulesMissing = `
sum by (` + byNode + `, kind) (svcscope_node_drift{kind=~"jump_missing|empty_chain|masquerade_missing"}) > 0
`

const servicesShadowed = `
sum by (` + byNode + `) (svcscope_node_drift{kind="jump_shadowed"}) > 0
`

const twoRulesets = `
max by (` + byNode + `, kind) (svcscope_node_drift{kind=~"two_backends|two_modes"}) > 0
`

// notSyncing is told by the agent after a minute, or later where syncs take long.
const notSyncing = `
max by (` + byNode + `) (
  svcscope_kube_proxy_pending_change_seconds
  and on (` + onTarget + `, ip_family) svcscope_node_drift{kind="not_syncing"} > 0
)
`

// serviceDrift is one alert a node and kind: what was flushed and edited by one hand is one
// cause. A Service of both IP families counts once.
const serviceDrift = `
max by (` + byNode + `, kind) (svcscope_drifting_services{kind!="source_ranges_missing"}) > 0
`

const sourceRangesMissing = `
count by (cluster, service_namespace, service_name) (
  max by (` + byNode + `, service_namespace, service_name) (svcscope_service_drift{kind="source_ranges_missing"})
)
`

// programmingSlow looks back for less than its "for", so that one burst of late changes, as
// after a time without kube-proxy, does not fire.
const programmingSlow = `
histogram_quantile(0.99,
  sum by (` + byNode + `, le) (rate(svcscope_programming_delay_seconds_bucket[10m]))
) > __PROGRAMMING_DELAY__
`

// driftNotJudged leaves out what other alerts tell: an API that is not followed, and rules
// that cannot be read. Where the API is not wanted svcscope_kube_synced is 0.
const driftNotJudged = `
svcscope_node_info{proxy_mode="iptables"} == 1
and on (` + onTarget + `) (svcscope_kube_synced == 1)
unless on (` + onTarget + `) svcscope_drifting_services
unless on (` + onTarget + `) (svcscope_collector_success{collector=~"kube|legacy|nftables"} == 0)
`
