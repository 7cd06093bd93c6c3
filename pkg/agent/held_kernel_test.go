// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/svcscope/svcscope/pkg/correlate"
	"github.com/svcscope/svcscope/pkg/internal/kerneltest"
	"github.com/svcscope/svcscope/pkg/kernel"
	"github.com/svcscope/svcscope/pkg/netfilter/nflog"
)

// holderEnv is set in the process that holdGroup starts.
const holderEnv = "SVCSCOPE_TEST_HOLDER"

// readHeld is another program, which reads group 100: as many packets as it is told on its
// standard input.
func readHeld(t *testing.T) {
	t.Helper()
	l, err := kernel.OpenPacketLog(100, kernel.PacketLogConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	fmt.Println("holding")
	var want uint64
	if _, err := fmt.Scan(&want); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for s := l.Stats(); s.Received+s.Lost < want; s = l.Stats() {
		if err := l.Next(ctx, func(*nflog.Packet) {}); err != nil {
			t.Fatalf("%v, after %+v of %d", err, s, want)
		}
	}
	fmt.Printf("got %+v\n", l.Stats())
}

// holder is a process that reads group 100.
type holder struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
	out   *bufio.Reader
}

func holdGroup(t *testing.T) *holder {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	h := &holder{cmd: exec.CommandContext(t.Context(), exe, "-test.run=^TestGroupOfAnotherProcess$", "-test.timeout=2m")}
	h.cmd.Env, h.cmd.Stderr = append(os.Environ(), holderEnv+"=1"), os.Stderr
	stdout, err := h.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if h.stdin, err = h.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := h.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	h.out = bufio.NewReader(stdout)
	if line, err := h.out.ReadString('\n'); line != "holding\n" {
		t.Fatalf("the holder says %q, %v", line, err)
	}
	return h
}

// end waits until it has got n packets, and all of them, and has ended.
func (h *holder) end(t *testing.T, n uint64) {
	t.Helper()
	fmt.Fprintln(h.stdin, n)
	rest, err := io.ReadAll(h.out)
	if err != nil {
		t.Error(err)
	}
	want := fmt.Sprintf("got %+v\n", kernel.PacketLogStats{Received: n})
	if err := h.cmd.Wait(); err != nil || !strings.HasPrefix(string(rest), want) {
		t.Errorf("the holder: %v, says %q, want %q", err, rest, want)
	}
}

// TestGroupOfAnotherProcess is told while it is held, left alone, and read once it is free:
// after ten minutes where nobody has named it.
func TestGroupOfAnotherProcess(t *testing.T) {
	if os.Getenv(holderEnv) != "" {
		readHeld(t)
		return
	}
	for _, choice := range []string{groupsAuto, "100"} {
		t.Run(choice, func(t *testing.T) {
			kerneltest.Run(t, func(t *testing.T) { groupOfAnother(t, choice) })
		})
	}
}

// loadCalicos adds a chain as Calico has them, which logs to a group of its own.
func loadCalicos(t *testing.T, f *family) {
	t.Helper()
	f.restore(t, "nft", `*filter
:cali-pi-shop - [0:0]
-A cali-pi-shop -m comment --comment "cali:abcdefghijklmnop" -j NFLOG --nflog-group 1 --nflog-prefix "DPI|shop/strict"
COMMIT
`)
}

