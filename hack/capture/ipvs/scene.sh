# SPDX-License-Identifier: Apache-2.0
#
# The table of connections as kube-proxy's IPVS mode leaves it: runs as root of the
# machine that vm.sh boots. A node, pods that serve and one that does not, a client
# that is not masqueraded and one that is.
ip() { /bin/ip "$@"; } # busybox's shell prefers its own
modprobe -a ip_vs ip_vs_rr nf_conntrack_netlink veth dummy
echo 1 >/proc/sys/net/ipv4/ip_forward
echo 1 >/proc/sys/net/ipv6/conf/all/forwarding
echo 1 >/proc/sys/net/ipv4/vs/conntrack
echo 0 >/proc/sys/net/ipv6/conf/all/accept_dad
echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad
ip link set lo up

# host NAME NUMBER: a namespace at 10.77.NUMBER.2 and fd77:NUMBER::2
host() {
	ip netns add "$1"
	ip link add "v$1" type veth peer name eth0 netns "$1"
	ip addr add "10.77.$2.1/24" dev "v$1"
	ip addr add "fd77:$2::1/64" dev "v$1" nodad
	ip link set "v$1" up
	ip -n "$1" addr add "10.77.$2.2/24" dev eth0
	ip -n "$1" addr add "fd77:$2::2/64" dev eth0 nodad
	ip -n "$1" link set lo up
	ip -n "$1" link set eth0 up
	ip -n "$1" route add default via "10.77.$2.1"
	ip -n "$1" -6 route add default via "fd77:$2::1"
}
host pod1 1
host pod2 2
host silent 3
host client 4
host outside 5
ip netns exec silent ip link set eth0 arp off # never answers
ip neigh add 10.77.3.2 lladdr 02:00:00:00:00:99 dev vsilent
ip neigh add fd77:3::2 lladdr 02:00:00:00:00:99 dev vsilent
for pod in pod1 pod2; do
	ip netns exec $pod flows serve :8080 &
done

ip link add kube-ipvs0 type dummy
# service KIND ADDRESS PODS...: a virtual server with real ones
service() {
	kind=$1 at=$2
	shift 2
	ipvsadm -A "$kind" "$at" -s rr
	for pod; do ipvsadm -a "$kind" "$at" -r "$pod" -m; done
}
for vip in 10.96.0.10/32 10.96.0.11/32 10.96.0.12/32 fd96::a/128 fd96::b/128 fd96::c/128; do
	ip addr add $vip dev kube-ipvs0
done
service -t 10.96.0.10:80 10.77.1.2:8080 10.77.2.2:8080
service -u 10.96.0.11:53 10.77.1.2:8080
service -t 10.96.0.12:80 10.77.3.2:8080
service -u 10.96.0.12:53 10.77.3.2:8080
service -t 10.77.5.1:30080 10.77.1.2:8080 10.77.2.2:8080 # a node port
service -t '[fd96::a]:80' '[fd77:1::2]:8080' '[fd77:2::2]:8080'
service -u '[fd96::b]:53' '[fd77:1::2]:8080'
service -t '[fd77:5::1]:30080' '[fd77:1::2]:8080' '[fd77:2::2]:8080'
service -u '[fd96::c]:53' '[fd77:3::2]:8080'
nft -f - <<'NFT'
table ip nat {
	chain post {
		type nat hook postrouting priority 100;
		ip saddr 10.77.5.0/24 masquerade
	}
}
table ip6 nat {
	chain post {
		type nat hook postrouting priority 100;
		ip6 saddr fd77:5::/64 masquerade
	}
}
NFT

from() { ip netns exec "$@"; }
from client flows open tcp 10.96.0.10:80 5
from client flows close tcp 10.96.0.10:80 2
from client flows open udp 10.96.0.11:53 3
from client flows try tcp 10.96.0.12:80 2 # to the silent pod
from client flows try udp 10.96.0.12:53 1
from outside flows open tcp 10.77.5.1:30080 4
from client flows open tcp '[fd96::a]:80' 3
from client flows open udp '[fd96::b]:53' 1
from client flows try udp '[fd96::c]:53' 2
from outside flows open tcp '[fd77:5::1]:30080' 2
from client flows open tcp 10.77.1.2:8080 1 # to a pod, without a Service
flows open tcp 10.96.0.10:80 1            # from the node itself

flows dump /out
conntrack -L -f ipv4 -o extended >/out/flows.txt
conntrack -L -f ipv6 -o extended >/out/flows6.txt
cat /proc/net/ip_vs >/out/ip_vs.txt
{ uname -rs; conntrack -V; ipvsadm -v; } >/out/versions.txt
