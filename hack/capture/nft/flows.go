// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"

	"github.com/mdlayher/netlink"

	"github.com/svcscope/svcscope/hack/capture/scene"
	"github.com/svcscope/svcscope/pkg/netfilter"
)

// flows are the arguments of conntrack -I for one entry each: as Services'
// connections look with and without masquerading, the endpoint's own entry
// without NAT, protocols with and without ports, and all states.
var flows = []string{
	// pod to cluster IP, not masqueraded
	"-p tcp -s 10.244.1.7 -d 10.96.0.10 --sport 40001 --dport 80 -g 10.244.1.5:8080 --state ESTABLISHED -t 86400 -u ASSURED",
	"-p tcp -s 10.244.1.7 -d 10.96.0.10 --sport 40002 --dport 80 -g 10.244.1.5:8080 --state TIME_WAIT -t 120",
	// node port, masqueraded
	"-p tcp -s 192.168.50.2 -d 192.168.50.1 --sport 40003 --dport 30080 -g 10.244.1.5:8080 -n 10.244.1.1:61234 --state SYN_SENT -t 120",
	// as an endpoint's node sees what another one gives it
	"-p tcp -s 10.244.2.1 -d 10.244.1.5 --sport 61234 --dport 8080 --state SYN_RECV -t 60",
	"-p tcp -s 10.244.1.7 -d 203.0.113.1 --sport 40004 --dport 443 --state CLOSE -t 10",
	"-p udp -s 10.244.1.7 -d 10.96.0.11 --sport 40005 --dport 53 -g 10.244.1.6:5353 -t 30",
	"-p udp -s 10.244.1.7 -d 203.0.113.2 --sport 40006 --dport 123 -t 120 -u SEEN_REPLY",
	"-p sctp -s 10.244.1.7 -d 10.96.0.12 --sport 40007 --dport 132 -g 10.244.1.6:132 --orig-vtag 1 --reply-vtag 2 --state ESTABLISHED -t 210",
	"-p icmp -s 10.244.1.7 -d 203.0.113.3 --icmp-type 8 --icmp-code 0 --icmp-id 77 -t 30",
	"-p tcp -s fd00:10:244:1::7 -d fd00:10:96::a --sport 40008 --dport 80 -g [fd00:10:244:1::5]:8080 --state FIN_WAIT -t 120",
	"-p udp -s fd00:10:244:1::7 -d fd00:10:96::b --sport 40009 --dport 53 -t 30",
	"-p icmpv6 -s fd00:10:244:1::7 -d 2001:db8::3 --icmpv6-type 128 --icmpv6-code 0 --icmpv6-id 78 -t 30",
	"-p 47 -s 192.168.50.1 -d 192.168.50.2 --srckey 0x1 --dstkey 0x1 -t 600",
}

// captureFlows stores entries of the table of both families.
func captureFlows(c *netlink.Conn) error {
	for _, f := range flows {
		if _, err := scene.Tool("", append([]string{"conntrack", "-I"}, strings.Fields(f)...)...); err != nil {
			return err
		}
	}
	for family, file := range map[netfilter.Family]string{netfilter.IPv4: "flows.bin", netfilter.IPv6: "flows6.bin"} {
		msgs, err := scene.Ask(c, ctSubsys|1, family, nil) // IPCTNL_MSG_CT_GET
		if err != nil {
			return err
		}
		if err := scene.Write(conntrackDir, file, msgs); err != nil {
			return err
		}
	}
	return nil
}
