#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Prints what a test run could leave behind; two runs of it are compared. A
# namespace lives as long as a process or a mount holds it, and a socket as
# long as a process, so those two are what is looked for.
set -euo pipefail
cd "$(dirname "$0")/.."
cache=${XDG_CACHE_HOME:-$HOME/.cache}/svcscope
tmp=${GOTMPDIR:-/tmp} # test binaries run from there

find /proc -maxdepth 2 -path '/proc/[0-9]*/exe' -printf '%l\n' 2>/dev/null |
	grep -E "^($PWD/bin|$cache)/|^$tmp/go-build[0-9]+/.*\.test( |$)" | sort | sed 's/^/process /' || true
grep -E ' nsfs |/svcscope' /proc/self/mountinfo | sed 's/^/mount /' || true
find /run/netns -mindepth 1 2>/dev/null | sed 's/^/netns /' || true
find /tmp "${TMPDIR:-/tmp}" "${XDG_RUNTIME_DIR:-/tmp}" -maxdepth 1 -iname '*svcscope*' 2>/dev/null | sort -u | sed 's/^/file /' || true
git status --porcelain --ignored 2>/dev/null | grep -v ' bin/$' | sed 's/^/worktree /' || true
