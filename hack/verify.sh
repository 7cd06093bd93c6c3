#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Fails when a generated file differs from what its generator says now.
set -euo pipefail
cd "$(dirname "$0")/.."
check() {
	diff -u "$1" <("${@:2}") || { echo "svcscope: $1 is stale: run make generate" >&2; exit 1; }
}
check docs/metrics.md go run ./hack/metricsdoc
check docs/cli.md go run ./hack/clidoc
go run ./hack/monitoring -check
