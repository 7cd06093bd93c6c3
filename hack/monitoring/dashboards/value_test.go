// SPDX-License-Identifier: Apache-2.0

package dashboards

import (
	"fmt"
	"slices"
)

type valueTest struct {
	name       string
	uid, panel string
	target     int
	interval   string
	at         string
	series     []toolSeries
	want       []toolSample
}

func valueTests() []valueTest {
	return slices.Concat(ruleValues(), conntrackValues(), nodeValues(), tableValues(), shareValues(), agentValues(), dropValues(), driftValues(), programmingValues())
}

func ruleValues() []valueTest {
	const panel = "Largest node in 30 days"
	return []valueTest{
		{
			name: "forecast of a day", uid: rulesUID, panel: panel, interval: "15m", at: "24h",
			series: []toolSeries{
				{`svcscope_rules{instance="a", table="nat", owner="kube-proxy"}`, "100+10x96"},
				{`svcscope_rules{instance="a", table="filter", owner="kube-proxy"}`, "50x96"},
				{`svcscope_rules{instance="b", table="nat", owner="kube-proxy"}`, "2000x96"},
			},
			want: []toolSample{{`{}`, 1060 + 50 + 30*96*10}},
		},
		{
			name: "no forecast from three hours", uid: rulesUID, panel: panel, interval: "15m", at: "3h",
			series: []toolSeries{{`svcscope_rules{instance="a", table="nat", owner="kube-proxy"}`, "100+10x12"}},
			want:   []toolSample{{`{}`, 220}},
		},
		{
			name: "a forecast is not negative", uid: rulesUID, panel: panel, interval: "15m", at: "24h",
			series: []toolSeries{{`svcscope_rules{instance="a", table="nat", owner="kube-proxy"}`, "1000-10x96"}},
			want:   []toolSample{{`{}`, 0}},
		},
		{
			name: "deviation from the median", uid: rulesUID, panel: "Deviation from the median node, top 10", interval: "1m", at: "5m",
			series: []toolSeries{
				{`svcscope_rules{instance="a", table="nat", owner="kube-proxy"}`, "100x5"},
				{`svcscope_rules{instance="b", table="nat", owner="kube-proxy"}`, "100x5"},
				{`svcscope_rules{instance="c", table="nat", owner="kube-proxy"}`, "50x5"},
				{`svcscope_rules{instance="c", table="nat", owner="calico"}`, "900x5"},
			},
			want: []toolSample{{`{instance="a"}`, 0}, {`{instance="b"}`, 0}, {`{instance="c"}`, 0.5}},
		},
	}
}

func conntrackValues() []valueTest {
	const limit, entries = "svcscope_conntrack_entries_limit", "svcscope_conntrack_entries"
	return []valueTest{
		{
			name: "only a growing table has a time", uid: conntrackUID, panel: "Time until full, by node", interval: "1m", at: "60m",
			series: []toolSeries{
				{limit + `{instance="a", node="n"}`, "1000x60"},
				{entries + `{instance="a", node="n"}`, "100+10x60"},
				{limit + `{instance="b"}`, "1000x60"},
				{entries + `{instance="b"}`, "900x60"},
				{limit + `{instance="c"}`, "1000x60"},
				{entries + `{instance="c"}`, "900-1x60"},
			},
			want: []toolSample{{`{instance="a", node="n"}`, 1800}},
		},
		{
			name: "what the agent sees goes before the line", uid: conntrackUID, panel: "Time until full, by node", interval: "1m", at: "60m",
			series: []toolSeries{
				{limit + `{instance="a", node="n"}`, "1000x60"},
				{entries + `{instance="a", node="n"}`, "100+10x60"},
				{`svcscope_conntrack_time_to_full_seconds{instance="a", node="n"}`, "77x60"},
			},
			want: []toolSample{{`{instance="a", node="n"}`, 77}},
		},
	}
}

