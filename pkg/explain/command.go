// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"net/netip"
	"strconv"
	"strings"

	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/ruleset"
)

// listCommand prints one rule with its counter. iptables-legacy takes the lock for that,
// and gives up at once, without -w, while kube-proxy has it.
func (s *side) listCommand(table, chain string, number int) string {
	command := tool(s.set.Family.String(), string(s.set.Backend))
	if s.set.Backend == ruleset.Legacy {
		command += " -w"
	}
	return command + " -t " + table + " -nvxL " + chain + " " + strconv.Itoa(number)
}

// tool is iptables' name for a backend and family.
func tool(family, backend string) string {
	if family == netfilter.IPv6.String() {
		return "ip6tables-" + backend
	}
	return "iptables-" + backend
}

// conntrackCommand lists the entries that came by a way, to any address where that has
// none, and were sent on: to the endpoint where one is named.
func (p *pathBuilder) conntrackCommand(way netip.AddrPort, endpoint string) string {
	words := []string{"conntrack", "-L", "-p", strings.ToLower(string(p.port.name.Protocol))}
	if p.ipv6() {
		words = append(words, "-f", "ipv6")
	}
	if way.Addr().IsValid() {
		words = append(words, "-d", way.Addr().String())
	}
	words = append(words, "--dport", strconv.Itoa(int(way.Port())))
	if to, err := netip.ParseAddrPort(endpoint); err == nil {
		words = append(words, "-r", to.Addr().String(), "--reply-port-src", strconv.Itoa(int(to.Port())))
	}
	return strings.Join(append(words, "-g"), " ")
}

// wayCommands show which way packets go to an endpoint: by a link of this node, or by
// another host; and, to one that is here, whether it has answered there.
func wayCommands(endpoint netip.Addr, here bool) []string {
	out := []string{"ip route get " + endpoint.String()}
	if here {
		out = append(out, "ip neigh show to "+endpoint.String())
	}
	return out
}

// modeCommand shows what kube-proxy has made in a mode that is not explained.
func modeCommand(why Unexplained, ipv6 bool) string {
	switch {
	case why == NFTablesMode && ipv6:
		return "nft list table ip6 kube-proxy"
	case why == NFTablesMode:
		return "nft list table ip kube-proxy"
	case why == IPVSMode:
		return "ipvsadm -Ln --stats"
	}
	return ""
}
