#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Real numbers on this machine: first from a node in a namespace with rules as
# kube-proxy writes them, while the control plane builds; then from the same
# node with a real API server and kube-proxy; then in a real Prometheus, which
# stays for a look on a terminal. Nothing outside the lab's own namespaces is
# touched.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH=$PATH:/usr/sbin:/sbin
SECONDS=0

say() { printf '\n\033[1m[%3ds] %s\033[0m\n' "$SECONDS" "$*"; }
[ -t 1 ] || say() { printf '\n[%3ds] %s\n' "$SECONDS" "$*"; }
run() { printf '$ %s\n' "$*"; "$@"; }

work=$(mktemp -d -t svcscope-demo.XXXXXX)
name=demo-$$
agent= build= prometheus= forward=
cleanup() {
	for p in $forward $prometheus $agent; do kill "$p" 2>/dev/null || true; done
	[ -z "$build" ] || kill -- "-$build" 2>/dev/null || kill "$build" 2>/dev/null || true
	[ ! -x bin/lab ] || bin/lab down --name "$name" >/dev/null 2>&1 || true
	wait 2>/dev/null || true
	rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

in_node() { bin/lab exec --name "$name" --caps net_admin node1 -- "$@"; }

# start_agent FLAG... starts the agent on the node with CAP_NET_ADMIN alone.
start_agent() {
	in_node "$svcscope" agent --interval 1s --kube.start-jitter 0s "$@" >"$work/agent.log" 2>&1 &
	agent=$!
	for _ in $(seq 100); do
		if in_node "$svcscope" services --agent http://127.0.0.1:10988 >/dev/null 2>&1; then return; fi
		kill -0 "$agent" 2>/dev/null || break
		sleep 0.1
	done
	cat "$work/agent.log" >&2; echo "svcscope: the agent did not answer" >&2; exit 1
}
stop_agent() { kill "$agent" 2>/dev/null || true; wait "$agent" 2>/dev/null || true; agent=; }

# show N M opens N connections to the Service's own address and M to its node
# port, and prints what the agent saw of them.
show() {
	echo "Opening $1 connections to the Service web by its cluster address, $2 by node port, 5 to a Service without endpoints:"
	bin/lab load --name "$name" --to 10.96.0.80:80 --connections "$1"
	bin/lab load --name "$name" --to 192.168.50.11:30080 --connections "$2"
	bin/lab load --name "$name" --to 10.96.0.99:80 --connections 5
	counted=
	for _ in $(seq 50); do
		if [ "$(metrics | grep -cE "ip_family=\"IPv4\".*(name=\"web\".*(via=\"cluster\"} $1|via=\"external\"} $2)|\"broken\".*} 5)\$")" = 3 ]; then counted=1; break; fi
		sleep 0.1
	done
	echo; echo "What the kernel did with them, as svcscope sees it:"
	printf '$ svcscope services\n'; in_node "$svcscope" services
	printf '\nfrom http://127.0.0.1:10988/metrics:\n'
	metrics | grep -E '^svcscope_(service_(connections|rejected_packets)_total.*ip_family="IPv4".*name="(web|broken)"|dispatch_rules|conntrack_entries)' | grep -v ' 0$' || true
	[ -n "$counted" ] || { echo "svcscope: the numbers are not those of the connections opened" >&2; exit 1; }
}
metrics() {
	bin/lab exec --name "$name" node1 -- bash -c \
		'exec 3<>/dev/tcp/127.0.0.1/10988; printf "GET /metrics HTTP/1.0\r\n\r\n" >&3; cat <&3'
}

# wait_built UNTIL WHAT waits for the background build, wholly or until a file
# is there.
wait_built() {
	while kill -0 "$build" 2>/dev/null && [ ! -e "$1" ]; do
		printf '\r[%3ds] building %s: %s\033[K' "$SECONDS" "$2" "$(tail -n1 "$work/build.log" | tr '\r' '\n' | tail -n1)"
		sleep 1
	done
	echo
	[ -e "$1" ] || wait "$build" || { cat "$work/build.log" >&2; exit 1; }
}

# start_prometheus starts Prometheus on the node, with the project's rules, and
# opens it on this machine. It looks its host's name up before it scrapes: a
# name that needs no DNS saves 15 s.
start_prometheus() {
	cat >"$work/prometheus.yml" <<-EOF
		global: {scrape_interval: 1s, evaluation_interval: 5s}
		rule_files: ["$PWD/dashboards/rules/*.yaml"]
		scrape_configs:
		- job_name: svcscope
		  static_configs: [{targets: ["127.0.0.1:10988"], labels: {node: node1}}]
	EOF
	bin/lab exec --name "$name" node1 -- unshare --uts sh -c 'hostname localhost && exec "$@"' sh "$(bin/lab build path prometheus)" \
		--config.file="$work/prometheus.yml" --storage.tsdb.path="$work/data" --web.listen-address=127.0.0.1:9090 --log.level=warn \
		>"$work/prometheus.log" 2>&1 &
	prometheus=$!
	for port in 9090 0; do # 9090 may be taken here
		bin/lab forward --name "$name" "127.0.0.1:$port" node1:9090 >"$work/forward.log" 2>/dev/null &
		forward=$!
		for _ in $(seq 50); do
			address=$(cut -d' ' -f1 "$work/forward.log")
			[ -z "$address" ] || return 0
			kill -0 "$forward" 2>/dev/null || break
			sleep 0.1
		done
		kill "$forward" 2>/dev/null || true
		forward=
	done
	echo "svcscope: no port leads to Prometheus" >&2; exit 1
}

# ask EXPRESSION asks Prometheus at its address on this machine; the
# expression is ready for a URL.
ask() { (exec 3<>"/dev/tcp/${address%:*}/${address##*:}" && printf 'GET /api/v1/query?query=%s HTTP/1.0\r\n\r\n' "$1" >&3 && tail -n1 <&3) 2>/dev/null; }

say "Checking this machine"
hack/preflight.sh machine
say "Building svcscope and the lab (a minute the first time)"
# Without the Kubernetes client at first: it is a third of the compiler's work.
export CGO_ENABLED=0
svcscope=$work/svcscope
setsid sh -c 'go build -trimpath -ldflags "-s -w" -tags nokube -o "$1" ./cmd/svcscope &&
	cd hack/lab && go build -trimpath -o ../../bin/lab .' build "$svcscope" &
build=$!
hack/preflight.sh packages
wait "$build" || exit 1
setsid nice -n 10 sh -c 'make --no-print-directory build && bin/lab build kubernetes etcd &&
	touch "$1" && exec bin/lab build prometheus' build "$work/control-plane" >"$work/build.log" 2>&1 &
build=$!

say "A node in a namespace, with rules as kube-proxy writes them; no cluster, no API"
bin/lab up --name "$name" --control-plane none --rules hack/lab/scenes/demo.v4.rules >/dev/null 2>"$work/up.log" || { cat "$work/up.log" >&2; exit 1; }
start_agent --kube never
show $((500 + RANDOM % 100)) $((100 + RANDOM % 50))
stop_agent
bin/lab down --name "$name" >/dev/null

say "The same with a real etcd, kube-apiserver and kube-proxy"
wait_built "$work/control-plane" "the control plane (about 10 minutes the first time on 2 cores)"
svcscope=$PWD/bin/svcscope
bin/lab up --name "$name" --scene demo >"$work/up.txt" 2>"$work/up.log" || { cat "$work/up.log" >&2; exit 1; }
run bin/lab kubectl --name "$name" -- get services -A
start_agent --metrics.endpoints --kubeconfig "$(awk '$1 == "kubeconfig" {print $2}' "$work/up.txt")" --node-name node1
cluster=$((500 + RANDOM % 100)) external=$((100 + RANDOM % 50))
show "$cluster" "$external"

say "The same in a real Prometheus, with the project's alerts"
wait_built "$work/never" "Prometheus, which comes last (about 5 minutes the first time)"
build=
start_prometheus
query='sum(svcscope_service_connections_total{service_name="web"})'
for _ in $(seq 300); do
	answer=$(ask 'sum(svcscope_service_connections_total%7Bservice_name%3D%22web%22%7D)') || true
	case $answer in *"\"$((cluster + external))\"]"*) break ;; esac
	answer=
	kill -0 "$prometheus" 2>/dev/null || break
	sleep 0.1
done
[ -n "$answer" ] || { cat "$work/prometheus.log" >&2; echo "svcscope: Prometheus does not have the $((cluster + external)) connections" >&2; exit 1; }
echo "$query"
echo "  = $((cluster + external)), the $cluster and $external connections opened above"
echo "Prometheus: http://$address. Built from its Go module it has no web pages; ask it like this, or from a Grafana:"
echo "  $(bin/lab build path promtool) query instant http://$address '$query'"
echo "  curl http://$address/api/v1/alerts"
echo "Dashboards: in a Grafana with http://$address as Prometheus data source, choose Dashboards, New, Import and upload"
echo "the files dashboards/*.json (Grafana 9 to 13; dashboards/grafana-7/*.json for 7.5). dashboards/README.md says more."
if [ -t 1 ]; then
	echo "Make traffic: bin/lab load --name $name --to 10.96.0.80:80 -n 1000"
	say "Ctrl-C ends it"
	trap 'exit 0' INT
	wait "$forward" || true
fi
say "Done. Try more: bin/lab up --scene demo, then bin/lab --help; hack/lab/README.md says how"
