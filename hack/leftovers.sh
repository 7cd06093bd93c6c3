#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Prints what a test run has left behind: leftovers.sh MARK FOLDER.
# MARK is the value of SVCSCOPE_TEST_RUN in the run's environment, which all
# its processes inherit; FOLDER was its TMPDIR. A namespace lives as long as a
# process or a mount holds it, a socket as long as a process.
set -euo pipefail
cd "$(dirname "$0")/.."
mark=$1 folder=$2

for p in /proc/[0-9]*; do
	if tr '\0' '\n' 2>/dev/null <"$p/environ" | grep -qx "SVCSCOPE_TEST_RUN=$mark"; then
		echo "process ${p#/proc/}: $(tr '\0' ' ' 2>/dev/null <"$p/cmdline")"
	fi
done 2>/dev/null
find "$folder" -mindepth 1 -maxdepth 1 ! -name 'go-build*' -printf 'file %p\n'
grep -F "$folder" /proc/self/mountinfo | sed 's/^/mount /' || true
