// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/svcscope/svcscope/pkg/internal/kerneltest"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/nflog"
)

func openTap(t *testing.T, cfg TapConfig) *Tap {
	t.Helper()
	tap, err := OpenTap(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tap.Close() })
	return tap
}

// tapRules send what comes for Services to a port of this host, and drop what is for one of
// them. $V, $N and $P are addresses of a Service, of the node and of loopback.
const tapRules = `*nat
-A OUTPUT -d $V -p tcp -m tcp --dport 80 -j DNAT --to-destination $P:8080
-A OUTPUT -d $V -p udp -m udp --dport 53 -j DNAT --to-destination $P:8080
-A OUTPUT -d $V -p tcp -m tcp --dport 81 -j DNAT --to-destination $P:8081
-A OUTPUT -d $N -p tcp -m tcp --dport 30080 -j DNAT --to-destination $P:8080
COMMIT
*filter
-A OUTPUT -p tcp -m tcp --dport 8081 -j DROP
COMMIT
`

// tapScene is a Service in one family, on a node that is this namespace.
type tapScene struct{ iptables, vip, node, loopback string }

func tapScenes() []tapScene {
	return []tapScene{
		{"iptables-nft-restore", "10.96.0.10", "10.77.0.1", "127.0.0.1"},
		{"ip6tables-nft-restore", "fd96::10", "fd77::1", "::1"},
	}
}

// load makes the scene; TCP is served at 8080.
func (s *tapScene) load(t *testing.T) {
	t.Helper()
	bits, endpoint := 32, s.loopback
	if strings.Contains(s.vip, ":") {
		bits, endpoint = 128, "["+s.loopback+"]"
	}
	kerneltest.Exec(t, "", "ip", "addr", "add", fmt.Sprintf("%s/%d", s.node, bits), "dev", "lo", "nodad")
	kerneltest.Exec(t, "", "ip", "route", "add", fmt.Sprintf("%s/%d", s.vip, bits), "dev", "lo")
	kerneltest.Exec(t, strings.NewReplacer("$V", s.vip, "$N", s.node, "$P", endpoint).Replace(tapRules), s.iptables)
	l, err := net.Listen("tcp", net.JoinHostPort(s.loopback, "8080"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for c, err := l.Accept(); err == nil; c, err = l.Accept() {
			_ = c.Close()
		}
	}()
}

func (s *tapScene) key(addr string, protocol uint8, port uint16) TapKey {
	return TapKey{netip.MustParseAddr(addr), protocol, port}
}

func (s *tapScene) unspecified() string {
	if strings.Contains(s.vip, ":") {
		return "::"
	}
	return "0.0.0.0"
}

func dialTimes(t *testing.T, network, host, port string, n int) {
	t.Helper()
	for range n {
		c, err := net.DialTimeout(network, net.JoinHostPort(host, port), 5*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		if network == "udp" {
			if _, err := c.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
		} else {
			_ = c.(*net.TCPConn).SetLinger(0)
		}
		_ = c.Close()
	}
}

// TestTapCounts counts attempts and connections by each way; what is dropped after it was
// sent to an endpoint is both.
func TestTapCounts(t *testing.T) {
	for _, s := range tapScenes() {
		t.Run(s.vip, func(t *testing.T) {
			kerneltest.Run(t, func(t *testing.T) {
				s.load(t)
				tap := openTap(t, TapConfig{})
				web, dns := s.key(s.vip, unix.IPPROTO_TCP, 80), s.key(s.vip, unix.IPPROTO_UDP, 53)
				dropped, none := s.key(s.vip, unix.IPPROTO_TCP, 81), s.key(s.vip, unix.IPPROTO_TCP, 82)
				node := s.key(s.unspecified(), unix.IPPROTO_TCP, 30080)
				if c, err := tap.Set(t.Context(), TapWays{Services: []TapKey{web, dns, dropped, none, node, web}}); c.Left != 0 || err != nil {
					t.Fatalf("%d left, %v", c.Left, err)
				}
				dialTimes(t, "tcp", s.vip, "80", 5)
				dialTimes(t, "udp", s.vip, "53", 3)
				dialTimes(t, "tcp", s.node, "30080", 4)
				if c, err := net.DialTimeout("tcp", net.JoinHostPort(s.vip, "81"), 100*time.Millisecond); err == nil {
					_ = c.Close()
					t.Error("what is dropped is connected")
				}
				want := map[TapKey]TapCount{web: {Attempts: 5, Connections: 5}, dns: {Attempts: 3, Connections: 3}, dropped: {Attempts: 1, Connections: 1}, none: {}, node: {Attempts: 4, Connections: 4}}
				expectCounts(t, tap, want)

				// Others come and go: those that stay go on, and those that go tell their last.
				other := s.key(s.vip, unix.IPPROTO_SCTP, 7)
				dialTimes(t, "udp", s.vip, "53", 1)
				c, err := tap.Set(t.Context(), TapWays{Services: []TapKey{other, web, node}})
				if err != nil {
					t.Fatal(err)
				}
				if d := cmp.Diff(map[TapKey]TapCount{dns: {Attempts: 4, Connections: 4}, dropped: {Attempts: 1, Connections: 1}, none: {}}, c.Ended, sameAddr); d != "" {
					t.Errorf("ended (-want +got):\n%s", d)
				}
				dialTimes(t, "tcp", s.vip, "80", 2)
				expectCounts(t, tap, map[TapKey]TapCount{web: {Attempts: 7, Connections: 7}, node: {Attempts: 4, Connections: 4}, other: {}})
			})
		})
	}
}

func expectCounts(t *testing.T, tap *Tap, want map[TapKey]TapCount) {
	t.Helper()
	got, err := tap.Counts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got, sameAddr); d != "" {
		t.Errorf("counts (-want +got):\n%s", d)
	}
}

var sameAddr = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })

