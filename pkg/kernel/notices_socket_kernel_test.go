// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/svcscope/svcscope/pkg/internal/kerneltest"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/nftables"
	"github.com/svcscope/svcscope/pkg/netfilter/nlattr"
)

// dialTest opens a socket that may write, unlike this package's own.
func dialTest(t *testing.T) *netlink.Conn {
	t.Helper()
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// destroyRules is a transaction with NFT_MSG_DESTROYRULE (Linux 6.3).
func destroyRules(t *testing.T, chain string) {
	t.Helper()
	batch := netfilter.AppendGenMsg(nil, netfilter.GenMsg{ResID: unix.NFNL_SUBSYS_NFTABLES})
	rules := netfilter.AppendGenMsg(nil, netfilter.GenMsg{Family: netfilter.IPv4})
	rules = nlattr.AppendString(rules, unix.NFTA_RULE_TABLE, "filter")
	rules = nlattr.AppendString(rules, unix.NFTA_RULE_CHAIN, chain)
	_, err := dialTest(t).SendMessages([]netlink.Message{
		{Header: netlink.Header{Type: unix.NFNL_MSG_BATCH_BEGIN, Flags: netlink.Request}, Data: batch},
		{Header: netlink.Header{Type: 10<<8 | 28, Flags: netlink.Request}, Data: rules},
		{Header: netlink.Header{Type: unix.NFNL_MSG_BATCH_END, Flags: netlink.Request}, Data: batch},
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestDestroyedRulesAreDeleted(t *testing.T) {
	kerneltest.Run(t, func(t *testing.T) {
		kerneltest.Need(t, kerneltest.Feature{Name: "NFT_MSG_DESTROYRULE", Major: 6, Minor: 3, Probe: func() error {
			if major, minor := kerneltest.Version(t); major < 6 || major == 6 && minor < 3 {
				return errors.ErrUnsupported
			}
			return nil
		}})
		n := listen(t, NoticesConfig{})
		kerneltest.Exec(t, twoRules, "iptables-nft-restore")
		commit(t, n)
		send(t, 2)
		destroyRules(t, "KUBE-A")
		var deleted []netfilter.Counter
		if err := next(t, n, func(m *nftables.Notice) {
			if m.Kind == nftables.DelRule && m.Chain == "KUBE-A" && m.Handle == 5 {
				deleted = append(deleted, m.Counter)
				t.Logf("the kernel tells of it with message type %#x", m.Type)
			}
		}); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff([]netfilter.Counter{{Packets: 2, Bytes: 66}}, deleted); d != "" {
			t.Errorf("deleted (-want +got):\n%s", d)
		}
	})
}

// TestEveryPacketIsInAFinalValue rewrites a chain under traffic: what the
// rules had counted when they were deleted, and what the last one counts, is
// all that was sent, but for at most the one packet that was inside the old
// rules at each switch.
func TestEveryPacketIsInAFinalValue(t *testing.T) {
	kerneltest.Run(t, func(t *testing.T) {
		n := listen(t, NoticesConfig{})
		kerneltest.Exec(t, twoRules, "iptables-nft-restore")
		commit(t, n)
		const rewrites = 30
		sent, stop := 0, make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					send(t, 10)
					sent += 10
				}
			}
		})
		var counted uint64
		for i := range rewrites {
			how := [][]string{
				{"iptables-nft", "-Z", "KUBE-A"},
				{"iptables-nft", "-R", "KUBE-A", "1", "-j", "KUBE-B"},
				{"iptables-nft-restore", "--noflush"},
			}[i%3]
			in := ""
			if len(how) == 2 {
				in = "*filter\n:KUBE-A - [0:0]\n-A KUBE-A -j KUBE-B\nCOMMIT\n"
			}
			send(t, 1) // there is no commit of -Z where nothing was counted
			kerneltest.Exec(t, in, how[0], how[1:]...)
			rules := 0
			err := next(t, n, func(m *nftables.Notice) {
				if m.Kind == nftables.DelRule && m.Chain == "KUBE-A" {
					rules++
					counted += m.Counter.Packets
				}
			})
			if err != nil || rules != 1 {
				t.Errorf("rewrite %d: %v; %d rules", i, err, rules)
				break
			}
		}
		close(stop)
		wg.Wait()
		sent += rewrites
		kerneltest.Exec(t, "", "iptables-nft", "-F", "KUBE-A")
		err := next(t, n, func(m *nftables.Notice) { counted += m.Counter.Packets })
		if err != nil {
			t.Fatal(err)
		}
		if counted > uint64(sent) || uint64(sent)-counted > rewrites {
			t.Errorf("counted %d packets of %d over %d rewrites", counted, sent, rewrites)
		}
		t.Logf("counted %d packets of %d over %d rewrites", counted, sent, rewrites)
	})
}

