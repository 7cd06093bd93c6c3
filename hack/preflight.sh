#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Checks in two seconds whether this machine can do what was asked, and says
# what to do where it can't. Usage: preflight.sh go | machine | packages | tests
#   go        Linux and a Go new enough
#   machine   also disk, memory and namespaces for the lab and its build
#   packages  also the system's tools that the demo and benchmarks use:
#             installs them where it may, else says the exact line
#   tests     also buildah, which makes the image, ipset and strace
set -euo pipefail
want=${1:-packages}

fail() { printf 'svcscope: %s\n' "$@" >&2; exit 1; }

[ "$(uname -s)" = Linux ] || fail \
	"netfilter is Linux's: this needs a Linux machine, here is $(uname -s)." \
	"Use a Linux virtual machine (for example: limactl start, or multipass launch) and run the same command in it."

command -v git >/dev/null || fail "git is not on PATH: install git."
command -v go >/dev/null || fail "Go is not on PATH: install Go 1.26 or newer (https://go.dev/dl)."
have=$(go env GOVERSION | sed 's/^go//; s/[a-z].*//')
need=$(awk '$1 == "go" {print $2}' "$(dirname "$0")/../go.mod")
[ "$(printf '%s\n%s\n' "$need" "$have" | sort -V | head -n1)" = "$need" ] ||
	fail "Go $have is too old: svcscope needs Go $need or newer (https://go.dev/dl)."
[ "$want" != go ] || exit 0

# A control plane that is built already takes neither disk nor memory to build.
cache=${XDG_CACHE_HOME:-$HOME/.cache}
mkdir -p "$cache"
if [ -z "${SVCSCOPE_LAB_BIN:-}" ] && ! ls "$cache"/svcscope/lab/kubernetes-*/bin/kube-proxy >/dev/null 2>&1; then
	disk=$(df -Pm "$cache" | awk 'NR == 2 {print $4}')
	[ "$disk" -ge 10000 ] || fail "$cache has $disk MB free: building a control plane takes 10,000 MB the first time."
	memory=$(awk '$1 == "MemAvailable:" {print int($2 / 1024)}' /proc/meminfo)
	[ "$memory" -ge 3000 ] || fail "$memory MB of memory available: building a control plane takes 3,000 MB."
fi
unshare -Urnm true 2>/dev/null || { [ "$(id -u)" = 0 ] && unshare -nm true 2>/dev/null; } || fail \
	"neither user namespaces nor root here: the tests make network namespaces of their own." \
	"Run as root, or allow user namespaces: sysctl -w kernel.unprivileged_userns_clone=1 (Debian), kernel.apparmor_restrict_unprivileged_userns=0 (Ubuntu)."
[ "$want" != machine ] || exit 0

# The tests' oracles and the lab use these; the agent itself needs none of them.
missing=()
sbin=$PATH:/usr/sbin:/sbin
also=
[ "$want" != tests ] || also="buildah:buildah ipset:ipset strace:strace"
for pair in iptables-nft:iptables iptables-legacy:iptables nft:nftables ip:iproute2 conntrack:conntrack setpriv:util-linux $also; do
	PATH=$sbin command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
done
[ ${#missing[@]} -gt 0 ] || exit 0
mapfile -t missing < <(printf '%s\n' "${missing[@]}" | sort -u)
line="apt-get install -y --no-install-recommends ${missing[*]}"
sudo=
[ "$(id -u)" = 0 ] || sudo=sudo
if ! command -v apt-get >/dev/null; then
	fail "missing: ${missing[*]} (Debian's package names). Install them with this system's package manager and run again."
fi
if [ -n "$sudo" ] && ! { command -v sudo >/dev/null && { [ -t 0 ] || sudo -n true 2>/dev/null; }; }; then
	fail "missing: ${missing[*]}. Run as root: apt-get update && $line"
fi
echo "svcscope: installing from the system's packages: ${missing[*]}"
$sudo env DEBIAN_FRONTEND=noninteractive sh -c "apt-get update -qq && $line -qq" >/dev/null
