// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/svcscope/svcscope/pkg/internal/kerneltest"
)

// earlyRules refuse where kube-proxy's nftables mode did before Kubernetes 1.34: before NAT.
const earlyRules = `table $F early {
	chain output {
		type filter hook output priority -110;
		ct state new $F daddr $V udp dport 54 reject
	}
	chain input {
		type filter hook input priority -110;
		ct state new fib daddr type local udp dport 30081 drop
	}
}
`

// TestTapEarly counts what is refused before NAT, which no later chain sees. That part of the
// table is made when there is something to count.
func TestTapEarly(t *testing.T) {
	for _, s := range tapScenes() {
		t.Run(s.vip, func(t *testing.T) {
			kerneltest.Run(t, func(t *testing.T) {
				s.load(t)
				family := "ip"
				if strings.Contains(s.vip, ":") {
					family = "ip6"
				}
				kerneltest.Exec(t, strings.NewReplacer("$F", family, "$V", s.vip).Replace(earlyRules), "nft", "-f", "-")
				tap := openTap(t, TapConfig{Log: TapLog{Group: 700, PerSecond: 100}})
				udp, node := s.key(s.vip, unix.IPPROTO_UDP, 54), s.key(s.unspecified(), unix.IPPROTO_UDP, 30081)
				late := TapWays{Refused: []TapKey{udp, node}, RefusedHere: []TapKey{udp, node}}
				if _, err := tap.Set(t.Context(), late); err != nil {
					t.Fatal(err)
				}
				sendTimes(t, s.vip, 54, 5, unix.EPERM)
				sendTimes(t, s.node, 30081, 3, nil)
				// It passes output on its way in: a way that is refused there alone must not count here.
				expectCounts(t, tap, map[TapKey]TapCount{udp: {}, node: {RefusedHere: 3}})
				if chains := kerneltest.Exec(t, "", "nft", "list", "table", "inet", TapTable); strings.Contains(chains, "chain early") {
					t.Error("the part before NAT is there although nothing is counted in it")
				}
				for range 2 {
					if _, err := tap.Set(t.Context(), TapWays{Early: []TapKey{node}, EarlyHere: []TapKey{udp}}); err != nil {
						t.Fatal(err)
					}
				}
				sendTimes(t, s.vip, 54, 7, unix.EPERM)
				sendTimes(t, s.node, 30081, 4, nil)
				expectCounts(t, tap, map[TapKey]TapCount{udp: {RefusedHere: 7}, node: {Refused: 4}})
				c, err := tap.Set(t.Context(), TapWays{})
				if err != nil || c.Ended[udp].RefusedHere != 7 || c.Ended[node].Refused != 4 {
					t.Errorf("ended %+v, %v", c.Ended, err)
				}
			})
		})
	}
}