// next reads a commit, with a limit.
func next(t *testing.T, n *Notices, visit func(*nftables.Notice)) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	return n.Next(ctx, visit)
}

// manyRules is one commit: the limit of what a transaction may have is the
// sender's buffer, where it is not privileged in the initial namespace.
func manyRules(n int) string {
	var b strings.Builder
	b.WriteString("*filter\n:KUBE-A - [0:0]\n")
	for i := range n {
		fmt.Fprintf(&b, "-A KUBE-A -d 10.0.%d.%d/32 -j RETURN\n", i/250, i%250)
	}
	b.WriteString("COMMIT\n")
	return b.String()
}

func TestOverrun(t *testing.T) {
	kerneltest.Run(t, func(t *testing.T) {
		n := listen(t, NoticesConfig{ReceiveBuffer: 16 << 10})
		const rules = 500
		kerneltest.Exec(t, manyRules(rules), "iptables-nft-restore")
		seen := 0
		err := next(t, n, func(m *nftables.Notice) {
			if m.Kind == nftables.NewRule {
				if seen++; m.Handle == 0 || m.Chain != "KUBE-A" {
					t.Errorf("got %+v", m)
				}
			}
		})
		if !errors.Is(err, ErrOverrun) || !strings.HasPrefix(err.Error(), "read notices of nf_tables: ") {
			t.Errorf("got %v, want ErrOverrun", err)
		}
		if lost := n.Lost(); lost == 0 || seen == 0 || seen >= rules {
			t.Errorf("saw %d rules of %d, lost %d datagrams", seen, rules, lost)
		}
		// It goes on, and says it once.
		lost := n.Lost()
		kerneltest.Exec(t, "", "iptables-nft", "-A", "KUBE-A", "-j", "RETURN")
		got := commit(t, n)
		if len(got) != 2 || !strings.HasPrefix(got[0], "new rule filter KUBE-A #") || got[1] != "generation 3 by iptables-nft" {
			t.Errorf("afterwards: got %q", got)
		}
		if n.Lost() != lost {
			t.Errorf("lost %d, then %d", lost, n.Lost())
		}
		kerneltest.Exec(t, "", "iptables-nft", "-F")
		if err := next(t, n, func(*nftables.Notice) {}); !errors.Is(err, ErrOverrun) || n.Lost() <= lost {
			t.Errorf("second overrun: got %v, lost %d after %d", err, n.Lost(), lost)
		}
	})
}

// TestSeveralNoticesInADatagram: the kernel joins the messages of a commit.
func TestSeveralNoticesInADatagram(t *testing.T) {
	kerneltest.Run(t, func(t *testing.T) {
		n := listen(t, NoticesConfig{})
		counted := &countingTransport{noticeTransport: n.t}
		n.t = counted
		const rules = 300
		kerneltest.Exec(t, manyRules(rules), "iptables-nft-restore")
		var handles []uint64
		if err := next(t, n, func(m *nftables.Notice) {
			if m.Kind == nftables.NewRule {
				handles = append(handles, m.Handle)
			}
		}); err != nil {
			t.Fatal(err)
		}
		if len(handles) != rules || !slices.IsSorted(handles) || counted.datagrams*3 > rules {
			t.Errorf("%d rules in %d datagrams, in order: %v", len(handles), counted.datagrams, slices.IsSorted(handles))
		}
		t.Logf("%d rules in %d datagrams", len(handles), counted.datagrams)
	})
}

type countingTransport struct {
	noticeTransport
	datagrams int
}

func (c *countingTransport) Receive(buf []byte, wait bool) (int, error) {
	c.datagrams++
	return c.noticeTransport.Receive(buf, wait)
}