// refusedRules are as kube-proxy's for Services without endpoints: what is refused is
// new, and sent to the Service's address.
const refusedRules = `*filter
-A OUTPUT -d $V -p tcp -m conntrack --ctstate NEW -m tcp --dport 82 -j REJECT
-A OUTPUT -d $V -p udp -m conntrack --ctstate NEW -m udp --dport 54 -j DROP
-A INPUT -p udp -m addrtype --dst-type LOCAL -m conntrack --ctstate NEW -m udp --dport 30081 -j REJECT
COMMIT
`

// TestTapRefused counts all packets by ways that are refused, and logs some of them to its
// group; of a way that is not refused any more it tells the last.
func TestTapRefused(t *testing.T) {
	const group, logged = 700, 3
	for _, s := range tapScenes() {
		t.Run(s.vip, func(t *testing.T) {
			kerneltest.Run(t, func(t *testing.T) {
				s.load(t)
				kerneltest.Exec(t, strings.NewReplacer("$V", s.vip).Replace(refusedRules), s.iptables, "--noflush")
				tap := openTap(t, TapConfig{Log: TapLog{Group: group, PerSecond: logged}})
				l, err := OpenPacketLog(group, PacketLogConfig{})
				if err != nil {
					t.Fatal(err)
				}
				defer l.Close()
				begin := time.Now()
				web := s.key(s.vip, unix.IPPROTO_TCP, 80)
				tcp, udp, node := s.key(s.vip, unix.IPPROTO_TCP, 82), s.key(s.vip, unix.IPPROTO_UDP, 54), s.key(s.unspecified(), unix.IPPROTO_UDP, 30081)
				if _, err := tap.Set(t.Context(), TapWays{Services: []TapKey{web, tcp}, Refused: []TapKey{tcp, udp, node, web}, RefusedHere: []TapKey{tcp, udp, web}}); err != nil {
					t.Fatal(err)
				}
				dialTimes(t, "tcp", s.vip, "80", 2) // it has an endpoint
				sendTimes(t, s.vip, 54, 60, unix.EPERM)
				sendTimes(t, s.node, 30081, 7, nil) // which passes output, and is refused when it comes in
				for range 2 {
					if c, err := net.DialTimeout("tcp", net.JoinHostPort(s.vip, "82"), 300*time.Millisecond); err == nil {
						_ = c.Close()
						t.Error("what is refused is connected")
					}
				}
				expectCounts(t, tap, map[TapKey]TapCount{web: {Attempts: 2, Connections: 2}, tcp: {Attempts: 2, RefusedHere: 2}, udp: {RefusedHere: 60}, node: {Refused: 7}})
				c, err := tap.Set(t.Context(), TapWays{Services: []TapKey{web, tcp}, Refused: []TapKey{tcp}, RefusedHere: []TapKey{tcp}})
				if err != nil {
					t.Fatal(err)
				}
				if d := cmp.Diff(map[TapKey]TapCount{udp: {RefusedHere: 60}, node: {Refused: 7}, web: {}}, c.Ended, sameAddr); d != "" {
					t.Errorf("ended (-want +got):\n%s", d)
				}
				sendTimes(t, s.vip, 54, 1, unix.EPERM)
				expectCounts(t, tap, map[TapKey]TapCount{web: {Attempts: 2, Connections: 2}, tcp: {Attempts: 2, RefusedHere: 2}})
				expectLogged(t, l, 2*logged, begin)
			})
		})
	}
}

