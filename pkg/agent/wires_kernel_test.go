// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"net/netip"
	"testing"
	"time"

	"github.com/svcscope/svcscope/pkg/internal/kerneltest"
)

// wires has the node forward packets of both families from the device w0 to x0, in
// networks of their own.
func wires(t *testing.T) {
	t.Helper()
	kerneltest.Forward(t)
	kerneltest.Wire(t, "w0", "w1")
	kerneltest.Wire(t, "x0", "x1")
	kerneltest.Exec(t, "", "ip", "route", "add", "10.99.0.0/24", "dev", "x0")
	kerneltest.Exec(t, "", "ip", "-6", "route", "add", "fd99::/64", "dev", "x0")
}

// passing is a packet from w0 to x0.
func passing(f family, port uint16) kerneltest.Packet {
	src, dst := "10.88.0.7", "10.99.0.7"
	if f.bits == 128 {
		src, dst = "fd88::7", "fd99::7"
	}
	return kerneltest.Packet{
		Src: netip.AddrPortFrom(netip.MustParseAddr(src), 40_000), Dst: netip.AddrPortFrom(netip.MustParseAddr(dst), port),
	}
}

// forwarded sends UDP packets to a port from w0 to x0.
func forwarded(t *testing.T, f family, port uint16, n int) {
	t.Helper()
	kerneltest.SendFrames(t, "w0", "w1", passing(f, port), n)
}

// reaches samples until a metric is what it should be, which takes as long as packets
// are under way, and then once more.
func reaches(t *testing.T, s *sampler, want float64, name string, labels ...string) {
	t.Helper()
	got := 0.0
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		s.pass(t.Context())
		if got = page(t, s).sum(name, labels...); got >= want {
			break
		}
	}
	s.pass(t.Context())
	if again := page(t, s).sum(name, labels...); got != want || again != want {
		t.Errorf("%s%v: %v, and then %v; want %v", name, labels, got, again, want)
	}
}

// awaitCount waits until a count of the kernel is what it should be.
func awaitCount(t *testing.T, want uint64, count func() uint64) {
	t.Helper()
	got := count()
	for deadline := time.Now().Add(10 * time.Second); got < want && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		got = count()
	}
	if got != want {
		t.Fatalf("the kernel has counted %d packets, want %d", got, want)
	}
}