// TestNoticesOfOthersAreNone: a process may send to the group as well.
func TestNoticesOfOthersAreNone(t *testing.T) {
	kerneltest.Run(t, func(t *testing.T) {
		n := listen(t, NoticesConfig{})
		c := dialTest(t)
		raw, err := c.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		m := netlink.Message{
			Header: netlink.Header{Type: 10<<8 | 15, Length: 16 + 12},
			Data:   nlattr.AppendUint32(netfilter.AppendGenMsg(nil, netfilter.GenMsg{}), unix.NFTA_GEN_ID, 99),
		}
		b, err := m.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		if cerr := raw.Control(func(fd uintptr) {
			err = unix.Sendto(int(fd), b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1 << (noticesGroup - 1)})
		}); cerr != nil || err != nil && !errors.Is(err, unix.ECONNREFUSED) { // of the kernel's own socket
			t.Fatal(cerr, err)
		}
		memory, err := n.t.Memory()
		if err != nil || memory.used == 0 {
			t.Errorf("the message did not arrive: %+v, %v", memory, err)
		}
		kerneltest.Exec(t, "", "nft", "add", "table", "ip", "x")
		if d := cmp.Diff([]string{"new table x table-1", "generation 2 by nft"}, commit(t, n)); d != "" {
			t.Errorf("notices (-want +got):\n%s", d)
		}
	})
}

func TestNoticesNeedNetAdminOnly(t *testing.T) {
	kerneltest.Run(t, func(t *testing.T) {
		t.Run("with it", func(t *testing.T) {
			kerneltest.DropCapabilities(t, unix.CAP_NET_ADMIN)
			n := listen(t, NoticesConfig{})
			kerneltest.Exec(t, "", "nft", "add", "table", "ip", "x")
			if d := cmp.Diff([]string{"new table x table-1", "generation 2 by nft"}, commit(t, n)); d != "" {
				t.Errorf("notices (-want +got):\n%s", d)
			}
		})
		t.Run("without it", func(t *testing.T) {
			kerneltest.DropCapabilities(t)
			files := openFiles(t)
			n, err := OpenNotices(NoticesConfig{})
			var capability *CapabilityError
			if n != nil || !errors.As(err, &capability) || capability.Op != "open notices of nf_tables" || !errors.Is(err, unix.EPERM) {
				t.Errorf("got %v, want a CapabilityError", err)
			}
			if got := openFiles(t); got != files {
				t.Errorf("open files: got %d, want %d", got, files)
			}
		})
	})
}

// TestNoticesLeaveNothingBehind opens, waits, is stopped, reads on, is closed
// while it waits: again and again.
func TestNoticesLeaveNothingBehind(t *testing.T) {
	kerneltest.Run(t, func(t *testing.T) {
		round := func() {
			n := listen(t, NoticesConfig{})
			ctx, cancel := context.WithCancel(t.Context())
			waits := make(chan error)
			go func() { waits <- n.Next(ctx, func(*nftables.Notice) {}) }()
			cancel()
			if err := <-waits; !errors.Is(err, context.Canceled) {
				t.Errorf("stopped: got %v", err)
			}
			if err := n.Next(ctx, nil); !errors.Is(err, context.Canceled) {
				t.Errorf("stopped before: got %v", err)
			}
			kerneltest.Exec(t, "add table ip x\ndelete table ip x\n", "nft", "-f", "-")
			if got := commit(t, n); len(got) != 3 || !strings.HasPrefix(got[2], "generation ") {
				t.Errorf("after a stop: got %q", got)
			}
			go func() { waits <- n.Next(t.Context(), func(*nftables.Notice) {}) }()
			if err := errors.Join(n.Close(), n.Close()); err != nil {
				t.Error(err)
			}
			if err := <-waits; !errors.Is(err, os.ErrClosed) {
				t.Errorf("closed: got %v", err)
			}
			if n.Lost() != 0 {
				t.Error("lost after close")
			}
		}
		round()
		files, goroutines := openFiles(t), runtime.NumGoroutine()
		for range 10 {
			round()
		}
		if got := openFiles(t); got != files {
			t.Errorf("open files: got %d, want %d", got, files)
		}
		if got := runtime.NumGoroutine(); got > goroutines {
			t.Errorf("goroutines: got %d, want %d", got, goroutines)
		}
		if got := inGroups(t); got != 0 {
			t.Errorf("%d sockets left in groups", got)
		}
		n := listen(t, NoticesConfig{})
		if got := inGroups(t); got != 1 {
			t.Errorf("open: %d sockets in groups, want 1", got)
		}
		if err := n.Close(); err != nil || inGroups(t) != 0 {
			t.Errorf("closed: %v, %d sockets in groups", err, inGroups(t))
		}
	})
}

// inGroups counts the namespace's netfilter sockets that are in a group.
func inGroups(t *testing.T) (n int) {
	t.Helper()
	sockets, err := os.ReadFile("/proc/thread-self/net/netlink")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(sockets)) {
		if f := strings.Fields(line); len(f) > 3 && f[1] == strconv.Itoa(unix.NETLINK_NETFILTER) && f[3] != "00000000" {
			n++
		}
	}
	return n
}
