// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Load opens an exact number of new connections to one address.
type Load struct {
	// To is the destination.
	To netip.AddrPort
	// Proto is "tcp" (an HTTP request each) or "udp" (a datagram each).
	Proto string
	// Connections is how many are opened, each from a source port of its
	// own. None is tried twice.
	Connections int
	// Concurrency is how many are open at a time.
	Concurrency int
	// Rate limits connections started a second; 0 means no limit.
	Rate float64
	// Timeout is for one connection, from connect to answer.
	Timeout time.Duration
	// Sources are the addresses to connect from; the later ones only when
	// the ports of the earlier ones are used up.
	Sources []netip.Addr
	// Ports hands out source ports.
	Ports Ports
	// Stop, where not nil, ends the load early when it is closed: no
	// connection is started any more, and those that are open are waited
	// for. Result.Connections then says how many were started.
	Stop <-chan struct{}
}

// Result is what became of the connections. Succeeded, Refused, TimedOut and
// Failed sum to Connections.
type Result struct {
	To          string `json:"to"`
	Proto       string `json:"proto"`
	Connections int    `json:"connections"`
	// Succeeded were answered by a pod.
	Succeeded int `json:"succeeded"`
	// Refused got a reset or an ICMP error at once.
	Refused int `json:"refused"`
	// TimedOut got nothing within the timeout.
	TimedOut int `json:"timedOut"`
	// Failed is everything else, by message in Errors.
	Failed int `json:"failed"`
	// Answered is the number of answers by pod.
	Answered map[string]int `json:"answered"`
	// Seen is the number of answers by the client address a pod saw: the
	// node's where the connection was masqueraded.
	Seen map[string]int `json:"seen"`
	// Sources is the number of connections by source address.
	Sources map[string]int `json:"sources"`
	Errors  map[string]int `json:"errors,omitempty"`
	Seconds float64        `json:"seconds"`
}

func (r *Result) add(a Answer, err error) {
	var ne net.Error
	switch {
	case err == nil:
		r.Succeeded++
		r.Answered[a.Pod]++
		if ap, err := netip.ParseAddrPort(a.Client); err == nil {
			r.Seen[ap.Addr().Unmap().String()]++
		}
		return
	case errors.Is(err, unix.ECONNREFUSED), errors.Is(err, unix.EHOSTUNREACH), errors.Is(err, unix.ENETUNREACH),
		errors.Is(err, unix.EACCES), errors.Is(err, unix.ECONNRESET):
		r.Refused++
	case errors.As(err, &ne) && ne.Timeout():
		r.TimedOut++
	default:
		r.Failed++
	}
	msg := err.Error()
	// The source port would make every message different.
	if i := strings.LastIndex(msg, ": "); i >= 0 {
		msg = msg[i+2:]
	}
	r.Errors[msg]++
}

// Run opens the connections and returns what became of them. An error means
// that not all could be tried.
func (l Load) Run(ctx context.Context) (*Result, error) {
	if err := l.validate(); err != nil {
		return nil, err
	}
	hold := l.Timeout
	if l.Rate > 0 {
		hold += time.Duration(float64(l.Connections) / l.Rate * float64(time.Second))
	}
	dest := l.Proto + "-" + l.To.String()
	spare := min(200, portsPerIP-l.Connections)
	from, err := l.Ports.Take(dest, l.Sources, l.Connections+max(spare, 0), hold)
	if err != nil {
		return nil, err
	}
	r := &Result{
		To: l.To.String(), Proto: l.Proto, Connections: l.Connections, Answered: map[string]int{},
		Seen: map[string]int{}, Sources: map[string]int{}, Errors: map[string]int{},
	}
	start := time.Now()
	err = l.run(ctx, from, r)
	r.Connections = r.Succeeded + r.Refused + r.TimedOut + r.Failed
	r.Seconds = time.Since(start).Seconds()
	return r, err
}

func (l Load) validate() error {
	switch {
	case !l.To.IsValid():
		return errors.New("load: no destination")
	case l.Proto != "tcp" && l.Proto != "udp":
		return fmt.Errorf("load: protocol %q: want tcp or udp", l.Proto)
	case l.Connections < 1 || l.Connections > portsPerIP:
		return fmt.Errorf("load: %d connections: want 1 to %d", l.Connections, portsPerIP)
	case l.Concurrency < 1:
		return fmt.Errorf("load: concurrency %d: want at least 1", l.Concurrency)
	case len(l.Sources) == 0:
		return fmt.Errorf("load: no source address of the family of %s here", l.To.Addr())
	}
	return nil
}