// sendTimes sends n datagrams of one flow, each with this result.
func sendTimes(t *testing.T, host string, port, n int, want error) {
	t.Helper()
	c, err := net.ListenUDP("udp", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range n {
		if _, err := c.WriteToUDPAddrPort([]byte("x"), netip.AddrPortFrom(netip.MustParseAddr(host), uint16(port))); !errors.Is(err, want) {
			t.Fatalf("got %v, want %v", err, want)
		}
	}
}

// expectLogged reads packets of the tap until all that its two limits let pass were logged,
// and no more than these may in that time.
func expectLogged(t *testing.T, l *PacketLog, least int, begin time.Time) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	n := 0
	next := func(ctx context.Context) error {
		return l.Next(ctx, func(p *nflog.Packet) {
			n++
			if string(p.Prefix) != TapTable || p.Hook != netfilter.HookOutput && p.Hook != netfilter.HookInput {
				t.Errorf("prefix %q at %v", p.Prefix, p.Hook)
			}
		})
	}
	for n < least {
		if err := next(ctx); err != nil {
			t.Fatalf("%d packets were logged, want %d: %v", n, least, err)
		}
	}
	for { // what else has come
		idle, stop := context.WithTimeout(ctx, 300*time.Millisecond) // longer than the kernel waits for more
		err := next(idle)
		stop()
		if err != nil {
			break
		}
	}
	if most := least + int(float64(least)*time.Since(begin).Seconds()) + 1; n > most {
		t.Errorf("%d packets were logged, want at most %d", n, most)
	}
}

// TestTapTable compares the table with what nft makes of it.
func TestTapTable(t *testing.T) {
	kerneltest.Run(t, func(t *testing.T) {
		tap := openTap(t, TapConfig{Keys: 8, Refused: 4, Log: TapLog{Group: 9, PerSecond: 7}})
		if _, err := tap.Set(t.Context(), TapWays{Services: []TapKey{{netip.MustParseAddr("10.96.0.10"), unix.IPPROTO_TCP, 80}, {netip.IPv6Unspecified(), unix.IPPROTO_UDP, 30053}}}); err != nil {
			t.Fatal(err)
		}
		text := kerneltest.Exec(t, "", "nft", "list", "table", "inet", TapTable)
		for _, want := range []string{
			"table inet svcscope { # progname ",
			"	flags owner\n",
			"	set attempts-ipv4 {\n		type ipv4_addr . inet_proto . inet_service\n		size 8\n		counter\n		elements = { 10.96.0.10 . tcp . 80 counter packets 0 bytes 0 }\n	}\n",
			"	set dnat-nodeport-ipv6 {\n		type inet_proto . inet_service\n		size 8\n		counter\n		elements = { udp . 30053 counter packets 0 bytes 0 }\n	}\n",
			"	chain attempts-prerouting {\n		type nat hook prerouting priority dstnat - 1; policy accept;\n",
			"	chain dnat-output {\n		type filter hook output priority -99; policy accept;\n",
			"ct status ! confirmed ip daddr . meta l4proto . th dport @attempts-ipv4 return\n",
			"meta nfproto ipv6 ct status ! confirmed fib daddr type local meta l4proto . th dport @attempts-nodeport-ipv6 return\n",
			"ct original ip6 daddr . ct protocol . ct original proto-dst @dnat-ipv6 return\n",
			"	set refused-ipv4 {\n		type ipv4_addr . inet_proto . inet_service\n		size 4\n		counter\n	}\n",
			"	chain refused-here-output {\n		type filter hook output priority filter - 1; policy accept;\n",
			"	chain refused-forward {\n		type filter hook forward priority filter - 1; policy accept;\n",
			"ct state new ip6 daddr . meta l4proto . th dport @refused-ipv6 limit rate 7/second burst 7 packets log prefix \"svcscope\" group 9 snaplen 64\n",
		} {
			if !strings.Contains(text, want) {
				t.Errorf("no %q in\n%s", want, text)
			}
		}
	})
}

