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

const invalid = `
sum by (` + byNode + `) (rate(svcscope_drop_packets_total{reason="invalid"}[10m]))
`
