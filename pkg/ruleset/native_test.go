// SPDX-License-Identifier: Apache-2.0

package ruleset_test

import (
	"fmt"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/svcscope/svcscope/pkg/internal/kernelrules"
	"github.com/svcscope/svcscope/pkg/internal/kerneltest"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/ruleset"
)

// Rules of native tables, and what iptables would write for them. "?" marks
// conditions that are not understood.
var nativeIPv4 = []struct{ nft, want string }{
	{"ip saddr 10.0.0.1 ip daddr 10.0.0.2 accept", "-s 10.0.0.1/32 -d 10.0.0.2/32 -j ACCEPT"},
	{"ip saddr 10.0.0.0/8 drop", "-s 10.0.0.0/8 -j DROP"},
	{"ip saddr != 10.0.0.0/9 drop", "! -s 10.0.0.0/9 -j DROP"},
	{"tcp sport 1 tcp dport 2 accept", "-p tcp -m tcp --sport 1 --dport 2 -j ACCEPT"},
	{"tcp dport 10-20 accept", "-p tcp -m tcp --dport 10:20 -j ACCEPT"},
	{"tcp dport != 10-20 accept", "-p tcp -m tcp ! --dport 10:20 -j ACCEPT"},
	{"tcp dport < 10 accept", "-p tcp -m tcp ! --dport 10:65535 -j ACCEPT"},
	{"tcp dport >= 10 accept", "-p tcp -m tcp --dport 10:65535 -j ACCEPT"},
	{"udp dport 53 counter drop", "-p udp -m udp --dport 53 -j DROP"},
	{"ip protocol icmp accept", "-p icmp -j ACCEPT"},
	{"iifname \"eth0\" oifname \"cali*\" accept", "-i eth0 -o cali+ -j ACCEPT"},
	{"meta mark & 0x4000 == 0x4000 accept", "-m mark --mark 0x4000/0x4000 -j ACCEPT"},
	{"meta mark != 7 accept", "-m mark ! --mark 0x7 -j ACCEPT"},
	{"meta mark set 7", "-j MARK --set-xmark 0x7/0xffffffff"},
	{"meta mark set meta mark or 0x4000", "-j MARK --set-xmark 0x4000/0x4000"},
	{"meta mark set meta mark xor 0x4000", "-j MARK --set-xmark 0x4000/0x0"},
	{"meta mark set meta mark and 0xffffbfff", "-j MARK --set-xmark 0x0/0x4000"},
	{"ct state new accept", "-m conntrack --ctstate NEW -j ACCEPT"},
	{"ct state established,related accept", "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"},
	{"ct state untracked accept", "-m conntrack --ctstate UNTRACKED -j ACCEPT"},
	{"fib daddr type local accept", "-m addrtype --dst-type LOCAL -j ACCEPT"},
	{"fib saddr type != local accept", "-m addrtype ! --src-type LOCAL -j ACCEPT"},
	{"limit rate 10/minute burst 10 packets log group 100", "-m limit --limit 10/min --limit-burst 10 -j NFLOG --nflog-group 100"},
	{"log prefix \"DPI|default\" group 1 snaplen 80 drop", "-j NFLOG --nflog-prefix \"DPI|default\" --nflog-group 1 --nflog-size 80 -j DROP"},
	{"log prefix \"x: \" level info", "-j LOG --log-prefix \"x: \" --log-level 6"},
	{"reject with icmp type host-unreachable", "-j REJECT --reject-with icmp-host-unreachable"},
	{"ip protocol tcp reject with tcp reset", "-p tcp -j REJECT --reject-with tcp-reset"},
	{"notrack", "-j NOTRACK"},
	{"meta nftrace set 1", "-j TRACE"},
	{"tcp flags syn / syn,ack accept", "-p tcp -m tcp --tcp-flags SYN,ACK SYN -j ACCEPT"},
	{"jump other", "-j other"},
	{"goto other", "-g other"},
	{"counter comment \"said so\"", "-m comment --comment \"said so\""},
	{"ip saddr { 10.0.0.1, 10.0.0.2 } accept", "ip saddr @__set0 -j ACCEPT"},
	{"ip saddr . ip daddr . meta l4proto . th dport != @four ip ttl != 3 accept", "ip saddr . ip daddr . meta l4proto . th dport != @four ? -j ACCEPT"},
	{"ip daddr @one meta l4proto . th dport vmap @to", "ip daddr @one meta l4proto . th dport vmap @to"},
	{"numgen random mod 2 vmap { 0 : jump other, 1 : drop }", "numgen random mod 2 vmap @__map0"},
	{"update @seen { ip saddr }", "update @seen { ip saddr }"},
	{"ct status dnat accept", "-m conntrack --ctstate DNAT -j ACCEPT"},
	{"ct status snat,dnat accept", "-m conntrack --ctstate SNAT,DNAT -j ACCEPT"},
	{"ct status seen-reply accept", "? -j ACCEPT"},
	{"ct mark 7 accept", "? -j ACCEPT"},
	{"ip dscp 10 accept", "? -j ACCEPT"},
	{"ip saddr 10.0.0.1 ip ttl 3 accept", "-s 10.0.0.1/32 ? -j ACCEPT"},
}

