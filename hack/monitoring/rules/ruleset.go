// SPDX-License-Identifier: Apache-2.0

package rules

func rulesetAlerts() []alert {
	return []alert{
		{
			name: "SvcscopeRulesDiffer", severity: warning, hold: "15m",
			expr:    rulesDiffer,
			summary: "A node's kube-proxy rules differ from those of the other nodes",
			description: theNode + ` has {{ $value | printf "%.0f" }} kube-proxy rules in one table more or fewer than the cluster's median, over ` +
				`{{ __RULES_DEVIATION__ | humanizePercentage }} of it: kube-proxy there may be stuck.`,
		},
		{
			name: "SvcscopeTwoBackends", severity: warning, hold: "30m",
			expr:    twoBackends,
			summary: "A node has kube-proxy rules in both iptables backends",
			description: theNode + ` has kube-proxy chains in legacy iptables and in nf_tables. Both are in force, and one of them is ` +
				`no longer kept up to date.`,
		},
		{
			name: "SvcscopeNoKubeProxy", severity: warning, hold: "15m",
			expr:        noKubeProxy,
			summary:     "A node has no kube-proxy rules while other nodes do",
			description: theNode + ` has no rules of kube-proxy, while other nodes have: Services cannot be reached from it.`,
		},
		{
			name: "SvcscopeRulesetChangesStorm", severity: warning, hold: "15m",
			expr:    changesStorm,
			summary: "A node's nf_tables ruleset changes all the time",
			description: theNode + ` commits {{ $value | humanize }} changes of its nf_tables ruleset a second, more than ` +
				`__RULESET_CHANGES__: writers may undo each other's work.`,
		},
		{
			name: "SvcscopeXtablesLockBusy", severity: warning, hold: "15m",
			expr:    lockBusy,
			summary: "The lock of legacy iptables is hardly ever free on a node",
			description: theNode + ` has writers that wait for the xtables lock or hold it {{ $value | humanizePercentage }} of the time, more than ` +
				`{{ __LOCK_OPEN_SHARE__ | humanizePercentage }}: kube-proxy and others stand in line, and rules are late.`,
		},
	}
}

// rulesDiffer asks for three nodes, or there is no median to differ from, and
// for 50 rules, the work of a few Services with local endpoints. Where a node's rules
// are compared with the API, other nodes' say nothing more.
const rulesDiffer = `
max by (` + byNode + `) (
  abs(
      svcscope_rules{owner="kube-proxy"}
    - on (cluster, backend, ip_family, table) group_left ()
      cluster:svcscope_rules:median
  )
  > on (cluster, backend, ip_family, table) group_left ()
  (
    clamp_min(__RULES_DEVIATION__ * cluster:svcscope_rules:median, 50)
    and on (cluster, backend, ip_family, table)
    count by (cluster, backend, ip_family, table) (svcscope_rules{owner="kube-proxy"}) > 2
  )
)
unless on (` + onTarget + `) svcscope_drifting_services
`

// twoBackends leaves those that serve the same addresses to SvcscopeTwoRulesets.
const twoBackends = `
svcscope_node_info{backend="legacy,nft"} == 1
unless on (` + onTarget + `) (svcscope_node_drift{kind="two_backends"} > 0)
`

// noKubeProxy is silent in a cluster whose nodes are all without: there
// something else does kube-proxy's work.
const noKubeProxy = `
svcscope_node_info{proxy_mode="none"} == 1
and on (cluster) svcscope_node_info{proxy_mode=~"iptables|nftables|ipvs"}
`

// changesStorm is about nf_tables only: of legacy the agent sees no more than
// one change a reading.
const changesStorm = `
sum by (` + byNode + `) (rate(svcscope_ruleset_changes_total{backend="nft"}[10m])) > __RULESET_CHANGES__
`

// lockBusy exists only where the file of the lock is watched.
const lockBusy = `
max by (` + byNode + `) (rate(svcscope_xtables_lock_open_seconds_total[5m])) > __LOCK_OPEN_SHARE__
`

func serviceAlerts() []alert {
	return []alert{
		{
			name: "SvcscopeServiceRefusing", severity: warning, hold: "10m",
			expr:    `service:svcscope_refused_packets:rate5m{reason="no_endpoints"} > __REFUSED_PACKETS__`,
			summary: "A Service without endpoints is in use",
			description: theService + ` has no endpoints, and nodes refuse {{ $value | printf "%.2f" }} packets a second to it, more than ` +
				`__REFUSED_PACKETS__.`,
		},
		{
			name: "SvcscopeServiceRefusingLocal", severity: info, hold: "30m",
			expr:    `service:svcscope_refused_packets:rate5m{reason="no_local_endpoints"} > __REFUSED_PACKETS__`,
			summary: "A Service with a Local traffic policy is used on nodes without its endpoints",
			description: theService + ` has a traffic policy Local, and nodes without an endpoint of it refuse {{ $value | printf "%.2f" }} packets a second, more than ` +
				`__REFUSED_PACKETS__.`,
		},
		{
			name: "SvcscopeStaleUDP", severity: warning, hold: "5m",
			expr:    staleUDP,
			summary: "UDP flows of a Service lead to an address that is no endpoint any more",
			description: theService + ` has {{ $value | humanize }} UDP flows through node {{ or $labels.node $labels.instance }} that lead to an address which ` +
				`is no endpoint of it any more: what their clients send is lost.`,
		},
		{
			name: "SvcscopeServiceUnanswered", severity: warning, hold: "10m",
			expr:    unanswered,
			summary: "Most connections to a Service are not answered",
			description: theService + ` has not answered {{ $value | humanizePercentage }} of the TCP connections that nodes have seen in the last two minutes: ` +
				`SYNs wait for an endpoint's answer.`,
		},
	}
}

const staleUDP = `
sum by (` + byNode + `, service_namespace, service_name) (svcscope_service_conntrack_stale_entries{protocol="UDP"}) > 0
`

// unanswered has what is closing for answered: it stays for two minutes after its
// end, as long as a SYN without an answer, so that connections of a moment count as
// much as the attempts that fail. Twenty are forgiven: a scan makes some.
const unanswered = `
  sum by (cluster, service_namespace, service_name) (svcscope_service_conntrack_unanswered_entries{protocol="TCP"})
/ sum by (cluster, service_namespace, service_name) (svcscope_service_conntrack_entries{protocol="TCP"})
> 0.5
and sum by (cluster, service_namespace, service_name) (svcscope_service_conntrack_unanswered_entries{protocol="TCP"}) > 20
`
