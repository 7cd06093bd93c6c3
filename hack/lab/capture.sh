#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Captures what kube-proxy writes for scenes/capture.json into a folder, and
# the objects as the API server shows them:
#
#     hack/lab/capture.sh pkg/kubeproxy/testdata/kube-proxy-1.37.2
#
# With a second folder it also stores the kernel's messages of the nftables mode
# there, with the program that CAPTURE names (go build -o bin/capture-nft ./hack/capture/nft):
#
#     hack/lab/capture.sh OUT pkg/netfilter/nftables/testdata/kube-proxy-1.37.2
#
# LAB names the lab program (default bin/lab).
set -eu

here=$(cd "$(dirname "$0")" && pwd)
lab=${LAB:-$here/../../bin/lab}
out=${1:?usage: capture.sh FOLDER [MESSAGES-FOLDER]}
messages=${2:-}
capture=${CAPTURE:-$here/../../bin/capture-nft}
mkdir -p "$out"

LAB_NAME=capture-$$
export LAB_NAME
trap '"$lab" down' EXIT
trap 'exit 1' INT TERM HUP

# objects applies the scene, with addresses in the status of load balancers.
objects() {
	"$lab" kubectl -- apply -f "$here/scenes/capture.json"
	i=10
	for s in lb-ranges lb-local lb-local-none; do
		"$lab" kubectl -- patch service "$s" --subresource=status --type=merge -p \
			"{\"status\":{\"loadBalancer\":{\"ingress\":[{\"ip\":\"198.51.100.$i\",\"ipMode\":\"VIP\"},{\"ip\":\"2001:db8::$i\",\"ipMode\":\"VIP\"}]}}}"
		i=$((i + 1))
	done
}

# settle waits until the rules are the same in ten readings, a sync of
# kube-proxy being at most a second after a change, and name what was
# applied last.
settle() {
	same=0 last=
	while [ "$same" -lt 10 ]; do
		now=$("$lab" exec node1 -- sh -c "$1")
		case $now in
		*default/stream*198.51.100.12* | *198.51.100.12*default/stream*)
			if [ "$now" = "$last" ]; then same=$((same + 1)); else same=0; fi ;;
		esac
		last=$now
		sleep 0.3
	done
}

# traffic gives the counters something to show.
traffic() {
	load() { "$lab" load --timeout 3s "$@"; }
	load -n 40 --to 10.96.1.12:80
	load -n 41 --to '[fd00:10:96::112]:80'
	load -n 20 --to 192.168.50.11:30080
	load -n 21 --to '[fd00:192:168:50::11]:30080'
	load -n 15 --to 198.51.100.20:80
	load -n 16 --to '[2001:db8::20]:80'
	load -n 10 --to 198.51.100.10:443
	load -n 11 --to 198.51.100.11:80
	load -n 12 --to '[2001:db8::11]:80'
	load -n 8 --to 10.96.1.18:80
	load -n 9 --from pod1 --to 10.96.1.18:80
	load -n 30 --proto udp --to 10.96.1.11:53
	load -n 31 --proto udp --to '[fd00:10:96::111]:53'
	load -n 7 --to 10.96.1.19:80
	load -n 6 --to '[fd00:10:96::119]:80'
	load -n 5 --from node1 --to 10.96.1.16:80
}

for backend in nft legacy; do
	"$lab" up --pods 3 --iptables "$backend"
	objects
	settle '(iptables-save; ip6tables-save) | grep -v ^#'
	traffic
	"$lab" exec node1 -- iptables-save -c >"$out/iptables-$backend.ipv4.save"
	"$lab" exec node1 -- ip6tables-save -c >"$out/iptables-$backend.ipv6.save"
	"$lab" down
done

"$lab" up --pods 3 --proxy-mode nftables
objects
settle 'nft list table ip kube-proxy; nft list table ip6 kube-proxy'
traffic
"$lab" exec node1 -- nft list ruleset >"$out/nftables.nft"
if [ -n "$messages" ]; then
	"$lab" exec node1 -- "$capture" -here "$messages"
fi
"$lab" kubectl -- get services,endpointslices,nodes -A -o json >"$out/objects.json"
