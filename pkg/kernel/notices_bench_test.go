// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"fmt"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/svcscope/svcscope/pkg/internal/kerneltest"
	"github.com/svcscope/svcscope/pkg/netfilter/nftables"
)

// BenchmarkListenerCost restores rules of Services that stand already, as a
// full sync does, in turn without and with a listener that reads along. It
// reports the medians of both and their ratio, by the clock and, for a machine
// that others use, by the writer's processor time, in which the kernel builds
// the notices; and what a notice takes in the listener's buffer.
func BenchmarkListenerCost(b *testing.B) {
	for _, rules := range []int{100, 1000, 5000} {
		b.Run(fmt.Sprint(rules), func(b *testing.B) {
			ownNetwork(b)
			kerneltest.Exec(b, "*nat\n:KUBE-SERVICES - [0:0]\n:KUBE-MARK-MASQ - [0:0]\nCOMMIT\n", "iptables-nft-restore")
			text := services(0, rules/10)
			kerneltest.Exec(b, text, "iptables-nft-restore", "--noflush")
			var took, cpu [2][]time.Duration
			for b.Loop() {
				for with := range took {
					stop := func() {}
					if with == 1 {
						stop = readAlong(b)
					}
					begin, used := time.Now(), ofChildren(b)
					kerneltest.Exec(b, text, "iptables-nft-restore", "--noflush")
					took[with] = append(took[with], time.Since(begin))
					cpu[with] = append(cpu[with], ofChildren(b)-used)
					stop()
				}
			}
			without, with := middle(took[0]), middle(took[1])
			b.ReportMetric(without.Seconds()*1e3, "without-ms")
			b.ReportMetric(with.Seconds()*1e3, "with-ms")
			b.ReportMetric(with.Seconds()/without.Seconds(), "with/without")
			b.ReportMetric(middle(cpu[1]).Seconds()/middle(cpu[0]).Seconds(), "cpu-with/without")
			b.ReportMetric(bytesWaiting(b, text), "waiting-B/notice")
		})
	}
}

// ownNetwork moves the benchmark's thread, which ends with it, into a network
// namespace of its own. Its user namespace stays the initial one: in another,
// a transaction is limited by the send buffer.
func ownNetwork(b *testing.B) {
	b.Helper()
	runtime.LockOSThread()
	kerneltest.Need(b, kerneltest.Feature{
		Name:  "root of the initial user namespace",
		Probe: func() error { return unix.Unshare(unix.CLONE_NEWNET) },
	})
}

// readAlong opens a listener and reads until the function that it returns.
func readAlong(b *testing.B) func() {
	n := listen(b, NoticesConfig{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for n.Next(b.Context(), func(*nftables.Notice) {}) == nil { // until Close
		}
	}()
	return func() {
		if n.Lost() > 0 {
			b.Errorf("%d datagrams lost", n.Lost())
		}
		_ = n.Close()
		<-done
	}
}

// bytesWaiting restores once while nobody reads: bytes of the buffer that a
// notice takes.
func bytesWaiting(b *testing.B, text string) float64 {
	n := listen(b, NoticesConfig{ReceiveBuffer: 64 << 20})
	kerneltest.Exec(b, text, "iptables-nft-restore", "--noflush")
	m, err := n.t.Memory()
	if err != nil {
		b.Fatal(err)
	}
	notices := 0
	if err := n.Next(b.Context(), func(*nftables.Notice) { notices++ }); err != nil {
		b.Fatal(err)
	}
	return float64(m.used) / float64(notices)
}

// ofChildren is the processor time of programs that have ended.
func ofChildren(b *testing.B) time.Duration {
	b.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_CHILDREN, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func middle(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}
