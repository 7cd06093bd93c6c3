// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/svcscope/svcscope/pkg/internal/kerneltest"
)

// dialTo connects from an address, "" for the kernel's choice, on the calling
// goroutine's thread.
func dialTo(tb testing.TB, from, to string) net.Conn {
	tb.Helper()
	d := net.Dialer{Timeout: 10 * time.Second}
	if from != "" {
		d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(from)}
	}
	c, err := d.Dial("tcp", to)
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

// statusOf asks for path over a new connection; headers are whole lines.
func statusOf(tb testing.TB, from, to, path string, headers ...string) int {
	tb.Helper()
	c := dialTo(tb, from, to)
	defer c.Close()
	lines := append([]string{"GET " + path + " HTTP/1.1", "Connection: close"}, headers...)
	if _, err := io.WriteString(c, strings.Join(lines, "\r\n")+"\r\n\r\n"); err != nil {
		tb.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		tb.Fatal(err)
	}
	defer resp.Body.Close()
	return resp.StatusCode
}

// pod has a network namespace of its own, joined to the calling thread's, which is
// the node's with 192.0.2.1 and 2001:db8::1. What do is given
// runs in it.
type pod struct{ work chan func() }

func newPod(t *testing.T) pod {
	t.Helper()
	p := pod{work: make(chan func())}
	entered := make(chan int)
	go func() {
		runtime.LockOSThread() // the thread ends with the goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Errorf("unshare: %v", err)
		}
		entered <- unix.Gettid()
		for f := range p.work {
			f()
		}
	}()
	t.Cleanup(func() { close(p.work) })
	ip := func(args string) { kerneltest.Exec(t, "", "ip", strings.Fields(args)...) }
	ip("link add d0 type veth peer name d1 netns " + strconv.Itoa(<-entered))
	ip("addr add 192.0.2.1/24 dev d0")
	ip("addr add 2001:db8::1/64 dev d0 nodad")
	ip("link set d0 up")
	p.do(func() {
		ip("addr add 192.0.2.2/24 dev d1")
		ip("addr add 2001:db8::2/64 dev d1 nodad")
		ip("link set d1 up")
	})
	return p
}

func (p pod) do(f func()) {
	done := make(chan struct{})
	p.work <- func() { f(); close(done) }
	<-done
}

// TestWhoMayReadTheAPIOverSockets asks with every exposure from this node and
// from elsewhere, in both families, at addresses of one family and at one of
// both, where IPv4 clients have IPv4-mapped addresses.
func TestWhoMayReadTheAPIOverSockets(t *testing.T) {
	kerneltest.Run(t, func(t *testing.T) {
		elsewhere := newPod(t)
		clients := []struct {
			from, to string // to without the port; "" for the listener of both families
			pod      bool
			here     bool // counts as loopback
		}{
			{"127.0.0.1", "127.0.0.1", false, true},
			{"127.0.0.2", "127.0.0.1", false, true},
			{"::1", "[::1]", false, true},
			{"192.0.2.1", "127.0.0.1", false, false}, // a source of the client's own choice
			{"192.0.2.1", "192.0.2.1", false, false},
			{"127.0.0.1", "192.0.2.1", false, true},
			{"2001:db8::1", "[2001:db8::1]", false, false},
			{"192.0.2.2", "192.0.2.1", true, false},
			{"2001:db8::2", "[2001:db8::1]", true, false},
		}
		port := 10988
		for exposure, want := range map[APIExposure]map[bool]int{
			APILoopback: {true: 200, false: 403}, APIAll: {true: 200, false: 200}, APINever: {true: 404, false: 404},
		} {
			s := webSampler(t, "", nil)
			s.cfg.API, s.cfg.ListenAddresses = exposure, nil
			for _, host := range []string{"127.0.0.1", "[::1]", "[192.0.2.1]", "[2001:db8::1]"} {
				s.cfg.ListenAddresses = append(s.cfg.ListenAddresses, fmt.Sprintf("%s:%d", host, port))
			}
			s.cfg.ListenAddresses = append(s.cfg.ListenAddresses, fmt.Sprintf("[::]:%d", port+1))
			startWeb(t, s)
			for _, c := range clients {
				for _, p := range []int{port, port + 1} {
					to := fmt.Sprintf("%s:%d", c.to, p)
					ask := func() {
						if got := statusOf(t, c.from, to, "/api/v1/services", "Host: "+to); got != want[c.here] {
							t.Errorf("--web.api=%s, from %s to %s: %d, want %d", exposure, c.from, to, got, want[c.here])
						}
						if got := statusOf(t, c.from, to, "/metrics", "Host: "+to); got != 200 {
							t.Errorf("metrics from %s to %s: %d", c.from, to, got)
						}
					}
					if c.pod {
						elsewhere.do(ask)
					} else {
						ask()
					}
				}
			}
			port += 2
		}
	})
}

// TestHeadersSpeakAgainstARequest: what was forwarded on this node came from
// anywhere, and a site's name in Host is a browser that was led here.
func TestHeadersSpeakAgainstARequest(t *testing.T) {
	tests := []struct {
		headers string // lines
		want    int
	}{
		{"Host: 127.0.0.1:10988", 200},
		{"Host: 127.0.0.1", 200},
		{"Host: [::1]:10988", 200},
		{"Host: [::1]", 200},
		{"Host: localhost:10988", 200},
		{"Host: LocalHost", 200},
		{"Host:", 200},
		{"Host: site.example:10988", 403},
		{"Host: localhost.site.example", 403},
		{"Host: 127.0.0.1.site.example", 403},
		{"Host: localhost\nX-Forwarded-For: 127.0.0.1", 403},
		{"Host: localhost\nX-Forwarded-For:", 403},
		{"Host: localhost\nx-real-ip: 192.0.2.9", 403},
		{"Host: localhost\nForwarded: for=127.0.0.1", 403},
		{"Host: localhost\nVia: 1.1 proxy", 403},
		{"Host: localhost\nOrigin: http://localhost:3000", 200},
	}
	for _, exposure := range []APIExposure{APILoopback, APIAll} {
		s := webSampler(t, "", nil)
		s.cfg.API = exposure
		address := startWeb(t, s)[0]
		for _, tt := range tests {
			want := tt.want
			if exposure == APIAll {
				want = http.StatusOK
			}
			got := statusOf(t, "", address, "/api/v1/services", strings.Split(tt.headers, "\n")...)
			if got != want {
				t.Errorf("--web.api=%s, %q: %d, want %d", exposure, tt.headers, got, want)
			}
		}
	}
	// No header makes a foreign request one of this node.
	s := webSampler(t, "", nil)
	s.pass(t.Context())
	pages, err := newPages(s)
	if err != nil {
		t.Fatal(err)
	}
	for _, header := range []string{"X-Forwarded-For", "X-Real-Ip", "Forwarded", "Host"} {
		if got := ask(pages, "/api/v1/services", "192.0.2.1:4711", header, "127.0.0.1"); got.Code != http.StatusForbidden {
			t.Errorf("from elsewhere with %s: %d, want 403", header, got.Code)
		}
	}
}
