// SPDX-License-Identifier: Apache-2.0

package dashboards

// driftValues have three nodes in iptables mode, of which one is not judged, and one in
// mode nftables.
func driftValues() []valueTest {
	info := func(instance, mode string) string {
		return `svcscope_node_info{job="svcscope", cluster="c", instance="` + instance + `", proxy_mode="` + mode + `"}`
	}
	build := func(instance string) string {
		return `svcscope_build_info{job="svcscope", cluster="c", instance="` + instance + `"}`
	}
	services := func(instance, kind, family string) string {
		return `svcscope_drifting_services{job="svcscope", cluster="c", instance="` + instance + `", kind="` + kind + `", ip_family="` + family + `"}`
	}
	node := func(instance, kind, family string) string {
		return `svcscope_node_drift{job="svcscope", cluster="c", instance="` + instance + `", kind="` + kind + `", ip_family="` + family + `"}`
	}
	service := func(instance, name, family, frontend string) string {
		return `svcscope_service_drift{job="svcscope", cluster="c", instance="` + instance + `", service_namespace="default", service_name="` + name +
			`", port_name="http", protocol="TCP", ip_family="` + family + `", kind="missing_dispatch", frontend="` + frontend + `"}`
	}
	series := []toolSeries{
		{build("a"), "1x5"}, {build("b"), "1x5"}, {build("blind"), "1x5"}, {build("nft"), "1x5"},
		{info("a", "iptables"), "1x5"}, {info("b", "iptables"), "1x5"}, {info("blind", "iptables"), "1x5"}, {info("nft", "nftables"), "1x5"},
		{services("a", "missing_dispatch", "IPv4"), "2x5"}, {services("a", "missing_dispatch", "IPv6"), "1x5"},
		{services("a", "empty_chain", "IPv4"), "1x5"}, {services("b", "missing_dispatch", "IPv4"), "1x5"}, {services("b", "empty_chain", "IPv4"), "0x5"},
		{service("a", "web", "IPv4", "cluster"), "1x5"}, {service("a", "web", "IPv6", "cluster"), "1x5"},
		{service("b", "web", "IPv4", "cluster"), "1x5"}, {service("a", "api", "IPv4", "nodeport"), "1x5"},
		{node("a", "jump_missing", "IPv4"), "2x5"}, {node("a", "jump_missing", "IPv6"), "1x5"}, {node("a", "not_syncing", "IPv4"), "0x5"},
		{node("b", "jump_missing", "IPv4"), "0x5"}, {node("b", "not_syncing", "IPv4"), "1x5"}, {node("blind", "jump_missing", "IPv4"), "0x5"},
	}
	test := func(name, panel string, target int, want ...toolSample) valueTest {
		return valueTest{name: name, uid: driftUID, panel: panel, target: target, interval: "1m", at: "5m", series: series, want: want}
	}
	const web, api = `service_namespace="default", service_name="web"`, `service_namespace="default", service_name="api"`
	drifting := test("a node with any drift counts once", "Nodes with drift", 0, toolSample{`{cluster="c"}`, 2})
	drifting.uid = overviewUID
	none := drifting
	none.name, none.series, none.want = "without any drift it is 0", []toolSeries{{node("a", "jump_missing", "IPv4"), "0x5"}}, []toolSample{{`{cluster="c"}`, 0}}
	own := test("a Service's nodes by kind", "Drift: nodes by kind", 0, toolSample{`{cluster="c", kind="missing_dispatch"}`, 2})
	own.uid = serviceUID
	return []valueTest{
		drifting, none, own,
		test("Services count once, wherever they drift", "Drifting Services", 0, toolSample{`{cluster="c"}`, 2}),
		test("a Service of both families counts once a node", "Services that drift, by kind", 0,
			toolSample{`{cluster="c", kind="missing_dispatch"}`, 3}, toolSample{`{cluster="c", kind="empty_chain"}`, 1}),
		test("kinds add up by node", "Services that drift by node, top 10", 0,
			toolSample{`{cluster="c", instance="a"}`, 3}, toolSample{`{cluster="c", instance="b"}`, 1}),
		test("nodes of a Service and kind", "Services and what is wrong with them", 0,
			toolSample{`{cluster="c", ` + web + `, kind="missing_dispatch", frontend="cluster"}`, 2},
			toolSample{`{cluster="c", ` + api + `, kind="missing_dispatch", frontend="nodeport"}`, 1}),
		test("ports and families of a Service and kind", "Services and what is wrong with them", 1,
			toolSample{`{cluster="c", ` + web + `, kind="missing_dispatch", frontend="cluster"}`, 2},
			toolSample{`{cluster="c", ` + api + `, kind="missing_dispatch", frontend="nodeport"}`, 1}),
		test("a kube-proxy that stands still breaks no chain", "Nodes with broken chains", 0, toolSample{`{cluster="c"}`, 1}),
		test("nodes that do not sync", "Nodes that do not sync", 0, toolSample{`{cluster="c"}`, 1}),
		test("nodes by kind", "Nodes that drift, by kind", 0,
			toolSample{`{cluster="c", kind="jump_missing"}`, 1}, toolSample{`{cluster="c", kind="not_syncing"}`, 1}),
		test("places of a node and kind", "Nodes and what is wrong with them", 0,
			toolSample{`{cluster="c", instance="a", kind="jump_missing"}`, 3}, toolSample{`{cluster="c", instance="b", kind="not_syncing"}`, 1}),
		test("families of a node and kind", "Nodes and what is wrong with them", 1,
			toolSample{`{cluster="c", instance="a", kind="jump_missing"}`, 2}, toolSample{`{cluster="c", instance="b", kind="not_syncing"}`, 1}),
		test("agents that do not compare", "Nodes not judged", 0, toolSample{`{cluster="c"}`, 2}),
		test("their modes", "Nodes not judged, by proxy mode", 0,
			toolSample{`{cluster="c", proxy_mode="iptables"}`, 1}, toolSample{`{cluster="c", proxy_mode="nftables"}`, 1}),
	}
}