func nodeValues() []valueTest {
	const build = `svcscope_build_info{version="0.1.0", `
	const port = `, service_namespace="default", service_name="web", port_name="http", protocol="TCP", ip_family="IPv4"}`
	endpoints := func(instance, source string) string {
		return `svcscope_service_endpoints{job="svcscope", instance="` + instance + `", source="` + source + `"` + port
	}
	synced := func(instance string) string {
		return `svcscope_kube_synced{job="svcscope", instance="` + instance + `"}`
	}
	counts := func(instance, method string) string {
		return `svcscope_counting_method{job="svcscope", what="connections", instance="` + instance + `", method="` + method + `"}`
	}
	return []valueTest{
		{
			name: "one agent falls silent", uid: overviewUID, panel: "Agents gone silent", interval: "1m", at: "40m",
			series: []toolSeries{
				{build + `instance="a"}`, "1x20 stale"},
				{build + `instance="b"}`, "1x40"},
				{build + `instance="c"}`, "1x20 stale"},
				{`svcscope_build_info{version="0.2.0", instance="c"}`, "_x20 1x20"},
			},
			want: []toolSample{{`{}`, 1}},
		},
		{
			name: "all agents fall silent", uid: overviewUID, panel: "Agents gone silent", interval: "1m", at: "40m",
			series: []toolSeries{{build + `cluster="x", instance="a"}`, "1x20 stale"}, {build + `cluster="x", instance="b"}`, "1x20 stale"}},
			want:   []toolSample{{`{cluster="x"}`, 2}},
		},
		{
			name: "endpoints on one side only", uid: rulesUID, panel: "Endpoints more or fewer than in the API, top 10", interval: "1m", at: "5m",
			series: []toolSeries{
				{endpoints("only-api", "api"), "3x5"},
				{synced("only-api"), "1x5"},
				{counts("only-api", "rules"), "1x5"},
				{endpoints("only-kernel", "kernel"), "2x5"},
				{synced("only-kernel"), "1x5"},
				{counts("only-kernel", "rules"), "1x5"},
				{endpoints("same", "api"), "2x5"},
				{endpoints("same", "kernel"), "2x5"},
				{synced("same"), "1x5"},
				{counts("same", "rules"), "1x5"},
				{endpoints("not-synced", "kernel"), "2x5"},
				{synced("not-synced"), "0x5"},
				{counts("not-synced", "rules"), "1x5"},
				{endpoints("nftables", "api"), "2x5"},
				{synced("nftables"), "1x5"},
				{counts("nftables", "none"), "1x5"},
				{endpoints("unread", "api"), "2x5"},
				{synced("unread"), "1x5"},
				{counts("unread", "rules"), "1x5"},
				{`svcscope_collector_success{job="svcscope", instance="unread", collector="legacy"}`, "0x5"},
			},
			want: []toolSample{{`{instance="only-api"}`, 3}, {`{instance="only-kernel"}`, 2}, {`{instance="same"}`, 0}},
		},
	}
}

// tableValues have a Service that is refused beside a hundred busier ones, and
// one that is neither busy nor refused.
func tableValues() []valueTest {
	name := func(service string) string {
		return `{instance="a", service_namespace="default", service_name="` + service + `"}`
	}
	counters := []toolSeries{
		{"svcscope_service_connections_total" + name("idle"), "0x5"},
		{"svcscope_service_rejected_packets_total" + name("idle"), "0x5"},
		{"svcscope_service_rejected_packets_total" + name("refused"), "0+60x5"},
	}
	sample := func(service string, v float64) toolSample {
		return toolSample{`{service_namespace="default", service_name="` + service + `"}`, v}
	}
	connections, packets := []toolSample{sample("refused", 0)}, []toolSample{sample("refused", 1)}
	for i := range 100 {
		busy := fmt.Sprintf("busy%d", i)
		counters = append(counters, toolSeries{"svcscope_service_connections_total" + name(busy), fmt.Sprintf("0+%dx5", 60*(i+1))})
		connections, packets = append(connections, sample(busy, float64(i+1))), append(packets, sample(busy, 0))
	}
	table := valueTest{
		name: "connections beside a refused Service", uid: overviewUID, panel: "Services", interval: "1m", at: "5m",
		series: counters, want: connections,
	}
	refused := table
	refused.name, refused.target, refused.want = "a refused Service beside a hundred busier ones", 1, packets
	return []valueTest{table, refused}
}

func shareValues() []valueTest {
	const port = `, service_namespace="default", service_name="web", port_name="http", protocol="TCP", ip_family="IPv4"}`
	return []valueTest{
		{
			name: "share of nodes that send", uid: serviceUID, panel: "Nodes that send to it", interval: "1m", at: "5m",
			series: []toolSeries{
				{`svcscope_service_connections_total{instance="a", via="cluster"` + port, "0+1x5"},
				{`svcscope_service_connections_total{instance="a", via="external"` + port, "0x5"},
				{`svcscope_service_connections_total{instance="b", via="cluster"` + port, "7x5"},
			},
			want: []toolSample{{`{}`, 0.5}},
		},
		{
			name: "no refusals are 0", uid: serviceUID, panel: "Refused packets", interval: "1m", at: "5m",
			series: []toolSeries{{`svcscope_service_connections_total{instance="a", via="cluster"` + port, "0+1x5"}},
			want:   []toolSample{{`{}`, 0}},
		},
	}
}

