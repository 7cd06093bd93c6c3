// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/svcscope/svcscope/pkg/internal/kerneltest"
	"github.com/svcscope/svcscope/pkg/netfilter/nftables"
)

func listen(tb testing.TB, cfg NoticesConfig) *Notices {
	tb.Helper()
	n, err := OpenNotices(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = n.Close() })
	return n
}

// commit returns the next commit's notices as text, one a line.
func commit(t *testing.T, n *Notices) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var out []string
	err := n.Next(ctx, func(m *nftables.Notice) {
		if m.Kind == nftables.NoticeOther {
			out = append(out, fmt.Sprintf("type %#x", m.Type))
			return
		}
		if m.Kind == nftables.NewGen {
			out = append(out, fmt.Sprintf("generation %d by %s", m.Gen.ID, m.Gen.ProcName))
			return
		}
		s := fmt.Sprintf("%v %s", m.Kind, m.Table)
		if m.Chain != "" {
			s += " " + m.Chain
		}
		if m.TableHandle != 0 {
			s += fmt.Sprintf(" table-%d", m.TableHandle)
		}
		if m.Handle != 0 {
			s += fmt.Sprintf(" #%d", m.Handle)
		}
		if m.HasCounter {
			s += fmt.Sprintf(" [%d:%d]", m.Counter.Packets, m.Counter.Bytes)
		}
		out = append(out, s)
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// send sends n UDP datagrams of 33 bytes to an address of lo, that nobody
// listens at. Rules of OUTPUT have counted them when it returns.
func send(tb testing.TB, n int) {
	tb.Helper()
	c, err := net.Dial("udp", "127.0.0.9:9")
	if err != nil {
		tb.Fatal(err)
	}
	defer c.Close()
	for range n {
		// Every other write returns the refusal of the one before.
		if _, err := c.Write([]byte("hello")); err != nil && !errors.Is(err, unix.ECONNREFUSED) {
			tb.Fatal(err)
		} else if err != nil {
			if _, err = c.Write([]byte("hello")); err != nil {
				tb.Fatal(err)
			}
		}
	}
}

const twoRules = `*filter
:KUBE-A - [0:0]
:KUBE-B - [0:0]
-A OUTPUT -d 127.0.0.9/32 -j KUBE-A
-A KUBE-A -m comment --comment "ns/svc" -j KUBE-B
COMMIT
`

// TestCommitsOfIptables writes as kube-proxy and others do, with traffic in
// between, and looks at all notices of rules.
func TestCommitsOfIptables(t *testing.T) {
	chainA := "*filter\n:KUBE-A - [0:0]\n-A KUBE-A -m comment --comment \"ns/svc\" -j KUBE-B\nCOMMIT\n"
	saved := func(t *testing.T) string { return kerneltest.Exec(t, "", "iptables-nft-save", "-c", "-t", "filter") }
	tests := []struct {
		name  string
		write func(t *testing.T)
		want  []string
	}{
		{"restore of one chain", func(t *testing.T) { kerneltest.Exec(t, chainA, "iptables-nft-restore", "--noflush", "--counters") }, []string{
			"deleted rule filter KUBE-A #5 [3:99]", "new rule filter KUBE-A #6 [0:0]", "generation 3 by iptables-nft-re",
		}},
		{"zeroed", func(t *testing.T) { kerneltest.Exec(t, "", "iptables-nft", "-Z") }, []string{
			"deleted rule filter OUTPUT #4 [3:99]", "new rule filter OUTPUT #4 [0:0]",
			"deleted rule filter KUBE-A #5 [3:99]", "new rule filter KUBE-A #5 [0:0]", "generation 3 by iptables-nft",
		}},
		{"rule replaced", func(t *testing.T) { kerneltest.Exec(t, "", "iptables-nft", "-R", "KUBE-A", "1", "-j", "KUBE-B") }, []string{
			"deleted rule filter KUBE-A #5 [3:99]", "new rule filter KUBE-A #5 [0:0]", "generation 3 by iptables-nft",
		}},
		{"chain flushed", func(t *testing.T) { kerneltest.Exec(t, "", "iptables-nft", "-F", "KUBE-A") }, []string{
			"deleted rule filter KUBE-A #5 [3:99]", "generation 3 by iptables-nft",
		}},
		{"table flushed", func(t *testing.T) { kerneltest.Exec(t, "", "iptables-nft", "-F") }, []string{
			"deleted rule filter KUBE-A #5 [3:99]", "deleted rule filter OUTPUT #4 [3:99]", "generation 3 by iptables-nft",
		}},
		{"whole table restored with counters", func(t *testing.T) { kerneltest.Exec(t, saved(t), "iptables-nft-restore", "--counters") }, []string{
			"deleted rule filter KUBE-A #5 [3:99]", "deleted rule filter OUTPUT #4 [3:99]", "deleted table filter table-1",
			"new table filter table-2", "new rule filter OUTPUT #6 [3:99]", "new rule filter KUBE-A #7 [3:99]",
			"generation 3 by iptables-nft-re",
		}},
		{"whole table restored", func(t *testing.T) { kerneltest.Exec(t, saved(t), "iptables-nft-restore") }, []string{
			"deleted rule filter KUBE-A #5 [3:99]", "deleted rule filter OUTPUT #4 [3:99]", "deleted table filter table-1",
			"new table filter table-2", "new rule filter OUTPUT #6 [0:0]", "new rule filter KUBE-A #7 [0:0]",
			"generation 3 by iptables-nft-re",
		}},
		{"the same table again", func(t *testing.T) { kerneltest.Exec(t, twoRules, "iptables-nft-restore") }, []string{
			"deleted rule filter KUBE-A #5 [3:99]", "deleted rule filter OUTPUT #4 [3:99]", "deleted table filter table-1",
			"new table filter table-2", "new rule filter OUTPUT #4 [0:0]", "new rule filter KUBE-A #5 [0:0]",
			"generation 3 by iptables-nft-re",
		}},
		{"table deleted", func(t *testing.T) { kerneltest.Exec(t, "", "nft", "delete", "table", "ip", "filter") }, []string{
			"deleted rule filter KUBE-A #5 [3:99]", "deleted rule filter OUTPUT #4 [3:99]", "deleted table filter table-1",
			"generation 3 by nft",
		}},
		{"ruleset flushed", func(t *testing.T) { kerneltest.Exec(t, "", "nft", "flush", "ruleset") }, []string{
			"deleted rule filter KUBE-A #5 [3:99]", "deleted rule filter OUTPUT #4 [3:99]", "deleted table filter table-1",
			"generation 3 by nft",
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			kerneltest.Run(t, func(t *testing.T) {
				n := listen(t, NoticesConfig{})
				kerneltest.Exec(t, twoRules, "iptables-nft-restore")
				want := []string{
					"new table filter table-1", "new chain filter KUBE-A #1", "new chain filter KUBE-B #2",
					"new chain filter OUTPUT #3", "new rule filter OUTPUT #4 [0:0]", "new rule filter KUBE-A #5 [0:0]",
					"generation 2 by iptables-nft-re",
				}
				if d := cmp.Diff(want, commit(t, n)); d != "" {
					t.Fatalf("first load (-want +got):\n%s", d)
				}
				send(t, 3)
				tt.write(t)
				got := slices.DeleteFunc(commit(t, n), func(s string) bool { return strings.Contains(s, " chain ") })
				if d := cmp.Diff(tt.want, got); d != "" {
					t.Errorf("notices (-want +got):\n%s", d)
				}
				if n.Lost() != 0 {
					t.Errorf("%d datagrams lost", n.Lost())
				}
			})
		})
	}
}

func TestCommitsOfChainsAndSets(t *testing.T) {
	kerneltest.Run(t, func(t *testing.T) {
		n := listen(t, NoticesConfig{})
		kerneltest.Exec(t, twoRules, "iptables-nft-restore")
		commit(t, n)
		steps := []struct {
			write []string
			want  []string
		}{
			{[]string{"iptables-nft", "-F", "KUBE-A"}, []string{"deleted rule filter KUBE-A #5 [0:0]", "generation 3 by iptables-nft"}},
			{[]string{"iptables-nft", "-X", "KUBE-B"}, []string{"deleted chain filter KUBE-B #2", "generation 4 by iptables-nft"}},
			{
				[]string{"nft", "add", "table", "ip6", "t", "{", "set", "s", "{", "type", "ipv4_addr", ";", "}", ";", "}"},
				[]string{"new table t table-2", "type 0xa09", "generation 5 by nft"},
			},
			{[]string{"nft", "add", "element", "ip6", "t", "s", "{", "192.0.2.1", "}"}, []string{"type 0xa0c", "generation 6 by nft"}},
		}
		for _, s := range steps {
			kerneltest.Exec(t, "", s.write[0], s.write[1:]...)
			if d := cmp.Diff(s.want, commit(t, n)); d != "" {
				t.Errorf("%v (-want +got):\n%s", s.write, d)
			}
		}
	})
}
