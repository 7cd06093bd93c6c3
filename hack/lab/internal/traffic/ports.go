// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Source ports lie outside the node port range, 30000 to 32767.
const (
	firstPort   = 10000
	portsPerIP  = 50000
	nodePortLow = 30000
	nodePortEnd = 32768
)

// Quiet is how long a source port is left alone after use towards the same
// destination: longer than conntrack keeps a closed TCP connection
// (nf_conntrack_tcp_timeout_time_wait) or a UDP stream, 120 s each, so that
// every connection is a new flow.
const Quiet = 125 * time.Second

func port(i int) uint16 {
	p := firstPort + i
	if p >= nodePortLow {
		p += nodePortEnd - nodePortLow
	}
	return uint16(p)
}

// Ports hands out source addresses and ports that no connection to the same
// destination has used within Quiet, across processes: what was handed out
// is kept in a file.
type Ports struct {
	// Dir holds one file for each destination.
	Dir string
	// Now is the clock.
	Now func() time.Time
}

// ledger is the file's content: for each source a ring of ports.
type ledger struct {
	Sources map[netip.Addr]*ring `json:"sources"`
}

type ring struct {
	Next  int     `json:"next"`
	Spans []taken `json:"spans"`
}

type taken struct {
	From int       `json:"from"`
	N    int       `json:"n"`
	At   time.Time `json:"at"`
}

// Take returns n pairs of source address and port for connections to the
// destination. It fills the sources in their order. hold is how long the
// connections may be open, at most.
func (p Ports) Take(dest string, sources []netip.Addr, n int, hold time.Duration) ([]netip.AddrPort, error) {
	if err := os.MkdirAll(p.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("source ports: %w", err)
	}
	name := strings.NewReplacer("/", "_", ":", "_", "[", "", "]", "").Replace(dest)
	f, err := os.OpenFile(filepath.Join(p.Dir, name), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("source ports: %w", err)
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		return nil, fmt.Errorf("source ports: lock: %w", err)
	}
	l := ledger{Sources: map[netip.Addr]*ring{}}
	if err := json.NewDecoder(f).Decode(&l); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("source ports: decode %s: %w", f.Name(), err)
	}
	out := make([]netip.AddrPort, 0, n)
	for _, src := range sources {
		r := l.Sources[src]
		if r == nil {
			r = &ring{}
			l.Sources[src] = r
		}
		for _, port := range r.take(n-len(out), p.Now(), hold) {
			out = append(out, netip.AddrPortFrom(src, port))
		}
	}
	if len(out) < n {
		return nil, fmt.Errorf("source ports: only %d of %d are free towards %s: others were used less than %s ago; "+
			"wait, or use another client", len(out), n, dest, Quiet)
	}
	if err := f.Truncate(0); err != nil {
		return nil, fmt.Errorf("source ports: %w", err)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, fmt.Errorf("source ports: %w", err)
	}
	return out, json.NewEncoder(f).Encode(l)
}

// take returns up to n ports that are free at now, and keeps them for hold and
// Quiet.
func (r *ring) take(n int, now time.Time, hold time.Duration) []uint16 {
	live, used := r.Spans[:0], 0
	for _, s := range r.Spans {
		if now.Before(s.At) {
			live, used = append(live, s), used+s.N
		}
	}
	n = max(0, min(n, portsPerIP-used))
	out := make([]uint16, n)
	for i := range out {
		out[i] = port((r.Next + i) % portsPerIP)
	}
	r.Spans = live
	if n > 0 {
		r.Spans = append(live, taken{From: r.Next, N: n, At: now.Add(hold + Quiet)})
		r.Next = (r.Next + n) % portsPerIP
	}
	return out
}
