// SPDX-License-Identifier: Apache-2.0

package ruleset_test

import (
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/svcscope/svcscope/pkg/internal/kernelrules"
	"github.com/svcscope/svcscope/pkg/internal/kerneltest"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/ruleset"
)

// TestInetRules of tables that packets of both families pass: what an address is
// depends on what the rule has asked for before.
func TestInetRules(t *testing.T) {
	rules := []struct{ nft, want string }{
		{"ip saddr 10.0.0.1 counter drop", "meta nfproto ipv4 -s 10.0.0.1/32 -j DROP"},
		{"ip6 saddr fd00::1 ip6 daddr fd00::2 counter drop", "meta nfproto ipv6 -s fd00::1/128 -d fd00::2/128 -j DROP"},
		{"meta nfproto != ipv6 counter drop", "! meta nfproto ipv6 -j DROP"},
		{"tcp dport 22 counter drop", "-p tcp -m tcp --dport 22 -j DROP"},
		{"ct state invalid counter drop", "-m conntrack --ctstate INVALID -j DROP"},
		{"counter reject with icmpx type admin-prohibited", "-j REJECT --reject-with icmp-admin-prohibited"},
		{"ip6 saddr fd00::1 counter reject with icmpx type admin-prohibited", "meta nfproto ipv6 -s fd00::1/128 -j REJECT --reject-with icmp6-adm-prohibited"},
	}
	kerneltest.Run(t, func(t *testing.T) {
		var b strings.Builder
		var want []string
		for _, r := range rules {
			b.WriteString(r.nft + "\n")
			want = append(want, r.want)
		}
		kerneltest.Exec(t, "table inet t {\nchain c {\ntype filter hook forward priority 0;\n"+b.String()+"}\n}\n", "nft", "-f", "-")
		rs := kernelrules.Mirrored(t, netfilter.FamilyINet)
		c := rs.Table("t").Chain("c")
		var got []string
		for i := range c.Rules {
			got = append(got, c.Rules[i].Spec(netfilter.FamilyINet))
			if !c.Rules[i].HasCounter || c.Rules[i].CountsMore {
				t.Errorf("%s: it counts otherwise", rules[i].nft)
			}
		}
		if d := gocmp.Diff(want, got); d != "" {
			t.Errorf("(-want +got):\n%s", d)
		}
	})
}

// TestCountsMore of rules whose counter comes before a condition.
func TestCountsMore(t *testing.T) {
	rules := []struct {
		nft  string
		want bool
	}{
		{"tcp dport 22 counter drop", false},
		{"counter tcp dport 22 drop", true},
		{"tcp dport 22 counter limit rate 1/second drop", true},
		{"limit rate 1/second counter drop", false},
		{"tcp dport 22 counter log group 5 drop", false},
		{"counter ip saddr { 10.0.0.1, 10.0.0.2 } drop", true},
		{"tcp dport 22 drop", false},
	}
	kerneltest.Run(t, func(t *testing.T) {
		var b strings.Builder
		for _, r := range rules {
			b.WriteString(r.nft + "\n")
		}
		kerneltest.Exec(t, "table ip t {\nchain c {\n"+b.String()+"}\n}\n", "nft", "-f", "-")
		rs, _ := kernelrules.NFT(t, netfilter.IPv4, nil)
		c := rs.Table("t").Chain("c")
		for i := range c.Rules {
			if got := c.Rules[i].CountsMore; got != rules[i].want {
				t.Errorf("%s: got %v", rules[i].nft, got)
			}
		}
	})
}

// TestReachThroughVerdictMaps with a name and without.
func TestReachThroughVerdictMaps(t *testing.T) {
	kerneltest.Run(t, func(t *testing.T) {
		kerneltest.Exec(t, `table ip t {
	map to {
		type ifname : verdict
		elements = { "cali1" : goto one, "cali2" : goto two, "cali3" : goto two, "cali4" : drop }
	}
	map empty {
		type ifname : verdict
	}
	map numbers {
		type ipv4_addr : mark
		elements = { 10.0.0.1 : 7 }
	}
	chain one {
		counter drop
	}
	chain two {
		counter drop
		jump deep
	}
	chain deep {
		counter drop
	}
	chain three {
		counter drop
	}
	chain alone {
		counter drop
	}
	chain forward {
		type filter hook forward priority 0;
		oifname vmap @to
	}
	chain input {
		type filter hook input priority 0;
		tcp dport vmap { 22 : jump three, 23 : drop, 24-30 : jump two }
		iifname vmap @empty
	}
}`, "nft", "-f", "-")
		table := kernelrules.Mirrored(t, netfilter.IPv4).Table("t")
		if d := gocmp.Diff([]string{"one", "two"}, table.Maps["to"]); d != "" || len(table.Maps) != 2 {
			t.Errorf("maps %v (-want +got):\n%s", table.Maps, d)
		}
		got := make(map[string]string)
		for c, hooks := range table.Reach() {
			got[c.Name] = hooks.String()
		}
		want := map[string]string{
			"forward": "forward", "input": "input", "one": "forward", "two": "input+forward", "deep": "input+forward", "three": "input",
		}
		if d := gocmp.Diff(want, got); d != "" {
			t.Errorf("(-want +got):\n%s", d)
		}
		rule := table.Chain("forward").Rules[0]
		if rule.Action.Kind != ruleset.Map || rule.Spec(netfilter.IPv4) != "oifname vmap @to" {
			t.Errorf("got %q", rule.Spec(netfilter.IPv4))
		}
	})
}