var nativeNAT = []struct{ nft, want string }{
	{"meta l4proto tcp dnat to 10.0.0.1:80", "-p tcp -j DNAT --to-destination 10.0.0.1:80"},
	{"dnat to 10.0.0.1", "-j DNAT --to-destination 10.0.0.1"},
	{"snat to 10.0.0.1-10.0.0.9 persistent", "-j SNAT --to-source 10.0.0.1-10.0.0.9 --persistent"},
	{"masquerade fully-random", "-j MASQUERADE --random-fully"},
	{"masquerade", "-j MASQUERADE"},
	{"meta l4proto tcp redirect to :15001", "-p tcp -j REDIRECT --to-ports 15001"},
	{"meta l4proto tcp dnat ip addr . port to numgen random mod 2 map { 0 : 10.0.0.1 . 80, 1 : 10.0.0.2 . 80 }", "-p tcp -j DNAT numgen random mod 2 map @__map1"},
	{"dnat to ip saddr map { 10.0.0.1 : 10.0.0.2, 10.0.0.3 : 10.0.0.4 }", "ip saddr @__map2 -j DNAT ip saddr map @__map2"},
}

func TestNativeRulesInIPTablesWords(t *testing.T) {
	kerneltest.Run(t, func(t *testing.T) {
		var want []string
		text := `table ip t {
	set one { type ipv4_addr; }
	set four { type ipv4_addr . ipv4_addr . inet_proto . inet_service; }
	set seen { type ipv4_addr; size 100; flags dynamic,timeout; timeout 1h; }
	map to { type inet_proto . inet_service : verdict; }
` + " chain other { }\n chain f {\n type filter hook prerouting priority -300;\n"
		for _, r := range nativeIPv4 {
			text += r.nft + "\n"
			want = append(want, r.want)
		}
		text += "}\n chain d {\n type nat hook prerouting priority -100;\n"
		for _, r := range nativeNAT[:2] {
			text += r.nft + "\n"
			want = append(want, r.want)
		}
		for _, r := range nativeNAT[5:] {
			text += r.nft + "\n"
			want = append(want, r.want)
		}
		text += "}\n chain s {\n type nat hook postrouting priority 100;\n"
		for _, r := range nativeNAT[2:5] {
			text += r.nft + "\n"
			want = append(want, r.want)
		}
		kerneltest.Exec(t, text+"}\n}\n", "nft", "-f", "-")
		rs, undecoded := kernelrules.NFT(t, netfilter.IPv4, nil)
		var got []string
		for _, name := range []string{"f", "d", "s"} {
			c := rs.Table("t").Chain(name)
			for i := range c.Rules {
				got = append(got, spec(&c.Rules[i]))
			}
		}
		if diff := gocmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
		if undecoded["expression/lookup"]+undecoded["expression/numgen"]+undecoded["expression/dynset"] != 0 || undecoded["expression/ct"] != 2 {
			t.Errorf("not understood: got %v", undecoded)
		}
	})
}

// spec is the rule's text with "?" for what is not understood.
func spec(r *ruleset.Rule) string {
	s := r.Spec(netfilter.IPv4)
	for _, m := range r.Matches {
		if u, ok := m.(ruleset.Unknown); ok {
			s = strings.Replace(s, u.String(), "?", 1)
		}
	}
	return s
}

func TestNativeIPv6Addresses(t *testing.T) {
	kerneltest.Run(t, func(t *testing.T) {
		kerneltest.Exec(t, `table ip6 t {
	chain d {
		type nat hook prerouting priority -100;
		ip6 saddr fd00::1 ip6 daddr fd00::2 meta l4proto tcp dnat to [fd00::3]:80
		ip6 daddr fd00::/61 ip6 nexthdr udp accept
	}
	chain f {
		type filter hook input priority 0;
		reject with icmpv6 type port-unreachable
		reject with icmpv6 type no-route
	}
}`, "nft", "-f", "-")
		rs, _ := kernelrules.NFT(t, netfilter.IPv6, nil)
		var got []string
		for _, name := range []string{"d", "f"} {
			c := rs.Table("t").Chain(name)
			for i := range c.Rules {
				got = append(got, c.Rules[i].Spec(netfilter.IPv6))
			}
		}
		want := []string{
			"-s fd00::1/128 -d fd00::2/128 -p tcp -j DNAT --to-destination [fd00::3]:80",
			"-d fd00::/61 -p udp -j ACCEPT",
			"-j REJECT --reject-with icmp6-port-unreachable",
			"-j REJECT --reject-with icmp6-no-route",
		}
		if diff := gocmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
		if v4, _ := kernelrules.NFT(t, netfilter.IPv4, nil); len(v4.Tables) != 0 {
			t.Errorf("IPv4 has tables of IPv6: %v", fmt.Sprint(v4.Tables[0].Name))
		}
	})
}