// TestTapIsOneProcess: nobody else changes the table, or has another of the name, and it is gone
// with its owner.
func TestTapIsOneProcess(t *testing.T) {
	kerneltest.Run(t, func(t *testing.T) {
		tap := openTap(t, TapConfig{})
		if _, err := OpenTap(t.Context(), TapConfig{}); !errors.Is(err, ErrTapped) {
			t.Errorf("got %v, want that another process has it", err)
		}
		if _, err := kerneltest.TryExec(t, "", "nft", "delete", "table", "inet", TapTable); err == nil {
			t.Error("somebody else deletes it")
		}
		kerneltest.Exec(t, "", "nft", "flush", "ruleset")
		if _, err := tap.Set(t.Context(), TapWays{Services: []TapKey{{netip.MustParseAddr("10.96.0.10"), unix.IPPROTO_TCP, 80}}}); err != nil {
			t.Errorf("after nft flush ruleset: %v", err)
		}
		if err := tap.Close(); err != nil {
			t.Error(err)
		}
		if text := kerneltest.Exec(t, "", "nft", "list", "ruleset"); strings.Contains(text, TapTable) {
			t.Errorf("still there:\n%s", text)
		}
		openTap(t, TapConfig{})
	})
}

// TestTapIsBounded: keys without room are told, and those that have some are the same at
// each call.
func TestTapIsBounded(t *testing.T) {
	kerneltest.Run(t, func(t *testing.T) {
		tap := openTap(t, TapConfig{Keys: 1500})
		var keys []TapKey
		for i := range 2000 {
			keys = append(keys, TapKey{netip.AddrFrom4([4]byte{10, 96, byte(i >> 8), byte(i)}), unix.IPPROTO_TCP, 80})
		}
		for range 2 {
			c, err := tap.Set(t.Context(), TapWays{Services: keys})
			if err != nil || c.Left != 500 || len(c.Ended) != 0 {
				t.Fatalf("%d left of 2000, %d ended, %v", c.Left, len(c.Ended), err)
			}
			if all, err := tap.Counts(t.Context()); err != nil || len(all) != 1500 {
				t.Fatalf("%d counted, %v", len(all), err)
			}
		}
		c, err := tap.Set(t.Context(), TapWays{})
		if all, more := tap.Counts(t.Context()); err != nil || more != nil || len(all) != 0 || len(c.Ended) != 1500 {
			t.Errorf("%d counted, %d ended, %v, %v", len(all), len(c.Ended), err, more)
		}
	})
}

// namelessTable is one that any kernel takes for invalid, as those before 5.12 do one that has
// an owner.
type namelessTable struct{}

func (namelessTable) Append(b []byte) []byte {
	return netfilter.AppendGenMsg(b, netfilter.GenMsg{Family: netfilter.FamilyINet})
}

// TestTapOfKernelsWithoutOwners: what they say of the table is told as what it means.
func TestTapOfKernelsWithoutOwners(t *testing.T) {
	kerneltest.Run(t, func(t *testing.T) {
		w, err := dialTap()
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		var b tapBatch
		b.add(newTapTable, namelessTable{})
		err = w.commit(t.Context(), &b, nil)
		if !errors.Is(err, unix.EINVAL) {
			t.Fatalf("got %v, want EINVAL", err)
		}
		if err := tapMeaning("make table x", err); !errors.Is(err, ErrAbsent) || errors.Is(err, ErrTapped) ||
			!strings.HasPrefix(err.Error(), "make table x: ") || !strings.Contains(err.Error(), "no owners before Linux 5.12") {
			t.Errorf("got %v", err)
		}
	})
}

func TestTapNeedsCapability(t *testing.T) {
	kerneltest.Run(t, func(t *testing.T) {
		kerneltest.DropCapabilities(t)
		_, err := OpenTap(t.Context(), TapConfig{})
		refusal := &CapabilityError{}
		if !errors.As(err, &refusal) || refusal.Cap != "CAP_NET_ADMIN" {
			t.Errorf("got %v, want a lack of CAP_NET_ADMIN", err)
		}
	})
}
