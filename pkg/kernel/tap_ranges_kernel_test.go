// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/svcscope/svcscope/pkg/internal/kerneltest"
	"github.com/svcscope/svcscope/pkg/netfilter/nflog"
)

// rangesRules are as the nftables mode's for loadBalancerSourceRanges.
const rangesRules = `table $F firewall {
	chain output {
		type filter hook output priority -110;
		ct state new $F daddr $V udp dport 443 $F saddr != { $N, $R } drop
	}
}
`

// TestTapRanges counts what comes from sources that a way is not open to, and logs it with a
// prefix of its own.
func TestTapRanges(t *testing.T) {
	for _, s := range tapScenes() {
		t.Run(s.vip, func(t *testing.T) {
			kerneltest.Run(t, func(t *testing.T) {
				s.load(t)
				family, bits, other, in, from, to := "ip", 32, "10.78.0.1", "10.79.0.7", "10.79.0.0", "10.79.0.255"
				if strings.Contains(s.vip, ":") {
					family, bits, other, in, from, to = "ip6", 128, "fd78::1", "fd79::7", "fd79::", "fd79::ff"
				}
				for _, a := range []string{other, in} {
					kerneltest.Exec(t, "", "ip", "addr", "add", fmt.Sprintf("%s/%d", a, bits), "dev", "lo", "nodad")
				}
				kerneltest.Exec(t, strings.NewReplacer("$F", family, "$V", s.vip, "$N", s.node, "$R", from+"-"+to).Replace(rangesRules), "nft", "-f", "-")
				const group, prefix = 700, "here:ranges"
				tap := openTap(t, TapConfig{Log: TapLog{Group: group, PerSecond: 100, RangesPrefix: prefix}})
				l, err := OpenPacketLog(group, PacketLogConfig{})
				if err != nil {
					t.Fatal(err)
				}
				defer l.Close()
				addr := netip.MustParseAddr
				lb := s.key(s.vip, unix.IPPROTO_UDP, 443)
				open := []TapRange{{addr(from), addr(to)}, {addr(s.node), addr(s.node)}, {addr(in), addr(in)}} // of which one is in another
				set := func(sources []TapRange) {
					t.Helper()
					if c, err := tap.Set(t.Context(), TapWays{Ranges: []TapRanges{{lb, sources}}}); err != nil || c.Left != 0 {
						t.Fatalf("%+v, %v", c, err)
					}
				}
				set(open)
				sendFrom(t, s.node, s.vip, 443, 3, nil)
				sendFrom(t, in, s.vip, 443, 2, nil)
				sendFrom(t, other, s.vip, 443, 6, unix.EPERM)
				sendFrom(t, other, s.vip, 444, 1, nil)
				expectCounts(t, tap, map[TapKey]TapCount{lb: {Outside: 6}})
				expectPrefix(t, l, prefix, 6)
				set(append(slices.Clone(open), TapRange{addr(other), addr(other)}))
				sendFrom(t, other, s.vip, 443, 4, unix.EPERM) // the rule is not told
				expectCounts(t, tap, map[TapKey]TapCount{lb: {Outside: 6}})
				set(open)
				sendFrom(t, other, s.vip, 443, 1, unix.EPERM)
				expectCounts(t, tap, map[TapKey]TapCount{lb: {Outside: 7}})
				c, err := tap.Set(t.Context(), TapWays{})
				if err != nil || c.Ended[lb].Outside != 7 {
					t.Errorf("ended %+v, %v", c.Ended, err)
				}
				if n := strings.Count(kerneltest.Exec(t, "", "nft", "list", "set", "inet", TapTable, "open-"+map[string]string{"ip": "ipv4", "ip6": "ipv6"}[family]), s.vip); n != 0 {
					t.Errorf("%d sources are left", n)
				}
			})
		})
	}
}

// sendFrom sends n datagrams of one flow from an address, each with this result.
func sendFrom(t *testing.T, from, host string, port, n int, want error) {
	t.Helper()
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(from), 0)))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range n {
		if _, err := c.WriteToUDPAddrPort([]byte("x"), netip.AddrPortFrom(netip.MustParseAddr(host), uint16(port))); !errors.Is(err, want) {
			t.Fatalf("from %s: got %v, want %v", from, err, want)
		}
	}
}

// expectPrefix reads until so many packets were logged, all of them with a prefix.
func expectPrefix(t *testing.T, l *PacketLog, prefix string, n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for got := 0; got < n; {
		err := l.Next(ctx, func(p *nflog.Packet) {
			if got++; string(p.Prefix) != prefix {
				t.Errorf("a packet with the prefix %q", p.Prefix)
			}
		})
		if err != nil {
			t.Fatalf("%d packets were logged, want %d: %v", got, n, err)
		}
	}
}

// TestMergedRanges: none overlaps another one.
func TestMergedRanges(t *testing.T) {
	r := func(first, last string) TapRange {
		return TapRange{netip.MustParseAddr(first), netip.MustParseAddr(last)}
	}
	got := merged([]TapRange{r("10.0.0.5", "10.0.0.9"), r("10.0.0.0", "10.0.0.6"), r("10.0.0.2", "10.0.0.3"), r("10.0.0.10", "10.0.0.10"), r("fd00::", "fd00::1")})
	want := []TapRange{r("10.0.0.0", "10.0.0.9"), r("10.0.0.10", "10.0.0.10"), r("fd00::", "fd00::1")}
	if d := cmp.Diff(want, got, sameAddr); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}
