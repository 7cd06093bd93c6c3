// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/svcscope/svcscope/pkg/correlate"
	"github.com/svcscope/svcscope/pkg/internal/kernelflows"
	"github.com/svcscope/svcscope/pkg/internal/kerneltest"
	"github.com/svcscope/svcscope/pkg/kernel"
	"github.com/svcscope/svcscope/pkg/netfilter/conntrack"
)

// TestLossesInTheKernel makes connections fail, and sees of which cause.
func TestLossesInTheKernel(t *testing.T) {
	kerneltest.Run(t, func(t *testing.T) {
		ip := func(args ...string) { kerneltest.Exec(t, "", "ip", args...) }
		ip("link", "add", "d0", "type", "veth", "peer", "name", "d1")
		ip("link", "set", "d0", "up")
		ip("link", "set", "d1", "up")
		ip("addr", "add", "10.0.0.1/24", "dev", "d0")
		for _, to := range []string{"10.0.0.2", "10.0.0.3", "10.0.0.4"} {
			ip("neigh", "add", to, "lladdr", "02:00:00:00:00:01", "dev", "d0", "nud", "permanent")
		}
		nat := func(args ...string) {
			kerneltest.Exec(t, "", "iptables-nft", append([]string{"-t", "nat", "-A", "POSTROUTING", "-p", "tcp"}, args...)...)
		}
		nat("-d", "10.0.0.3", "-j", "MASQUERADE")
		nat("-d", "10.0.0.4", "-j", "SNAT", "--to-source", "10.0.0.1:5000")
		c := &sizes{reader: reader[conntrackReader]{open: thisHost().conntrack}}
		defer c.close()
		lost := func() map[correlate.LossCause]bool {
			table, err := c.read(t.Context(), true)
			if err != nil {
				t.Fatal(err)
			}
			got := map[correlate.LossCause]bool{}
			for cause, n := range table.Losses {
				if n > 0 {
					got[correlate.LossCause(cause)] = true
				}
			}
			return got
		}
		if got := lost(); len(got) > 0 {
			t.Errorf("before anything: %v", got)
		}

		// Every source port toward one destination is taken.
		to := netip.MustParseAddrPort("10.0.0.3:80")
		var taken []kernelflows.Flow
		for port := 1024; port < 65536; port++ {
			taken = append(taken, kernelflows.Flow{
				Protocol: unix.IPPROTO_TCP, Replied: true, State: 3, Dst: to, From: to,
				Src: netip.AddrPortFrom(netip.MustParseAddr("10.9.0.1"), uint16(port)),
				To:  netip.AddrPortFrom(netip.MustParseAddr("10.0.0.1"), uint16(port)),
			})
		}
		kernelflows.Make(t, taken...)
		sendSYN(t, to)
		if d := cmp.Diff(map[correlate.LossCause]bool{correlate.LossPorts: true}, lost()); d != "" {
			t.Errorf("no port is left (-want +got):\n%s", d)
		}
		var f correlate.FlowCounter
		f.Begin(correlate.FlowInputs{}, time.Now())
		r, err := kernel.OpenConntrack()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if _, err := r.Flows(t.Context(), kernel.FlowFilter{}, f.Add); err != nil {
			t.Fatal(err)
		}
		if p := f.End().Ports; len(p) == 0 || p[0].Destination != to || p[0].Used < correlate.SourcePorts-20 || p[0].Pressure() < 0.99 {
			t.Errorf("the busiest destinations: %+v", p)
		}

		// Two connections are given one and the same port.
		sendSYN(t, netip.MustParseAddrPort("10.0.0.4:80"))
		sendSYN(t, netip.MustParseAddrPort("10.0.0.4:80"))
		if d := cmp.Diff(map[correlate.LossCause]bool{correlate.LossPorts: true, correlate.LossClash: true}, lost()); d != "" {
			t.Errorf("two connections by one port (-want +got):\n%s", d)
		}
	})
}

// sendSYN begins a connection.
func sendSYN(t *testing.T, to netip.AddrPort) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}); err != nil && !errors.Is(err, unix.EINPROGRESS) {
		t.Logf("connect to %v: %v", to, err) // a packet that is dropped here is an error at once
	}
}

// TestTableThatChanges reads a table while entries come and go: what stays is
// seen in every reading, and none fails.
func TestTableThatChanges(t *testing.T) {
	kerneltest.Run(t, func(t *testing.T) {
		const steady = 5000
		kernelflows.Fill(t, steady, kernelflows.Numbered)
		r, err := kernel.OpenConntrack()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		ctx, cancel := context.WithCancel(t.Context())
		var writers sync.WaitGroup
		writers.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				f := kernelflows.Numbered(steady + i%2000)
				kernelflows.MakeAndDelete(t, f)
			}
		})
		for range 20 {
			seen := make(map[netip.AddrPort]int)
			_, err := r.Flows(t.Context(), kernel.FlowFilter{}, func(f *conntrack.Flow) { seen[f.Orig.Src]++ })
			if err != nil {
				t.Errorf("while entries come and go: %v", err)
			}
			for i := range steady {
				if f := kernelflows.Numbered(i); seen[f.Src] == 0 {
					t.Fatalf("entry %d is missing", i)
				}
			}
		}
		cancel()
		writers.Wait()
	})
}
