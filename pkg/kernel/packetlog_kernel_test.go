// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/svcscope/svcscope/pkg/internal/kerneltest"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/nflog"
)

// logRules log what goes to port 9 to group 100, in both families.
const logRules = `*filter
-A OUTPUT -p udp -m udp --dport 9 -j NFLOG --nflog-group 100 --nflog-prefix "DROP by policy shop/strict"
-A OUTPUT -p udp -m udp --dport 9 -j DROP
COMMIT
`

func loadLogRules(tb testing.TB) {
	tb.Helper()
	kerneltest.Exec(tb, logRules, "iptables-nft-restore")
	kerneltest.Exec(tb, logRules, "ip6tables-nft-restore")
}

func openPacketLog(tb testing.TB, cfg PacketLogConfig) *PacketLog {
	tb.Helper()
	l, err := OpenPacketLog(100, cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = l.Close() })
	return l
}

// drop sends datagrams to an address, each of which a rule drops.
func drop(tb testing.TB, to string, n int) {
	tb.Helper()
	c, err := net.Dial("udp", to)
	if err != nil {
		tb.Fatal(err)
	}
	defer c.Close()
	for range n {
		if _, err := c.Write([]byte("hello")); !errors.Is(err, unix.EPERM) {
			tb.Fatalf("got %v, want EPERM", err)
		}
	}
}

// readPackets reads until n have come or were lost.
func readPackets(tb testing.TB, l *PacketLog, n uint64, visit func(*nflog.Packet)) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), 10*time.Second)
	defer cancel()
	for s := l.Stats(); s.Received+s.Lost < n; s = l.Stats() {
		if err := l.Next(ctx, visit); err != nil {
			tb.Fatalf("%v, after %+v of %d", err, s, n)
		}
	}
}

// readFor reads what is there and what comes in that time.
func readFor(tb testing.TB, l *PacketLog, d time.Duration) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), d)
	defer cancel()
	for {
		err := l.Next(ctx, func(*nflog.Packet) {})
		if errors.Is(err, context.DeadlineExceeded) {
			return
		}
		if err != nil {
			tb.Fatal(err)
		}
	}
}

func TestPacketLog(t *testing.T) {
	kerneltest.Run(t, func(t *testing.T) {
		loadLogRules(t)
		l := openPacketLog(t, PacketLogConfig{})
		drop(t, "127.0.0.9:9", 100)
		drop(t, "[::1]:9", 3)
		got := map[string]int{}
		begin := time.Now()
		readPackets(t, l, 103, func(p *nflog.Packet) {
			h, err := nflog.ParseHeaders(p.Payload)
			if err != nil {
				t.Error(err)
			}
			got[fmt.Sprintf("%v group %d %v out %d %q protocol %d to %v", p.Family, p.Group, p.Hook, p.Out, p.Prefix, h.Protocol, h.Dst)]++
			if h.Family != p.Family || p.In != 0 || p.HasFlow && !l.HasFlows() {
				t.Errorf("got %+v with %+v", p, h)
			}
		})
		// The last ones wait for more: logTimeout.
		t.Logf("%v for 103 packets; their entries of connection tracking: %v", time.Since(begin), l.HasFlows())
		const told = ` group 100 OUTPUT out 1 "DROP by policy shop/strict" protocol 17 to `
		want := map[string]int{"IPv4" + told + "127.0.0.9:9": 100, "IPv6" + told + "[::1]:9": 3}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("packets (-want +got):\n%s", d)
		}
		if d := cmp.Diff(PacketLogStats{Received: 103}, l.Stats()); d != "" {
			t.Errorf("counts (-want +got):\n%s", d)
		}
	})
}

// TestPacketLogNative reads what an nft table of family inet logs: the packet's own
// family is told.
func TestPacketLogNative(t *testing.T) {
	kerneltest.Run(t, func(t *testing.T) {
		kerneltest.Exec(t, `table inet mine {
	chain out {
		type filter hook output priority 0;
		udp dport 9 log prefix "svcscope:deny:shop/strict" group 100
		udp dport 9 drop
	}
}`, "nft", "-f", "-")
		l := openPacketLog(t, PacketLogConfig{})
		drop(t, "127.0.0.9:9", 1)
		drop(t, "[::1]:9", 1)
		var got []netfilter.Family
		readPackets(t, l, 2, func(p *nflog.Packet) { got = append(got, p.Family) })
		if d := cmp.Diff([]netfilter.Family{netfilter.IPv4, netfilter.IPv6}, got); d != "" {
			t.Errorf("families (-want +got):\n%s", d)
		}
	})
}