func (l Load) run(ctx context.Context, from []netip.AddrPort, r *Result) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	// Ports beyond the number of connections replace those that another
	// socket of this namespace holds.
	pool := make(chan netip.AddrPort, len(from))
	for _, a := range from {
		pool <- a
	}
	jobs := make(chan struct{})
	var mu sync.Mutex // guards r
	var wg sync.WaitGroup
	for range min(l.Concurrency, l.Connections) {
		wg.Go(func() {
			for range jobs {
				a, src, err := l.one(ctx, pool)
				if err != nil && ctx.Err() != nil {
					return
				}
				if errors.Is(err, errNoPort) {
					cancel(err)
					return
				}
				mu.Lock()
				r.add(a, err)
				r.Sources[src.String()]++
				mu.Unlock()
			}
		})
	}
	l.feed(ctx, jobs)
	wg.Wait()
	return context.Cause(ctx)
}

// feed starts the connections, at the rate if there is one.
func (l Load) feed(ctx context.Context, jobs chan<- struct{}) {
	defer close(jobs)
	start := time.Now()
	for i := range l.Connections {
		if l.Rate > 0 {
			at := start.Add(time.Duration(float64(i) / l.Rate * float64(time.Second)))
			select {
			case <-time.After(time.Until(at)):
			case <-l.Stop:
				return
			case <-ctx.Done():
				return
			}
		}
		select {
		case jobs <- struct{}{}:
		case <-l.Stop:
			return
		case <-ctx.Done():
			return
		}
	}
}

var errNoPort = errors.New("load: too many source ports are in use by others")

// one opens a connection from the next port that is free here.
func (l Load) one(ctx context.Context, pool <-chan netip.AddrPort) (Answer, netip.Addr, error) {
	ctx, cancel := context.WithTimeout(ctx, l.Timeout)
	defer cancel()
	for {
		select {
		case src := <-pool:
			conn, err := l.dial(ctx, src)
			if errors.Is(err, unix.EADDRINUSE) || errors.Is(err, unix.EADDRNOTAVAIL) && isBind(err) {
				continue
			}
			if err != nil {
				return Answer{}, src.Addr(), err
			}
			a, err := l.ask(conn)
			conn.Close()
			return a, src.Addr(), err
		default:
			return Answer{}, netip.Addr{}, errNoPort
		}
	}
}

func isBind(err error) bool {
	var se *os.SyscallError
	return errors.As(err, &se) && se.Syscall == "bind"
}

func (l Load) dial(ctx context.Context, src netip.AddrPort) (net.Conn, error) {
	d := net.Dialer{KeepAlive: -1, Control: func(_, _ string, c syscall.RawConn) error {
		var serr error
		err := c.Control(func(fd uintptr) {
			// A port in TIME_WAIT towards another destination may be used.
			serr = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
		})
		return errors.Join(err, serr)
	}}
	if l.Proto == "udp" {
		d.LocalAddr = net.UDPAddrFromAddrPort(src)
	} else {
		d.LocalAddr = net.TCPAddrFromAddrPort(src)
	}
	conn, err := d.DialContext(ctx, l.Proto, l.To.String())
	if err != nil {
		return nil, err
	}
	deadline, _ := ctx.Deadline()
	return conn, conn.SetDeadline(deadline)
}

// ask sends one request and reads the answer to its end.
func (l Load) ask(conn net.Conn) (a Answer, err error) {
	if l.Proto == "udp" {
		buf := make([]byte, 2048)
		if _, err := conn.Write([]byte("who")); err != nil {
			return a, err
		}
		n, err := conn.Read(buf)
		if err != nil {
			return a, err
		}
		return a, json.Unmarshal(buf[:n], &a)
	}
	if _, err := fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", l.To); err != nil {
		return a, err
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return a, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return a, fmt.Errorf("HTTP status %s", resp.Status)
	}
	if err := json.NewDecoder(resp.Body).Decode(&a); err != nil {
		return a, err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return a, err
}
