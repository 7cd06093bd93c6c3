// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"net/netip"
	"runtime"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	nfloglib "github.com/florianl/go-nflog/v2"
	"golang.org/x/sys/unix"

	"github.com/svcscope/svcscope/pkg/correlate"
	"github.com/svcscope/svcscope/pkg/internal/kerneltest"
	"github.com/svcscope/svcscope/pkg/kernel"
)

const (
	// floodRate is how many packets a second are dropped and logged, for floodTime.
	floodRate = 300_000
	floodTime = 10 * time.Second
	floodAt   = 64 // packets a system call
)

// floodRules log what comes in for port 9, and drop it: whoever sends hears nothing.
const floodRules = `*raw
-A PREROUTING -p udp -m udp --dport 9 -j NFLOG --nflog-group 100
-A PREROUTING -p udp -m udp --dport 9 -j DROP
COMMIT
`

// BenchmarkDropFlood drops 300,000 packets a second for ten seconds, first before
// the agent's reader of a group, then before go-nflog's own. Every packet is
// received or counted as lost; where the agent's loses any, the other one must lose a
// tenth at least: then it is the machine.
func BenchmarkDropFlood(b *testing.B) {
	runtime.LockOSThread() // which ends with its network namespace
	kerneltest.Need(b, kerneltest.Feature{
		Name:  "root of the initial user namespace",
		Probe: func() error { return unix.Unshare(unix.CLONE_NEWNET) },
	})
	kerneltest.Exec(b, "", "ip", "link", "set", "lo", "up")
	kerneltest.Exec(b, floodRules, "iptables-nft-restore")
	for b.Loop() {
		ours := floodAgent(b)
		theirs := floodLibrary(b)
		ours.report(b, "agent")
		theirs.report(b, "go-nflog")
		if ours.lost > 0 && theirs.lost < theirs.sent/10 {
			b.Errorf("%d of %d lost, and go-nflog loses %d of %d", ours.lost, ours.sent, theirs.lost, theirs.sent)
		}
	}
}

// flooded is how a flood ended.
type flooded struct {
	sent, received, lost uint64
	took                 time.Duration // of sending
	cpu                  time.Duration // of the process, less that of who sends
}

func (f *flooded) report(b *testing.B, who string) {
	b.ReportMetric(float64(f.sent)/f.took.Seconds(), who+"-sent/s")
	b.ReportMetric(100*float64(f.lost)/float64(f.sent), who+"-lost-%")
	b.ReportMetric(float64(f.cpu.Nanoseconds())/float64(f.received), who+"-ns/event")
}

// floodAgent sends while the agent's reader counts and keeps events.
func floodAgent(b *testing.B) flooded {
	b.Helper()
	l, err := kernel.OpenPacketLog(100, kernel.PacketLogConfig{})
	if err != nil {
		b.Fatal(err)
	}
	d := &dropSource{log: l, events: newDropLog(), in: func() dropInputs {
		return dropInputs{flows: func() correlate.FlowInputs { return correlate.FlowInputs{} }}
	}}
	ctx, stop := context.WithCancel(b.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = d.run(ctx)
	}()
	f := flood(b)
	told := func() uint64 { n := l.Stats(); return n.Received + n.Lost }
	f.settle(b, told)
	n := l.Stats()
	f.received, f.lost = n.Received, n.Lost
	stop()
	<-done
	if err := l.Close(); err != nil {
		b.Error(err)
	}
	if kept := d.events.newest(0); kept != n.Received || n.Received+n.Lost != f.sent || n.Undecoded != 0 {
		b.Errorf("%d events of %+v, %d sent", kept, n, f.sent)
	}
	return f
}

// floodLibrary does the same with the callback of the library.
func floodLibrary(b *testing.B) flooded {
	b.Helper()
	l, err := nfloglib.Open(&nfloglib.Config{
		Group: 100, Copymode: nfloglib.CopyPacket, Bufsize: 64, QThresh: 64, Timeout: 10, Flags: nfloglib.FlagSeq,
	})
	if err != nil {
		b.Fatal(err)
	}
	if err := l.Con.SetReadBuffer(kernel.DefaultPacketLogBuffer / 2); err != nil {
		b.Fatal(err)
	}
	var received, next atomic.Uint64
	ctx, stop := context.WithCancel(b.Context())
	err = l.RegisterWithErrorFunc(ctx, func(a nfloglib.Attribute) int {
		received.Add(1)
		if a.Seq != nil {
			next.Store(uint64(*a.Seq) + 1)
		}
		return 0
	}, func(error) int { return 0 })
	if err != nil {
		b.Fatal(err)
	}
	f := flood(b)
	f.settle(b, next.Load)
	f.received = received.Load()
	f.lost = f.sent - f.received
	stop()
	if err := l.Close(); err != nil {
		b.Error(err)
	}
	return f
}

// flood sends packets at the rate, from a thread of its own.
func flood(b *testing.B) flooded {
	b.Helper()
	var f flooded
	before := usedBy(b, unix.RUSAGE_SELF)
	s := newSender(b)
	defer s.close()
	mine := usedBy(b, unix.RUSAGE_THREAD)
	begin := time.Now()
	for f.took = 0; f.took < floodTime; f.took = time.Since(begin) {
		if due := uint64(f.took.Seconds() * floodRate); f.sent >= due {
			continue // a pause is longer than what is left
		}
		f.sent += s.send(b)
	}
	f.cpu = usedBy(b, unix.RUSAGE_SELF) - before - (usedBy(b, unix.RUSAGE_THREAD) - mine)
	return f
}

// settle waits until all that was sent is told, and sends more where what was lost last
// has no later number yet.
func (f *flooded) settle(b *testing.B, told func() uint64) {
	b.Helper()
	s := newSender(b)
	defer s.close()
	for end := time.Now().Add(30 * time.Second); told() < f.sent; {
		if time.Now().After(end) {
			b.Fatalf("%d of %d told", told(), f.sent)
		}
		last := told()
		time.Sleep(300 * time.Millisecond) // more than the kernel lets packets wait for others
		if told() == last && last < f.sent {
			f.sent += s.send(b)
		}
	}
}

func usedBy(b *testing.B, who int) time.Duration {
	b.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(who, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// sender sends datagrams to 127.0.0.9:9, many with one system call.
type sender struct {
	fd      int
	vectors [floodAt]unix.Iovec
	heads   [floodAt]struct {
		unix.Msghdr
		len uint32
	}
	payload [5]byte
	to      unix.RawSockaddrInet4
}

func newSender(b *testing.B) *sender {
	b.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		b.Fatal(err)
	}
	s := &sender{fd: fd}
	s.to.Family, s.to.Addr, s.to.Port = unix.AF_INET, netip.MustParseAddr("127.0.0.9").As4(), 9<<8
	for i := range s.heads {
		s.vectors[i].Base = &s.payload[0]
		s.vectors[i].SetLen(len(s.payload))
		s.heads[i].Iov, s.heads[i].Name = &s.vectors[i], (*byte)(unsafe.Pointer(&s.to))
		s.heads[i].SetIovlen(1)
		s.heads[i].Namelen = unix.SizeofSockaddrInet4
	}
	return s
}

func (s *sender) send(b *testing.B) uint64 {
	n, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(s.fd), uintptr(unsafe.Pointer(&s.heads)), floodAt, 0, 0, 0)
	if errno != 0 {
		b.Fatal(errno)
	}
	return uint64(n)
}

func (s *sender) close() { _ = unix.Close(s.fd) }