// TestPacketLogLosesAndSays has nobody read while packets come: what did not fit is
// counted to the packet.
func TestPacketLogLosesAndSays(t *testing.T) {
	kerneltest.Run(t, func(t *testing.T) {
		loadLogRules(t)
		l := openPacketLog(t, PacketLogConfig{ReceiveBuffer: 16 << 10})
		sent := uint64(20000)
		drop(t, "127.0.0.9:9", int(sent))
		// Of the last that were lost only a later one's number tells.
		for n := l.Stats(); n.Received+n.Lost < sent; n = l.Stats() {
			readFor(t, l, 3*logTimeout*10*time.Millisecond)
			drop(t, "127.0.0.9:9", 1)
			sent++
			readFor(t, l, 3*logTimeout*10*time.Millisecond)
			if sent > 20010 {
				t.Fatalf("got %+v of %d", l.Stats(), sent)
			}
		}
		n := l.Stats()
		if n.Received+n.Lost != sent || n.Lost == 0 || n.Received < logThreshold || n.Undecoded != 0 {
			t.Errorf("got %+v of %d", n, sent)
		}
		t.Logf("%+v", n)
	})
}

// TestPacketLogIsOneReaders asks for a group that is held: the holder loses nothing.
func TestPacketLogIsOneReaders(t *testing.T) {
	kerneltest.Run(t, func(t *testing.T) {
		loadLogRules(t)
		if all, err := LogGroups(); err != nil || len(all) != 0 {
			t.Fatalf("got %v, %v, want no group", all, err)
		}
		l := openPacketLog(t, PacketLogConfig{})
		all, err := LogGroups()
		if err != nil || len(all) != 1 || all[0].Group != 100 || all[0].PortID == 0 {
			t.Fatalf("got %v, %v, want group 100", all, err)
		}
		held := &LogGroupHeldError{}
		if _, err := OpenPacketLog(100, PacketLogConfig{}); !errors.As(err, &held) || held.LogGroup != all[0] {
			t.Errorf("got %v, want a group that is held", err)
		}
		// Somebody takes it after the look.
		_, _, _, err = openLogSocket(100, 1<<20)
		if err = logRefusal("bind", 100, err); !errors.As(err, &held) || held.LogGroup != all[0] || !errors.Is(err, unix.EPERM) {
			t.Errorf("got %v, want EPERM of a group that is held", err)
		}
		if want := fmt.Sprintf("bind: NFLOG group 100 is held by netlink port %d", all[0].PortID); err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
		drop(t, "127.0.0.9:9", 2)
		readPackets(t, l, 2, func(*nflog.Packet) {})
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		again := openPacketLog(t, PacketLogConfig{}) // it is free at once
		drop(t, "127.0.0.9:9", 1)
		readPackets(t, again, 1, func(*nflog.Packet) {})
	})
}

// TestPacketLogChangesNoLogger looks for what PF_BIND would have changed: the logger
// of a family.
func TestPacketLogChangesNoLogger(t *testing.T) {
	kerneltest.Run(t, func(t *testing.T) {
		loadLogRules(t)
		before := loggers(t)
		l := openPacketLog(t, PacketLogConfig{})
		if d := cmp.Diff(before, loggers(t)); d != "" {
			t.Errorf("with the group (-before +now):\n%s", d)
		}
		_ = l.Close()
		if d := cmp.Diff(before, loggers(t)); d != "" {
			t.Errorf("after it (-before +now):\n%s", d)
		}
	})
}

func loggers(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("/proc/thread-self/net/netfilter/nf_log")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(b), "nfnetlink_log") {
		t.Fatalf("nobody logs:\n%s", b)
	}
	return string(b)
}

func TestPacketLogNeedsCapability(t *testing.T) {
	kerneltest.Run(t, func(t *testing.T) {
		loadLogRules(t)
		kerneltest.DropCapabilities(t)
		_, err := OpenPacketLog(100, PacketLogConfig{})
		refusal := &CapabilityError{}
		if !errors.As(err, &refusal) || refusal.Cap != "CAP_NET_ADMIN" {
			t.Errorf("got %v, want a lack of CAP_NET_ADMIN", err)
		}
	})
}
