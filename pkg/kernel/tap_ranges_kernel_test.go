// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"context"
	"encoding/binary"
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

// lan is the prefix number n of some; in IPv6 where v6.
func lan(v6 bool, n int) TapRange {
	if v6 {
		first := netip.MustParseAddr("fd80::").As16()
		binary.BigEndian.PutUint32(first[4:], uint32(n))
		last := first
		last[15] = 0xff
		return TapRange{netip.AddrFrom16(first), netip.AddrFrom16(last)}
	}
	first := [4]byte{11, byte(n >> 8), byte(n), 0}
	return TapRange{netip.AddrFrom4(first), netip.AddrFrom4([4]byte{11, first[1], first[2], 255})}
}

func lans(v6 bool, from, n int) (all []TapRange) {
	for i := range n {
		all = append(all, lan(v6, from+2*i)) // of which none is beside another one
	}
	return all
}

// opened counts what is in the sets of sources.
func opened(t *testing.T) (n int) {
	t.Helper()
	for _, set := range []string{"open-ipv4", "open-ipv6"} {
		text := kerneltest.Exec(t, "", "nft", "list", "set", "inet", TapTable, set)
		n += strings.Count(text, " . tcp . ") + strings.Count(text, " . udp . ")
	}
	return n
}

// TestTapManyRanges: a way may have as many sources as there is room for, and all of them may
// change at once.
func TestTapManyRanges(t *testing.T) {
	for _, s := range tapScenes() {
		t.Run(s.vip, func(t *testing.T) {
			kerneltest.Run(t, func(t *testing.T) {
				s.load(t)
				v6 := strings.Contains(s.vip, ":")
				kerneltest.Exec(t, "table inet refuse { chain output { type filter hook output priority 0; udp dport 443 drop; }; }", "nft", "-f", "-")
				tap := openTap(t, TapConfig{})
				lb := s.key(s.vip, unix.IPPROTO_UDP, 443)
				set := func(sources []TapRange) {
					t.Helper()
					if c, err := tap.Set(t.Context(), TapWays{Ranges: []TapRanges{{lb, sources}}}); err != nil || c.Left != 0 {
						t.Fatalf("%+v, %v", c, err)
					}
					if n := opened(t); n != len(sources) {
						t.Fatalf("%d sources are open, want %d", n, len(sources))
					}
				}
				set(lans(v6, 0, tapSources))
				sendFrom(t, s.node, s.vip, 443, 3, unix.EPERM)
				set(lans(v6, 1, tapSources)) // none of which was there
				sendFrom(t, s.node, s.vip, 443, 2, unix.EPERM)
				expectCounts(t, tap, map[TapKey]TapCount{lb: {Outside: 5}})
				self := netip.MustParseAddr(s.node)
				set(append(lans(v6, 5, tapSources-1), TapRange{self, self}))
				sendFrom(t, s.node, s.vip, 443, 4, unix.EPERM)
				expectCounts(t, tap, map[TapKey]TapCount{lb: {Outside: 5}})
				if c, err := tap.Set(t.Context(), TapWays{}); err != nil || c.Ended[lb].Outside != 5 || opened(t) != 0 {
					t.Errorf("%+v, %v, %d are left", c, err, opened(t))
				}
			})
		})
	}
}

// TestTapRangesAreBounded: a way that has no room for all of its sources is left, and told; the
// others are the same at each call.
func TestTapRangesAreBounded(t *testing.T) {
	kerneltest.Run(t, func(t *testing.T) {
		tap := openTap(t, TapConfig{Sources: 10})
		way := func(i, sources int) TapRanges {
			return TapRanges{TapKey{netip.AddrFrom4([4]byte{10, 96, 0, byte(i)}), unix.IPPROTO_TCP, 80}, lans(false, 100*i, sources)}
		}
		odd := way(4, 0)
		odd.Sources = []TapRange{{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.126")}} // 12 prefixes
		for _, c := range []struct {
			ways []TapRanges
			want []int // which of them are counted
			open int
		}{
			{[]TapRanges{way(3, 6), way(2, 7), way(1, 4)}, []int{1, 3}, 10},
			{[]TapRanges{way(1, 4), way(2, 7), way(3, 6)}, []int{1, 3}, 10},
			{[]TapRanges{way(1, 1), way(2, 7), way(3, 6)}, []int{1, 2}, 8}, // one needs less, so that another one has room
			{[]TapRanges{way(1, 9), way(2, 1)}, []int{1, 2}, 10},
			{[]TapRanges{odd, way(5, 10)}, []int{5}, 10},
			{nil, nil, 0},
		} {
			change, err := tap.Set(t.Context(), TapWays{Ranges: c.ways})
			if err != nil || change.Left != len(c.ways)-len(c.want) {
				t.Errorf("%d left of %d, want %d: %v", change.Left, len(c.ways), len(c.ways)-len(c.want), err)
			}
			all, err := tap.Counts(t.Context())
			if err != nil || len(all) != len(c.want) || opened(t) != c.open {
				t.Errorf("%v counted with %d sources, want %v with %d: %v", all, opened(t), c.want, c.open, err)
			}
			for _, i := range c.want {
				if _, ok := all[way(i, 0).TapKey]; !ok {
					t.Errorf("way %d is not counted", i)
				}
			}
		}
		if text := kerneltest.Exec(t, "", "nft", "list", "set", "inet", TapTable, "open-ipv6"); !strings.Contains(text, "size 10\n") {
			t.Errorf("the kernel does not know how large it may be:\n%s", text)
		}
	})
}

// TestPrefixesOfRanges compares with prefixes that are taken off a range one by one.
func TestPrefixesOfRanges(t *testing.T) {
	one := func(first, last string, want int) {
		t.Helper()
		r := TapRange{netip.MustParseAddr(first), netip.MustParseAddr(last)}
		if n := r.prefixes(); n != want {
			t.Errorf("%s-%s: %d, want %d", first, last, n, want)
		}
	}
	one("0.0.0.0", "255.255.255.255", 1)
	one("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 1)
	one("::1", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe", 254)
	one("fd00::1", "fd00::1", 1)
	for first := range 64 {
		for last := first; last < 64; last++ {
			n := 0
			for at := first; at <= last; n++ {
				size := 1
				for at%(2*size) == 0 && at+2*size-1 <= last {
					size *= 2
				}
				at += size
			}
			one(fmt.Sprintf("10.0.0.%d", first), fmt.Sprintf("10.0.0.%d", last), n)
			one(fmt.Sprintf("fd00::%x", first), fmt.Sprintf("fd00::%x", last), n)
		}
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