func agentValues() []valueTest {
	exact := func(instance, backend, family string) string {
		return `svcscope_ledger_exact{cluster="c", instance="` + instance + `", backend="` + backend + `", ip_family="` + family + `"}`
	}
	nodes := []toolSeries{
		{exact("a", "nft", "IPv4"), "1x5"},
		{exact("a", "nft", "IPv6"), "1x5"},
		{exact("b", "nft", "IPv4"), "1x5"},
		{exact("b", "nft", "IPv6"), "0x5"},
		{exact("d", "legacy", "IPv4"), "0x5"},
	}
	const panel = "Nodes by exactness"
	blind := func(instance, table string) string {
		return `svcscope_counter_blind_seconds_total{instance="` + instance + `", backend="nft", ip_family="IPv4", table="` + table + `"}`
	}
	bucket := func(le string) string {
		return `svcscope_collector_read_duration_seconds_bucket{instance="a", collector="nftables", le="` + le + `"}`
	}
	return []valueTest{
		{
			name: "exact in both families", uid: agentsUID, panel: panel, interval: "1m", at: "5m", series: nodes,
			want: []toolSample{{`{cluster="c", backend="nft"}`, 1}, {`{cluster="c", backend="legacy"}`, 0}},
		},
		{
			name: "not exact in one family", uid: agentsUID, panel: panel, target: 1, interval: "1m", at: "5m", series: nodes,
			want: []toolSample{{`{cluster="c", backend="nft"}`, 1}, {`{cluster="c", backend="legacy"}`, 1}},
		},
		{
			name: "the table that loses most", uid: agentsUID, panel: "Time whose counts a rewrite took, top 10", interval: "1m", at: "5m",
			series: []toolSeries{{blind("a", "nat"), "0+15x5"}, {blind("a", "filter"), "0+45x5"}, {blind("b", "nat"), "7x5"}},
			want:   []toolSample{{`{instance="a"}`, 0.75}, {`{instance="b"}`, 0}},
		},
		{
			name: "nearly all readings are quick", uid: agentsUID, panel: "Time of a reading, 99 %", interval: "1m", at: "5m",
			series: []toolSeries{{bucket("0.1"), "0+60x5"}, {bucket("0.5"), "0+60x5"}, {bucket("+Inf"), "0+60x5"}},
			want:   []toolSample{{`{collector="nftables"}`, 0.099}},
		},
	}
}

func dropValues() []valueTest {
	dropped := func(instance, reason string) string {
		return `svcscope_drop_packets_total{cluster="c", instance="` + instance + `", reason="` + reason + `", hook="forward", owner="kube-proxy"}`
	}
	const agent, groups = `svcscope_build_info{cluster="c", instance="a"}`, "Groups of NFLOG not read"
	const refusal = `svcscope_policy_drop_packets_total{owner="calico", direction="ingress", policy_namespace="shop", policy_name="strict"`
	return []valueTest{
		{
			name: "a node counts once, whatever the reasons", uid: dropsUID, panel: "Nodes that refuse packets", interval: "1m", at: "5m",
			series: []toolSeries{
				{dropped("a", "no_endpoints"), "0+60x5"},
				{dropped("a", "rule"), "0+60x5"},
				{dropped("b", "rule"), "7x5"},
			},
			want: []toolSample{{`{cluster="c"}`, 1}},
		},
		{
			name: "where no group is to be read all are", uid: dropsUID, panel: groups, interval: "1m", at: "5m",
			series: []toolSeries{{agent, "1x5"}},
			want:   []toolSample{{`{cluster="c"}`, 0}},
		},
		{
			name: "a group that is not read", uid: dropsUID, panel: groups, interval: "1m", at: "5m",
			series: []toolSeries{
				{agent, "1x5"},
				{`svcscope_nflog_group_bound{cluster="c", instance="a", group="100"}`, "0x5"},
				{`svcscope_nflog_group_bound{cluster="c", instance="a", group="5"}`, "1x5"},
			},
			want: []toolSample{{`{cluster="c"}`, 1}},
		},
		{
			name: "a policy and a pod of the chosen namespaces count once", uid: dropsUID, panel: "Refused by policies, top 10", interval: "1m", at: "5m",
			series: []toolSeries{
				{refusal + `, pod_namespace="shop", pod_name="web"}`, "0+60x5"},
				{refusal + `}`, "0+120x5"},
			},
			want: []toolSample{
				{`{owner="calico", direction="ingress", policy_namespace="shop", policy_name="strict", pod_namespace="shop", pod_name="web"}`, 1},
				{`{owner="calico", direction="ingress", policy_namespace="shop", policy_name="strict"}`, 2},
			},
		},
	}
}
