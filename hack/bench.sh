#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Every benchmark of the tree, and the ratios between svcscope's readers and
# iptables-save on the same rules in one run. Writes docs/performance.md.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH=$PATH:/usr/sbin:/sbin
hack/preflight.sh packages
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT

go build -o "$work/ratios" ./hack/ratios
# Without root the socket buffer of iptables-nft-restore stays small, and so
# does the number of rules that it can load at once.
if [ "$(id -u)" = 0 ]; then sizes="100 1000 10000" own="unshare -nm"; else sizes="20" own="unshare -Urnm"; fi
$own sh -c "mount -t tmpfs none /run && $work/ratios $sizes" | tee "$work/ratios.md"
go test -run '^$' -bench . -benchmem -benchtime "${BENCHTIME:-0.5s}" ./pkg/... | tee "$work/bench.txt"

{
	cat <<-EOF
	# Performance

	Written by \`make bench\`. Ratios are between two measurements of one run on the same rules; absolute figures depend
	on the machine and are there for orientation.

	* date: $(date -u +%Y-%m-%d)
	* commit: $(git rev-parse --short HEAD)
	* machine: Linux $(uname -r), $(nproc) CPUs, $(go env GOVERSION), $(iptables --version)

	## Reading every rule, beside iptables-save -c

	kube-proxy's rules in the nat table, three endpoints a Service. Ours is reading, decoding, conversion to one shape
	and recognition of every Service; the other column is the process \`iptables-save -c -t nat\` alone, whose text
	would still have to be parsed. CPU is user and system time; medians of five.

	| Services | backend | iptables-save CPU / wall | svcscope CPU / wall | CPU ratio |
	|---|---|---|---|---|
	EOF
	cat "$work/ratios.md"
	cat <<-EOF

	## Go benchmarks

	\`\`\`
	$(grep -E '^(pkg:|Benchmark)' "$work/bench.txt")
	\`\`\`
	EOF
} > docs/performance.md
