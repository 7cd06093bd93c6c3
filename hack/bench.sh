#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# What svcscope costs, beside the tools and the bare system calls on the same
# rules in one run, and every other benchmark of the tree. Writes
# docs/performance.md, and fails where a ratio or an allocation misses its
# budget (hack/ratios).
#
# SVCSCOPE_BENCH_SERVICES are the numbers of Services. As root they are 100 to
# 10,000 in both families and 30,000 in IPv4; without root the socket buffer of
# iptables-nft-restore stays small, and so does the number of rules it can load.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH=$PATH:/usr/sbin:/sbin
hack/preflight.sh packages
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT

cost() { # rules, sizes
	SVCSCOPE_BENCH_RULES=$1 SVCSCOPE_BENCH_SERVICES=$2 go test -run '^$' -bench '^BenchmarkCost$' -benchtime 1x -timeout 60m ./pkg/agent
}
load=$(cut -d' ' -f1 /proc/loadavg)
{
	if [ -n "${SVCSCOPE_BENCH_SERVICES:-}" ]; then
		cost "nft/IPv4 nft/IPv6 legacy/IPv4 legacy/IPv6" "$SVCSCOPE_BENCH_SERVICES"
	elif [ "$(id -u)" = 0 ]; then
		cost nft/IPv4 "100 1000 10000 30000"
		cost nft/IPv6 "100 1000 10000"
		cost legacy/IPv4 "100 1000 10000 30000"
		cost legacy/IPv6 "100 1000 10000"
	else
		cost "nft/IPv4 nft/IPv6 legacy/IPv4 legacy/IPv6" 20
	fi
	if [ "$(id -u)" = 0 ]; then
		SVCSCOPE_LONG=1 go test -run '^$' -bench '^BenchmarkAgentMemory$' -benchtime 1x -timeout 60m ./pkg/agent
	fi
} | tee "$work/cost.txt"
{
	# More than the host's limit allows take SVCSCOPE_TEST_HOST_SYSCTL=1.
	entries="$(($(cat /proc/sys/net/netfilter/nf_conntrack_max 2>/dev/null || echo 100000) / 10 * 9))"
	[ "$entries" -le 100000 ] || entries="100000 $entries"
	[ "${SVCSCOPE_TEST_HOST_SYSCTL:-}" != 1 ] || entries="100000 1000000"
	SVCSCOPE_BENCH_ENTRIES=${SVCSCOPE_BENCH_ENTRIES:-$entries} go test -run '^$' -bench '^BenchmarkFlows$' -benchtime 1x -timeout 60m ./pkg/agent
} | tee "$work/flows.txt"
go test -run '^$' -skip '^Benchmark(Cost|AgentMemory|Flows)$' -bench . -benchmem -benchtime "${BENCHTIME:-0.5s}" ./pkg/... | tee "$work/bench.txt"

missed=0
go build -o "$work/ratios" ./hack/ratios
cat "$work/cost.txt" "$work/flows.txt" "$work/bench.txt" | "$work/ratios" > "$work/ratios.md" || missed=$?
{
	cat <<-EOF2
	# Performance

	Written by \`make bench\`. Ratios are between two measurements of one run on the same rules; absolute figures depend
	on the machine and are there for orientation.

	* date: $(date -u +%Y-%m-%d)
	* commit: $(git rev-parse --short HEAD)
	* machine: Linux $(uname -r), $(nproc) CPUs, $(go env GOVERSION), $(iptables --version)
	* load average when it began: $load. Other work on the machine makes every time longer, and ratios less sure

	## What a sampling costs

	kube-proxy's rules of so many Services with three endpoints each, in namespaces: 11 rules and 4 chains a Service. CPU
	is user and system time of all threads, medians of three to nine. \`save -c\` is the process
	\`ip[6]tables-{nft,legacy}-save -c\`, whose text would still have to be parsed; the bare reading is one GET_ENTRIES of
	nat, or the rules of KUBE-SERVICES without a look at them. The agent gives the memory of a large table back after each
	reading, and so pays for fresh memory as the bare reading does; a call into memory that is kept, 66 MB at 10,000
	Services, costs less. Reading, comparing and decoding take more than 1.3 times such a call. \`iptables-legacy-save -c\`
	takes two to four times the bare call (the first ratio below), so that a third of it, which was to be the most
	that a sampling costs, is nearly the call alone: the gate is 1.3 times the bare call. The bare requests after a
	change are the list of chains and the rules of KUBE-SERVICES and of every KUBE-SVC, unread: for every 32 KiB of answer
	the kernel begins at the start again, so that 40,000 chains and the 10,000 rules of one chain cost it with their square,
	and the rules of one short chain take it 10 µs. At 10,000 Services these requests alone are a fifth to a third of
	\`save -c\`, which is what a reading after a change was to cost at most. Less is possible only where chains of Services
	without traffic stay unread, whose first connections would be counted later. All else is a whole sampling of the agent
	with the API's picture of the same Services and every Service exposed: reading all sources, the ledger, the snapshot.
	With n % active, each of them got one connection since the last sampling. A changed Service is one partial sync, as
	kube-proxy writes it, and one new picture of the API.

	An idle node with 10,000 Services in iptables-legacy costs two bare readings, one a family, whatever is done with them
	(the columns \`bare reading\` and \`nothing new\` of those rows): the kernel has no smaller question than a whole table.
	Every 15 s that is more than 1.5 % of a core, and it is told without a gate; a longer \`--interval\` divides it. So is
	the scrape compressed with zstd, which a stock Prometheus does not ask for: the compression is a third of it.

	\`AgentMemory\` is a whole agent without an API beside one family's rules of 10,000 Services. It is told without a
	gate. In nf_tables some 20 MiB of it are pages of the program, which the system takes back at will, and some 55 MiB
	what the agent knows: 38 % the ledger, 30 % chains and rules, 17 % kube-proxy's names in them, 14 % the join. The rest
	is garbage not yet collected, and a lower GOGC does not help. Less needs a smaller state of each counter and Service.
	In x_tables the counters of all 110,000 rules are kept besides.

	EOF2
	cat "$work/ratios.md"
	cat <<-EOF2
	## Go benchmarks

	\`\`\`
	$(grep -hE '^(pkg:|Benchmark)' "$work/flows.txt" "$work/bench.txt")
	\`\`\`
	EOF2
} > docs/performance.md
exit "$missed"
