#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# golangci-lint of the pinned version, built once into the cache.
set -euo pipefail
cd "$(dirname "$0")/.."
version=v2.15.0
bin=${XDG_CACHE_HOME:-$HOME/.cache}/svcscope/golangci-lint-$version
if [ ! -x "$bin/golangci-lint" ]; then
	echo "svcscope: building golangci-lint $version into $bin (some minutes, once)"
	GOBIN=$bin go install "github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$version"
fi
for module in . hack/lab hack/chart hack/nodeagent hack/cabundle; do # modules of their own, one .golangci.yml
	(cd $module && "$bin/golangci-lint" run ./...)
done
