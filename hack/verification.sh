#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Writes docs/verification.md from the lines that the long tests left in $1.
set -euo pipefail
cd "$(dirname "$0")/.."
{
	echo "# Verification"
	echo
	echo "Written by \`make test-long\`: what the tests saw, on real kernels, a real API server and a real kube-proxy."
	echo
	echo "* date: $(date -u +%Y-%m-%d)"
	echo "* commit: $(git rev-parse --short HEAD)"
	echo "* machine: Linux $(uname -r), $(nproc) CPUs, $(go env GOVERSION), $(iptables --version)"
	echo
	echo "| test | shown |"
	echo "|---|---|"
	sort "$1"
} > docs/verification.md
