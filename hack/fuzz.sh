#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Runs every fuzz target of the tree for FUZZTIME each. Inputs are made smaller by a few
# tries: a minute for each, as is the default, would be all of the time.
set -euo pipefail
cd "$(dirname "$0")/.."
for file in $(git grep -lE '^func Fuzz' -- 'pkg/**_test.go'); do
	for target in $(sed -nE 's/^func (Fuzz[A-Za-z0-9_]*)\(.*/\1/p' "$file"); do
		echo "-- $(dirname "$file") $target"
		go test -run '^$' -fuzz "^$target\$" -fuzztime "${FUZZTIME:-20s}" -fuzzminimizetime 20x "./$(dirname "$file")"
	done
done
