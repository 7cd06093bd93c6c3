#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Everything that gates a change; with the argument "long", the full numbers
# too, which go to docs/verification.md.
set -euo pipefail
cd "$(dirname "$0")/.."
mode=${1:-gate}
export PATH=$PATH:/usr/sbin:/sbin
export CGO_ENABLED=${CGO_ENABLED:-0}

step() { printf '\n== %s (%ss)\n' "$*" "$SECONDS"; }
SECONDS=0

# All that a test makes outside of namespaces lands here, and all its processes
# carry the mark: so what is left behind can be told from what was there.
own=$(mktemp -d /tmp/sv.XXXXXX)
chmod 711 "$own" # a test goes on as an ordinary user
trap 'rm -rf "$own"' EXIT
export TMPDIR=$own GOTMPDIR=$own SVCSCOPE_TEST_RUN=$$.$RANDOM
state() { git status --porcelain 2>/dev/null; ls -A /run/netns 2>/dev/null; grep -c ' nsfs ' /proc/self/mountinfo; true; }

step "what this machine needs"
hack/preflight.sh tests
before=$(state)

step "build"
make --no-print-directory build
bin/lab build
arch=$(go env GOARCH)
hack/image.sh --arch "$arch" "$own/image"
export SVCSCOPE_IMAGE=$own/image/svcscope-$arch.tar # what the lab's pods run
cp bin/lab "$own/lab"
(cd hack/nodeagent && go build -trimpath -o "$own/nodeagent" .)
export SVCSCOPE_LAB_PROGRAM=$own/lab SVCSCOPE_NODEAGENT_PROGRAM=$own/nodeagent

step "formatting, vet, generated files"
unformatted=$(gofmt -l cmd pkg hack)
[ -z "$unformatted" ] || { echo "gofmt -l says: $unformatted" >&2; exit 1; }
for module in . hack/lab hack/chart hack/nodeagent hack/cabundle; do (cd $module && go vet ./...); done
go vet -tags nokube ./cmd/... ./pkg/agent ./pkg/cli
hack/verify.sh

# A skipped test is a failure here: this machine has what they need.
export SVCSCOPE_REQUIRE_KERNEL=1 SVCSCOPE_REQUIRE_LAB=1
if [ "$mode" = long ]; then
	export SVCSCOPE_LONG=1 SVCSCOPE_RESULTS=$own/go-build.results
	: >"$SVCSCOPE_RESULTS"
fi
step "decoders, readers, joins, metrics, command line"
go test -count=1 -timeout 15m ./...
step "the chart and what is rendered from it"
(cd hack/chart && go test -count=1 -timeout 15m ./...)
step "the lab: real etcd, kube-apiserver, kube-proxy, Prometheus, Helm"
(cd hack/nodeagent && go test -count=1 -timeout 15m ./...)
(cd hack/lab && go test -count=1 -parallel 2 -timeout 180m ./...)

if [ "$mode" = long ]; then
	step "long: race detector, fuzzing, other platforms"
	if command -v gcc >/dev/null; then
		CGO_ENABLED=1 go test -race -short ./...
		(cd hack/nodeagent && CGO_ENABLED=1 go test -race -short ./...)
	else
		echo "no C compiler: race detector left out"
	fi
	hack/fuzz.sh
	GOARCH=arm64 go build ./...
	GOOS=darwin go build ./pkg/netfilter/... ./pkg/ruleset ./pkg/kubeproxy ./pkg/correlate ./pkg/ledger
fi

step "nothing left behind"
rm -rf "$own/image" "$own/lab" "$own/nodeagent"
left=$(env -u SVCSCOPE_TEST_RUN hack/leftovers.sh "$SVCSCOPE_TEST_RUN" "$own")
[ -z "$left" ] || { printf 'left behind:\n%s\n' "$left" >&2; exit 1; }
after=$(state)
[ "$before" = "$after" ] || { echo "changed by the tests:" >&2; diff <(echo "$before") <(echo "$after") >&2 || true; exit 1; }
[ "$mode" != long ] || hack/verification.sh "$SVCSCOPE_RESULTS"
step "done"
