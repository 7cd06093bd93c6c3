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
	"github.com/svcscope/svcscope/pkg/internal/syncrules"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/xtables"
	"github.com/svcscope/svcscope/pkg/ruleset"
)

// cpu is what work took of the processor, by a clock of this thread, of the
// process or, where it is 0, of its children.
func cpu(b *testing.B, clock int32, work func()) time.Duration {
	b.Helper()
	used := func() time.Duration {
		if clock == 0 {
			var r unix.Rusage
			if err := unix.Getrusage(unix.RUSAGE_CHILDREN, &r); err != nil {
				b.Fatal(err)
			}
			return time.Duration(r.Utime.Nano() + r.Stime.Nano())
		}
		var at unix.Timespec
		if err := unix.ClockGettime(clock, &at); err != nil {
			b.Fatal(err)
		}
		return time.Duration(at.Nano())
	}
	before := used()
	work()
	return used() - before
}

func median(ds []time.Duration) float64 {
	slices.Sort(ds)
	return float64(ds[len(ds)/2])
}

// BenchmarkLegacyFollow sets a reading of rules that are known beside the bare
// system call into a buffer that stays, and a reading after a sync of one
// Service beside iptables-legacy-save -c, in CPU time of one run. The memory
// of the reading goes back to the system each time.
func BenchmarkLegacyFollow(b *testing.B) {
	for _, n := range []int{100, 1000, 10000} {
		b.Run(fmt.Sprintf("services=%d", n), func(b *testing.B) {
			kerneltest.RunB(b, func(b *testing.B) {
				needLegacy(b, "iptables-legacy")
				runtime.LockOSThread()
				defer runtime.UnlockOSThread()
				s := syncrules.Services{Number: n, Endpoints: 3, Large: 3*n > 1000}
				kerneltest.Exec(b, s.Full(), "iptables-legacy-restore", "--noflush", "--counters")
				benchFollow(b, s)
			})
		})
	}
}

func benchFollow(b *testing.B, s syncrules.Services) {
	r, all := openLegacy(b), ruleset.NewXTables(netfilter.IPv4)
	var delta ruleset.Delta
	read := func() {
		err := r.Read(b.Context(), netfilter.IPv4, "nat", func(t *xtables.Table) (err error) {
			delta, err = all.Update(t)
			return err
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	first := cpu(b, unix.CLOCK_PROCESS_CPUTIME_ID, read)
	bare := bareGetEntries(b)
	bare()
	var bares, reads, changed, saves []time.Duration
	b.ReportAllocs()
	for b.Loop() {
		for range 3 {
			bares = append(bares, cpu(b, unix.CLOCK_THREAD_CPUTIME_ID, bare))
			reads = append(reads, cpu(b, unix.CLOCK_THREAD_CPUTIME_ID, read))
		}
	}
	if !delta.Same() {
		b.Fatalf("changed: %v", delta.Changed)
	}
	for i := range 3 {
		kerneltest.Exec(b, s.Sync(7, i+1), "iptables-legacy-restore", "--noflush", "--counters")
		changed = append(changed, cpu(b, unix.CLOCK_PROCESS_CPUTIME_ID, read))
		if delta.Same() {
			b.Fatal("a sync changed nothing")
		}
		saves = append(saves, cpu(b, 0, func() {
			kerneltest.Exec(b, "", "iptables-legacy-save", "-c", "-t", "nat")
		}))
	}
	b.ReportMetric(median(bares)/1e6, "bare-ms")
	b.ReportMetric(median(reads)/1e6, "unchanged-ms")
	b.ReportMetric(median(reads)/median(bares), "unchanged/bare")
	b.ReportMetric(float64(first)/1e6, "first-ms")
	b.ReportMetric(median(changed)/1e6, "changed-ms")
	b.ReportMetric(median(saves)/1e6, "save-ms")
	b.ReportMetric(median(saves)/median(changed), "save/changed")
}

// bareGetEntries returns the system call alone.
func bareGetEntries(b *testing.B) func() {
	r := openLegacy(b)
	info, err := r.info(unix.IPPROTO_IP, "nat")
	if err != nil {
		b.Fatal(err)
	}
	buf, err := r.buf.grow(xtables.EntriesHeader + int(info.Size))
	if err != nil {
		b.Fatal(err)
	}
	return func() {
		xtables.AppendEntriesRequest(buf[:0], "nat", info.Size)
		if _, err := r.getsockopt(unix.IPPROTO_IP, soGetEntries, buf); err != nil {
			b.Fatal(err)
		}
	}
}
