// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	"github.com/svcscope/svcscope/pkg/internal/kerneltest"
)

// nativeTables are of nft's own: one that both families pass, with chains that only
// maps lead to, and others in the ways of firewalld and of kube-router since 2.11.
const nativeTables = `table inet mine {
	map pods {
		type ifname : verdict
		elements = { "x0" : goto pod-x0 }
	}
	chain pod-x0 {
		udp dport 7001 counter drop
		udp dport vmap { 7002 : jump deep, 7009 : accept }
	}
	chain deep {
		ct state new counter reject
	}
	chain other {
		counter accept
	}
	chain forward {
		type filter hook forward priority 0;
		udp dport 7010 jump other
		counter udp dport 7003 drop
		udp dport 7004 drop
		udp dport 7005 counter accept
		oifname vmap @pods
	}
}
table inet firewalld {
	chain filter_FORWARD {
		type filter hook forward priority 10;
		udp dport 7006 counter reject with icmpx type admin-prohibited
	}
}
table ip kube-router-filter-ipv4 {
	chain KUBE-POD-FW-AAAAAAAAAAAAAAAA {
		meta mark & 0x10000 != 0x10000 counter reject comment "shop/web-0 reject"
	}
	chain KUBE-ROUTER-FORWARD {
		type filter hook forward priority 10;
		ip daddr 10.99.0.7 udp dport 7007 counter jump KUBE-POD-FW-AAAAAAAAAAAAAAAA
	}
}
`

// TestDropsOfNativeTables counts what rules of nft's own tables refuse that have a
// counter of their own.
func TestDropsOfNativeTables(t *testing.T) {
	kerneltest.Run(t, func(t *testing.T) {
		wires(t)
		kerneltest.Exec(t, nativeTables, "nft", "-f", "-")
		cfg := testConfig()
		cfg.Policies = true
		s := newTestSampler(cfg)
		defer s.close()
		s.pass(t.Context())
		const name = "svcscope_drop_packets_total"
		own := []string{"reason=rule", "hook=forward", "owner=other"}
		for round := range 3 {
			for _, f := range []family{ipv4(), ipv6()} {
				for port := range uint16(8) {
					forwarded(t, f, 7001+port, 1)
				}
			}
			n := float64(round + 1)
			reaches(t, s, 4*n, name, own...) // 7001 and 7002
			reaches(t, s, 2*n, name, "owner=firewalld", "reason=rule", "hook=forward")
			reaches(t, s, n, name, "owner=kube-router", "reason=policy_default", "hook=forward")
			reaches(t, s, n, "svcscope_policy_drop_packets_total", "owner=kube-router", "pod_namespace=shop", "pod_name=web-0")
			reaches(t, s, 7*n, name)
		}

		// Rules take the place of others, and the map leads elsewhere.
		kerneltest.Exec(t, `flush chain inet mine other
add rule inet mine other counter drop
delete element inet mine pods { "x0" : goto pod-x0 }
add chain inet mine input { type filter hook input priority 0; }
add rule inet mine input goto pod-x0
`, "nft", "-f", "-")
		forwarded(t, ipv4(), 7010, 1)
		forwarded(t, ipv4(), 7001, 1) // which comes to no rule
		s.pass(t.Context())
		here := ipv4()
		here.node = netip.MustParseAddr("127.0.0.1")
		send(t, &here, 7001, 2)
		reaches(t, s, 2, name, "reason=rule", "hook=input", "owner=other")
		reaches(t, s, 13, name, own...)
		reaches(t, s, 24, name)
	})
}

// TestNoticesOfNativeTables: what their rules counted to their end is told, and rules
// without a counter do not end the listening.
func TestNoticesOfNativeTables(t *testing.T) {
	kerneltest.Run(t, func(t *testing.T) {
		f := ipv4()
		f.load(t, "nft")
		wires(t)
		kerneltest.Exec(t, nativeTables, "nft", "-f", "-")
		s := listening(t)
		for range 3 {
			for _, f := range []family{ipv4(), ipv6()} {
				forwarded(t, f, 7001, 3)
				forwarded(t, f, 7004, 1)
				forwarded(t, f, 7006, 1)
			}
			var b strings.Builder
			for _, table := range []string{"inet mine", "inet firewalld", "ip kube-router-filter-ipv4"} {
				fmt.Fprintf(&b, "delete table %s\n", table)
			}
			kerneltest.Exec(t, b.String()+nativeTables, "nft", "-f", "-")
		}
		reaches(t, s, 18, "svcscope_drop_packets_total", "owner=other", "hook=forward")
		reaches(t, s, 6, "svcscope_drop_packets_total", "owner=firewalld", "hook=forward")
		if !s.nft.notices.exact() {
			t.Error("it does not listen any more")
		}
	})
}

// TestTablesWithTooManyElements are told of, and their rules count all the same.
func TestTablesWithTooManyElements(t *testing.T) {
	kerneltest.Run(t, func(t *testing.T) {
		wires(t)
		var b strings.Builder
		const most = 100
		b.WriteString("table inet mine {\nmap many {\ntype ipv4_addr : verdict\nelements = {\n")
		for i := range most {
			fmt.Fprintf(&b, "10.100.0.%d : goto pod,\n", i)
		}
		b.WriteString("10.99.0.7 : goto pod\n}\n}\nchain pod {\nudp dport 7001 counter drop\n}\n")
		b.WriteString("chain forward {\ntype filter hook forward priority 0;\nip daddr vmap @many\n}\n}\n")
		kerneltest.Exec(t, b.String(), "nft", "-f", "-")
		l := &logs{}
		cfg := testConfig()
		cfg.Logger = slog.New(slog.NewTextHandler(l, nil))
		s := newTestSampler(cfg)
		s.nft.leads = most
		defer s.close()
		for range 2 {
			s.pass(t.Context())
		}
		if n := l.count("have too many elements"); n != 1 {
			t.Errorf("told %d times", n)
		}
		forwarded(t, ipv4(), 7001, 3)
		reaches(t, s, 3, "svcscope_drop_packets_total", "owner=other")

		// With fewer it is known again.
		kerneltest.Exec(t, "flush map inet mine many\nadd element inet mine many { 10.99.0.7 : goto pod }\n", "nft", "-f", "-")
		s.pass(t.Context())
		if n := l.count("are read again"); n != 1 {
			t.Errorf("told %d times", n)
		}
		s.pass(t.Context())
		forwarded(t, ipv4(), 7001, 2)
		reaches(t, s, 5, "svcscope_drop_packets_total", "owner=other")
	})
}