func programmingValues() []valueTest {
	bucket := func(instance, family, le string) string {
		return `svcscope_programming_delay_seconds_bucket{instance="` + instance + `", ip_family="` + family + `", le="` + le + `"}`
	}
	series := []toolSeries{
		{bucket("quick", "IPv4", "0.5"), "0+60x5"}, {bucket("quick", "IPv4", "30"), "0+60x5"}, {bucket("quick", "IPv4", "60"), "0+60x5"}, {bucket("quick", "IPv4", "+Inf"), "0+60x5"},
		{bucket("slow", "IPv4", "0.5"), "0x5"}, {bucket("slow", "IPv4", "30"), "0x5"}, {bucket("slow", "IPv4", "60"), "0+15x5"}, {bucket("slow", "IPv4", "+Inf"), "0+20x5"},
		{bucket("slow", "IPv6", "0.5"), "0x5"}, {bucket("slow", "IPv6", "30"), "0x5"}, {bucket("slow", "IPv6", "60"), "0+5x5"}, {bucket("slow", "IPv6", "+Inf"), "0+5x5"},
		{bucket("idle", "IPv4", "0.5"), "7x5"}, {bucket("idle", "IPv4", "30"), "7x5"}, {bucket("idle", "IPv4", "60"), "7x5"}, {bucket("idle", "IPv4", "+Inf"), "7x5"},
	}
	test := func(name, panel string, target int, want ...toolSample) valueTest {
		return valueTest{name: name, uid: driftUID, panel: panel, target: target, interval: "1m", at: "5m", series: series, want: want}
	}
	return []valueTest{
		test("half of all nodes' changes are quick", "Time of a change, 50 % and 99 %", 1, toolSample{`{}`, 0.5 * 42.5 / 60}),
		test("shares of all changes", "Changes written within so many seconds", 0,
			toolSample{`{le="0.5"}`, 60.0 / 85}, toolSample{`{le="30"}`, 60.0 / 85}, toolSample{`{le="60"}`, 80.0 / 85}),
		{
			name: "both families of a node are one", uid: driftUID, panel: "Time of a change, 99 %, slowest nodes, top 10", interval: "1m", at: "5m",
			series: series[:12],
			want:   []toolSample{{`{instance="quick"}`, 0.495}, {`{instance="slow"}`, 60}},
		},
	}
}
