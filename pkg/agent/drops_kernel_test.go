// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/svcscope/svcscope/pkg/internal/kerneltest"
)

// Ports that rules of dropScene refuse.
const (
	ownPort    = 7001 // of somebody, in a chain of its own
	podPort    = 7002 // of kube-router, in a pod's chain
	rawPort    = 7003 // of somebody, in raw
	calicoPort = 7004 // of a policy's chain
)

// loadDrops adds rules of others that refuse packets; version is in the name of
// kube-router's chain, as it writes them.
func loadDrops(t *testing.T, f *family, backend, version string) {
	t.Helper()
	f.restore(t, backend, fmt.Sprintf(`*filter
:mine - [0:0]
:KUBE-POD-FW-AAAAAAAAAAAAAAA%[1]s - [0:0]
:cali-pi-shop - [0:0]
-A OUTPUT -p udp -m udp --dport %[2]d -j mine
-A OUTPUT -p udp -m udp --dport %[3]d -j KUBE-POD-FW-AAAAAAAAAAAAAAA%[1]s
-A OUTPUT -p udp -m udp --dport %[5]d -j cali-pi-shop
-A mine -j DROP
-A KUBE-POD-FW-AAAAAAAAAAAAAAA%[1]s -m comment --comment "shop/web-0 reject" -m mark ! --mark 0x10000/0x10000 -j REJECT
-A cali-pi-shop -p tcp -m comment --comment "cali:abcdefghijklmnop" -m comment --comment "NetworkPolicy shop/strict ingress" -j RETURN
-A cali-pi-shop -m comment --comment "cali:abcdefghijklmnoq" -j DROP
COMMIT
*raw
-A OUTPUT -p udp -m udp --dport %[4]d -j DROP
COMMIT
`, version, ownPort, podPort, rawPort, calicoPort))
}

// send sends n datagrams to a port of the node, which somebody refuses. The socket is
// not connected: it would send none after it has heard of a refusal.
func send(t *testing.T, f *family, port, n int) {
	t.Helper()
	c, err := net.ListenPacket("udp", net.JoinHostPort(f.node.String(), "0"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range n {
		_, _ = c.WriteTo([]byte("x"), net.UDPAddrFromAddrPort(netip.AddrPortFrom(f.node, uint16(port)))) // not permitted, where it is dropped
	}
}

// TestDropsOfAnyone counts packets that rules of others refuse, each once, and whose
// they are; through kube-router's way to write the table anew, too.
func TestDropsOfAnyone(t *testing.T) {
	for _, backend := range []string{"nft", "legacy"} {
		for _, f := range []family{ipv4(), ipv6()} {
			t.Run(backend+" "+f.name, func(t *testing.T) {
				kerneltest.Run(t, func(t *testing.T) { dropsOfAnyone(t, f, backend) })
			})
		}
	}
}

func dropsOfAnyone(t *testing.T, f family, backend string) {
	f.load(t, backend)
	loadDrops(t, &f, backend, "A")
	cfg := testConfig()
	cfg.Policies = true
	s := newTestSampler(cfg)
	defer s.close()
	for range 3 {
		s.pass(t.Context())
	}
	want := map[string]float64{"reason=rule owner=other": 0, "reason=policy_default owner=kube-router": 0, "reason=policy_rule owner=calico": 0, "reason=no_endpoints owner=kube-proxy": 0}
	more := func() {
		send(t, &f, ownPort, 3)
		send(t, &f, podPort, 5)
		send(t, &f, rawPort, 7)
		send(t, &f, calicoPort, 2)
		if c, err := net.Dial("tcp", net.JoinHostPort(f.ghost.String(), fmt.Sprint(vipPort))); err == nil {
			_ = c.Close()
			t.Error("a Service without endpoints answers")
		}
		want["reason=rule owner=other"] += 10
		want["reason=policy_default owner=kube-router"] += 5
		want["reason=policy_rule owner=calico"] += 2
	}
	judge := func(when string) {
		t.Helper()
		s.pass(t.Context())
		m := page(t, s)
		// A client may send its SYN again: the rule knows.
		ghost := m.sum("svcscope_service_rejected_packets_total", "service_name=ghost")
		want["reason=no_endpoints owner=kube-proxy"] = ghost
		sum := 0.0
		for labels, n := range want {
			sum += n
			if got := m.sum("svcscope_drop_packets_total", append(strings.Fields(labels), "hook=output")...); got != n {
				t.Errorf("%s: %s: %v, want %v", when, labels, got, n)
			}
		}
		if got := m.sum("svcscope_drop_packets_total"); got != sum || ghost == 0 {
			t.Errorf("%s: %v packets in all, %v toward ghost; want %v", when, got, ghost, sum)
		}
		if got := m.sum("svcscope_policy_drop_packets_total", "pod_namespace=shop", "pod_name=web-0", "owner=kube-router"); got != want["reason=policy_default owner=kube-router"] {
			t.Errorf("%s: of the pod: %v", when, got)
		}
		if got := m.sum("svcscope_policy_drop_packets_total", "policy_namespace=shop", "policy_name=strict", "direction=ingress"); got != want["reason=policy_rule owner=calico"] {
			t.Errorf("%s: of the policy: %v", when, got)
		}
	}
	more()
	judge("at first")
	more()
	judge("with rules that stand")

	// kube-router writes all of filter, without counters, its chains by other names.
	saved := kerneltest.Exec(t, "", f.iptables+"-"+backend+"-save", "-t", "filter")
	kerneltest.Exec(t, strings.ReplaceAll(saved, "KUBE-POD-FW-AAAAAAAAAAAAAAAA", "KUBE-POD-FW-AAAAAAAAAAAAAAAB"), f.iptables+"-"+backend+"-restore", "-w", "5", "-T", "filter")
	s.pass(t.Context())
	more()
	judge("after kube-router's restore")
	more()
	judge("and after that")
}

// TestNoDropIsLostWhereItListens: what rules refused between the last reading and
// their end is told by the notices.
func TestNoDropIsLostWhereItListens(t *testing.T) {
	kerneltest.Run(t, func(t *testing.T) {
		f := ipv4()
		f.load(t, "nft")
		loadDrops(t, &f, "nft", "A")
		s := listening(t)
		for _, version := range []string{"B", "C", "D"} {
			send(t, &f, ownPort, 3)
			send(t, &f, podPort, 5)
			saved := kerneltest.Exec(t, "", "iptables-nft-save", "-t", "filter")
			at := strings.Index(saved, "KUBE-POD-FW-AAAAAAAAAAAAAAA")
			old := saved[at : at+len("KUBE-POD-FW-AAAAAAAAAAAAAAAA")]
			kerneltest.Exec(t, strings.ReplaceAll(saved, old, old[:len(old)-1]+version), "iptables-nft-restore", "-w", "5", "-T", "filter")
			send(t, &f, ownPort, 2)
			send(t, &f, podPort, 1)
		}
		s.pass(t.Context())
		s.pass(t.Context())
		for _, d := range s.drops.Totals(s.names.Exists) {
			t.Logf("%+v", d)
		}
		m := page(t, s)
		if got := m.sum("svcscope_drop_packets_total", "owner=other"); got != 15 {
			t.Errorf("%v of a chain that stays, want 15", got)
		}
		if got := m.sum("svcscope_drop_packets_total", "owner=kube-router"); got != 18 {
			t.Errorf("%v of chains whose names change, want 18", got)
		}
		if !s.nft.notices.exact() {
			t.Error("it does not listen any more")
		}
	})
}
