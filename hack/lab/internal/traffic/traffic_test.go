// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"context"
	"net/netip"
	"testing"
	"time"
)

// serve starts a server on the loopback address and returns its addresses.
func serve(t *testing.T, host string) (tcp, udp netip.AddrPort) {
	t.Helper()
	s := &Server{Name: "pod9", Host: host}
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	a, b := s.Addrs()
	return netip.MustParseAddrPort(a.String()), netip.MustParseAddrPort(b.String())
}

func TestEveryConnectionIsCountedOnce(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "::1"} {
		tcp, udp := serve(t, host)
		for proto, to := range map[string]netip.AddrPort{"tcp": tcp, "udp": udp} {
			t.Run(proto+" "+host, func(t *testing.T) {
				l := Load{
					To: to, Proto: proto, Connections: 300, Concurrency: 20, Timeout: 5 * time.Second,
					Sources: []netip.Addr{to.Addr()}, Ports: Ports{Dir: t.TempDir(), Now: time.Now},
				}
				r, err := l.Run(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if r.Succeeded != 300 || r.Answered["pod9"] != 300 || r.Seen[host] != 300 || r.Sources[host] != 300 {
					t.Errorf("300 connections: %+v", r)
				}
			})
		}
	}
}

func TestAStoppedLoadTellsWhatItOpened(t *testing.T) {
	tcp, _ := serve(t, "127.0.0.1")
	stop := make(chan struct{})
	l := Load{
		To: tcp, Proto: "tcp", Connections: 40000, Concurrency: 4, Rate: 200, Timeout: 5 * time.Second, Stop: stop,
		Sources: []netip.Addr{tcp.Addr()}, Ports: Ports{Dir: t.TempDir(), Now: time.Now},
	}
	time.AfterFunc(100*time.Millisecond, func() { close(stop) })
	r, err := l.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if r.Connections == 0 || r.Connections == 40000 || r.Succeeded != r.Connections || r.Answered["pod9"] != r.Connections {
		t.Errorf("a stopped load: %+v", r)
	}
}

func TestRefusedIsToldFromFailed(t *testing.T) {
	tcp, _ := serve(t, "127.0.0.1")
	// Nobody listens on this address of the loopback network.
	l := Load{
		To: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.77"), tcp.Port()), Proto: "tcp", Connections: 5, Concurrency: 2,
		Timeout: 5 * time.Second, Sources: []netip.Addr{tcp.Addr()}, Ports: Ports{Dir: t.TempDir(), Now: time.Now},
	}
	r, err := l.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if r.Refused != 5 || r.Errors["connection refused"] != 5 {
		t.Errorf("5 refused connections: %+v", r)
	}
}

func TestLoadRefusesNonsense(t *testing.T) {
	good := Load{
		To: netip.MustParseAddrPort("127.0.0.1:1"), Proto: "tcp", Connections: 1, Concurrency: 1,
		Sources: []netip.Addr{netip.MustParseAddr("127.0.0.1")},
	}
	for name, spoil := range map[string]func(*Load){
		"no destination":        func(l *Load) { l.To = netip.AddrPort{} },
		"unknown protocol":      func(l *Load) { l.Proto = "sctp" },
		"no connection":         func(l *Load) { l.Connections = 0 },
		"more than ports":       func(l *Load) { l.Connections = portsPerIP + 1 },
		"no concurrency":        func(l *Load) { l.Concurrency = 0 },
		"no source of a family": func(l *Load) { l.Sources = nil },
	} {
		t.Run(name, func(t *testing.T) {
			l := good
			spoil(&l)
			if _, err := l.Run(t.Context()); err == nil {
				t.Error("no error")
			}
		})
	}
}

func TestPortsRestAfterUse(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	p := Ports{Dir: t.TempDir(), Now: func() time.Time { return now }}
	a, b := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	take := func(dest string, n int, sources ...netip.Addr) []netip.AddrPort {
		t.Helper()
		got, err := p.Take(dest, sources, n, time.Second)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	seen := map[netip.AddrPort]bool{}
	for range 3 {
		for _, ap := range take("x", 20000, a, b) {
			if seen[ap] {
				t.Fatalf("%s was handed out twice", ap)
			}
			if ap.Port() >= nodePortLow && ap.Port() < nodePortEnd {
				t.Fatalf("%s is a node port", ap)
			}
			seen[ap] = true
		}
	}
	if last := take("x", 1, a, b)[0]; last.Addr() != b {
		t.Errorf("source after 60,000 connections: %s, want one of %s", last, b)
	}
	if other := take("y", 1, a)[0]; other.Addr() != a {
		t.Errorf("source towards another destination: %s", other)
	}
	if _, err := p.Take("x", []netip.Addr{a}, 1, time.Second); err == nil {
		t.Error("a port was handed out again before its time")
	}
	now = now.Add(Quiet + 2*time.Second)
	take("x", 1, a)
}
