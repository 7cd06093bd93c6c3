// SPDX-License-Identifier: Apache-2.0

package rules

func recordingRules() file {
	return file{Groups: []group{
		{Name: "svcscope-conntrack.rules", Rules: []rule{
			record("node:svcscope_conntrack_utilization:ratio", utilization),
		}},
		{Name: "svcscope-rules.rules", Rules: []rule{
			record("cluster:svcscope_rules:median", median),
			record("cluster:svcscope_rules:max", largest),
		}},
		{Name: "svcscope-services.rules", Rules: []rule{
			record("service:svcscope_connections:rate5m", connections),
			record("service:svcscope_refused_packets:rate5m", refused),
			record("node_service:svcscope_endpoints:difference", difference),
		}},
		{Name: "svcscope-drops.rules", Rules: []rule{
			record("node:svcscope_invalid_drops:rate10m", invalid),
		}},
	}}
}

// A limit of 0 is none.
const utilization = `svcscope_conntrack_entries / (svcscope_conntrack_entries_limit > 0)`

const median = `quantile by (cluster, backend, ip_family, table) (0.5, svcscope_rules{owner="kube-proxy"})`

// largest is the node with the most rules: kube-proxy's are nearly the same
// on all, and one alert a cluster says it.
const largest = `
max by (cluster, backend, ip_family, table) (
  sum by (` + byNode + `, backend, ip_family, table) (svcscope_rules)
)
`

const connections = `
sum by (cluster, service_namespace, service_name) (rate(svcscope_service_connections_total[5m]))
`

const refused = `
sum by (cluster, service_namespace, service_name, reason) (rate(svcscope_service_rejected_packets_total[5m]))
`

// difference exists only while the numbers of a Service port's endpoints
// differ, and only where both sides are known: names from the API, rules read,
// mode iptables. One endpoint in place of another makes no difference.
const difference = `
sum without (source) (
  (
      (
          svcscope_service_endpoints{source="api"}
        - ignoring (source)
          svcscope_service_endpoints{source="kernel"}
      ) != 0
    or
      (svcscope_service_endpoints{source="api"} unless ignoring (source) svcscope_service_endpoints{source="kernel"})
    or
      (-svcscope_service_endpoints{source="kernel"} unless ignoring (source) svcscope_service_endpoints{source="api"})
  )
  and on (` + onTarget + `) (svcscope_kube_synced == 1)
  and on (` + onTarget + `) svcscope_counting_method{what="connections", method=~"rules|notices"}
  unless on (` + onTarget + `) (svcscope_collector_success{collector=~"legacy|nftables"} == 0)
)
`

const invalid = `
sum by (` + byNode + `) (rate(svcscope_drop_packets_total{reason="invalid"}[10m]))
`