func groupOfAnother(t *testing.T, choice string) {
	f := ipv4()
	f.load(t, "nft")
	f.restore(t, "nft", f.chaosRules(""))
	loadLogged(t, &f, "nft")
	loadCalicos(t, &f)
	h := holdGroup(t)
	before, err := kernel.LogGroups()
	if err != nil || len(before) != 1 || int(before[0].PortID) != h.cmd.Process.Pid {
		t.Fatalf("bound are %v, %v, want group 100 of process %d", before, err, h.cmd.Process.Pid)
	}
	cfg := testConfig()
	cfg.NFLOGGroup = choice
	s := newTestSampler(cfg)
	defer s.close()
	ctx, stop := context.WithCancel(t.Context())
	start := time.Now()
	look := func(after time.Duration) {
		s.pass(ctx)
		s.groups.choose(ctx, s.dropInputs, start.Add(after))
		s.pass(ctx) // which publishes what was chosen
	}
	judge := func(when string, success float64, want ...correlate.LogGroupReport) {
		t.Helper()
		r := correlate.NewDropsReport(s.latest.Load(), nil, nil)
		if choice == groupsAuto {
			want = append([]correlate.LogGroupReport{{
				Group: 1, State: correlate.LogGroupLeft, Error: "NFLOG group 1 is left alone: Calico, whose chains are here, may bind it at any time", Rules: 1,
			}}, want...)
		}
		for i := range r.Groups {
			r.Groups[i].Conntrack = false // as the kernel has it
		}
		if d := cmp.Diff(want, r.Groups); d != "" {
			t.Errorf("%s: groups (-want +got):\n%s", when, d)
		}
		m := page(t, s)
		for _, g := range want {
			if got := m.sum("svcscope_nflog_group_state", fmt.Sprint("group=", g.Group), "state="+string(g.State)); got != 1 {
				t.Errorf("%s: svcscope_nflog_group_state of group %d: %v with state %s", when, g.Group, got, g.State)
			}
		}
		if got := m.sum("svcscope_nflog_group_state"); got != float64(len(want)) {
			t.Errorf("%s: %v states of %d groups", when, got, len(want))
		}
		if got := m.sum("svcscope_collector_success", "collector=nflog"); got != success {
			t.Errorf("%s: the collector's success is %v, want %v", when, got, success)
		}
		if reads := want[len(want)-1].Bound; (r.NoEvents == "") != reads || !reads && r.NoEvents != correlate.NoEventsNotRead {
			t.Errorf("%s: no events because of %q", when, r.NoEvents)
		}
	}
	at := func(after time.Duration) *time.Time { return new(start.Add(after).UTC().Truncate(time.Millisecond)) }
	held := correlate.LogGroupReport{Group: 100, State: correlate.LogGroupHeld, HolderPort: before[0].PortID, Rules: 2}
	says := fmt.Sprintf("NFLOG group 100 is held by netlink port %d", before[0].PortID)

	look(0)
	const packets = 5
	send(t, &f, podPort, packets)
	var again time.Duration
	if choice == groupsAuto {
		held.Error = says + "; it is to be read once it has been free for 10 minutes"
		judge("held", 1, held)
		look(freeBefore)
		judge("held for long", 1, held)
	} else {
		held.Error, held.Next = "bind NFLOG group 100: "+says, at(firstRetry)
		judge("held", 0, held)
		look(firstRetry)
		again = firstRetry + 2*firstRetry
		held.Next = at(again)
		judge("tried again", 0, held)
	}
	if now, err := kernel.LogGroups(); err != nil || !cmp.Equal(before, now) {
		t.Errorf("bound are %v, %v, were %v", now, err, before)
	}
	h.end(t, packets)

	if choice == groupsAuto {
		again = 2*freeBefore + firstRetry
		look(freeBefore + firstRetry)
		judge("free", 1, correlate.LogGroupReport{
			Group: 100, State: correlate.LogGroupWaiting, Error: "nobody reads NFLOG group 100; it is to be read once it has been free for 10 minutes",
			Next: at(again), Rules: 2,
		})
	} else {
		look(again - time.Second)
		judge("free", 0, held) // it cannot be known before it is tried
	}
	look(again)
	judge("read", 1, correlate.LogGroupReport{Group: 100, Bound: true, State: correlate.LogGroupRead, Rules: 2})
	send(t, &f, podPort, packets)
	deadline := time.Now().Add(10 * time.Second)
	for s.groups.events.newest(0) < packets && time.Now().Before(deadline) {
		time.Sleep(time.Millisecond)
	}
	s.pass(ctx)
	judge("received", 1, correlate.LogGroupReport{Group: 100, Bound: true, State: correlate.LogGroupRead, Packets: packets, Rules: 2})
	stop()
	s.groups.release(100)
	if all, err := kernel.LogGroups(); err != nil || len(all) != 0 {
		t.Errorf("%v, %v: still bound", all, err)
	}
}
