// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"errors"
	"fmt"
	"net"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/svcscope/svcscope/pkg/internal/kerneltest"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/xtables"
)

// legacyFamily is what the tests of a family need.
type legacyFamily struct {
	family netfilter.Family
	tool   string // iptables-legacy
	names  string // file below /proc/thread-self/net
	scene  string
	local  string // an address of lo
}

func legacyFamilies() []legacyFamily {
	const scenes = "../../hack/capture/xtables/scenes/"
	return []legacyFamily{
		{netfilter.IPv4, "iptables-legacy", "ip_tables_names", scenes + "plain.ipv4.rules", "127.0.0.1"},
		{netfilter.IPv6, "ip6tables-legacy", "ip6_tables_names", scenes + "plain.ipv6.rules", "::1"},
	}
}

func openLegacy(tb testing.TB) *Legacy {
	tb.Helper()
	r, err := OpenLegacy(LegacyConfig{})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := r.Close(); err != nil {
			tb.Error(err)
		}
	})
	return r
}

// needLegacy skips kernels without CONFIG_IP_NF_IPTABLES_LEGACY.
func needLegacy(tb testing.TB, tool string) {
	tb.Helper()
	kerneltest.NeedTool(tb, tool)
	kerneltest.Need(tb, kerneltest.Feature{Name: "x_tables (" + tool + ")", Probe: func() error {
		_, err := kerneltest.TryExec(tb, "", tool, "-t", "filter", "-S")
		return err
	}})
}

// legacyLines says of each chain and rule what the oracle's text says too.
func legacyLines(table *xtables.Table) (lines []string, err error) {
	var rules []string
	err = table.Walk(func(c *xtables.Chain) error {
		if err := c.Check(); err != nil {
			return err
		}
		head := ":" + string(c.Name) + " - [0:0]"
		if c.Builtin {
			n := c.Counter()
			policy := map[xtables.Verdict]string{xtables.VerdictAccept: "ACCEPT", xtables.VerdictDrop: "DROP"}[c.Policy()]
			head = fmt.Sprintf(":%s %s [%d:%d]", c.Name, policy, n.Packets, n.Bytes)
		}
		lines = append(lines, head)
		for r := range c.Rules() {
			n, a := r.Counter(), r.Action()
			words := []string{fmt.Sprintf("[%d:%d] -A %s", n.Packets, n.Bytes, c.Name)}
			if c := r.Comment(); c != "" {
				words = append(words, `--comment "`+c+`"`)
			}
			switch a.Kind {
			case xtables.Jump:
				words = append(words, "-j "+string(a.Chain))
			case xtables.Goto:
				words = append(words, "-g "+string(a.Chain))
			case xtables.RunExtension:
				words = append(words, "-j "+a.Target.Name)
			case xtables.Accept, xtables.Drop, xtables.Return, xtables.Queue:
				words = append(words, "-j "+[...]string{
					xtables.Accept: "ACCEPT", xtables.Drop: "DROP", xtables.Return: "RETURN", xtables.Queue: "QUEUE",
				}[a.Kind])
			}
			rules = append(rules, strings.Join(words, " "))
		}
		return nil
	})
	return append(lines, rules...), err
}

var savedWords = regexp.MustCompile(`^\[\d+:\d+\] -A \S+|-[jg] \S+|--comment "[^"]*"`)

// savedLines reduces iptables-save -c to the same.
func savedLines(text string) (lines []string) {
	for line := range strings.Lines(text) {
		switch line = strings.TrimSpace(line); {
		case strings.HasPrefix(line, ":"):
			lines = append(lines, line)
		case strings.HasPrefix(line, "["):
			lines = append(lines, strings.Join(savedWords.FindAllString(line, -1), " "))
		}
	}
	return lines
}

func TestLegacyReadsWhatIptablesSaves(t *testing.T) {
	for _, f := range legacyFamilies() {
		t.Run(f.family.String(), func(t *testing.T) {
			kerneltest.Run(t, func(t *testing.T) {
				needLegacy(t, f.tool)
				rules, err := os.ReadFile(f.scene)
				if err != nil {
					t.Fatal(err)
				}
				kerneltest.Exec(t, string(rules), f.tool+"-restore")
				sendUDP(t, f.local, 5)
				r := openLegacy(t)
				tables, err := r.Tables(t.Context(), f.family)
				if err != nil {
					t.Fatal(err)
				}
				if want := []string{"filter", "mangle", "nat", "raw"}; !cmp.Equal(slices.Sorted(slices.Values(tables)), want) {
					t.Errorf("tables %v, want %v", tables, want)
				}
				counted := false
				for _, name := range tables {
					var got []string
					err := r.Read(t.Context(), f.family, name, func(table *xtables.Table) error {
						var err error
						got, err = legacyLines(table)
						return err
					})
					if err != nil {
						t.Fatal(err)
					}
					want := savedLines(kerneltest.Exec(t, "", f.tool+"-save", "-c", "-t", name))
					if diff := cmp.Diff(want, got); diff != "" {
						t.Errorf("table %s (-%s-save +ours):\n%s", name, f.tool, diff)
					}
					counted = counted || slices.ContainsFunc(got, func(s string) bool {
						return strings.HasPrefix(s, "[") && !strings.HasPrefix(s, "[0:0]")
					})
				}
				if !counted {
					t.Error("no rule has counted a packet: the comparison says little")
				}
			})
		})
	}
}

// sendUDP sends n datagrams to nobody.
func sendUDP(t *testing.T, address string, n int) {
	t.Helper()
	c, err := net.Dial("udp", net.JoinHostPort(address, "9"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	for range n {
		_, _ = c.Write([]byte("x")) // the error is the answer to the one before
	}
}

func TestLegacyReadingCreatesNoTable(t *testing.T) {
	for _, f := range legacyFamilies() {
		t.Run(f.family.String(), func(t *testing.T) {
			kerneltest.Run(t, func(t *testing.T) {
				path := "/proc/thread-self/net/" + f.names
				kerneltest.Need(t, kerneltest.Feature{Name: "x_tables of " + f.family.String(), Probe: func() error {
					_, err := os.Stat(path)
					return err
				}})
				names := func() string {
					b, err := os.ReadFile(path)
					if err != nil {
						t.Fatal(err)
					}
					return strings.TrimSpace(string(b))
				}
				if got := names(); got != "" {
					t.Fatalf("a new namespace has the tables %q", got)
				}
				r := openLegacy(t)
				tables, err := r.Tables(t.Context(), f.family)
				if err != nil || len(tables) != 0 {
					t.Errorf("got tables %v, %v", tables, err)
				}
				for _, name := range []string{"nat", "filter", "mangle", "raw", "security", "nonsense"} {
					if err := r.Read(t.Context(), f.family, name, ignore); !errors.Is(err, ErrAbsent) {
						t.Errorf("read %s: got %v, want ErrAbsent", name, err)
					}
				}
				if got := names(); got != "" {
					t.Errorf("reading created the tables %q", got)
				}
				// The trap that this test is about: the bare question does it.
				if _, err := r.info(map[netfilter.Family]int{netfilter.IPv4: unix.IPPROTO_IP, netfilter.IPv6: unix.IPPROTO_IPV6}[f.family], "nat"); err != nil {
					t.Fatal(err)
				}
				if got := names(); got != "nat" {
					t.Errorf("GET_INFO without the check created %q: the test proves nothing", got)
				}
			})
		})
	}
}

func TestLegacyNeedsNetAdminOnly(t *testing.T) {
	tests := []struct {
		name string
		keep []int
		ok   bool
	}{
		{"CAP_NET_ADMIN alone", []int{unix.CAP_NET_ADMIN}, true},
		{"all others that containers have", []int{unix.CAP_NET_RAW, unix.CAP_DAC_OVERRIDE, unix.CAP_SYS_ADMIN}, false},
		{"none", nil, false},
	}
	for _, tt := range tests {
		for _, f := range legacyFamilies() {
			t.Run(tt.name+" "+f.family.String(), func(t *testing.T) {
				kerneltest.Run(t, func(t *testing.T) {
					needLegacy(t, f.tool)
					kerneltest.DropCapabilities(t, tt.keep...)
					r := openLegacy(t)
					err := r.Read(t.Context(), f.family, "filter", ignore)
					if tt.ok {
						if err != nil {
							t.Error(err)
						}
						return
					}
					var c *CapabilityError
					if !errors.As(err, &c) || c.Cap != "CAP_NET_ADMIN" || !errors.Is(err, unix.EPERM) {
						t.Errorf("got %v, want a CapabilityError of CAP_NET_ADMIN", err)
					}
					if err != nil && !strings.Contains(err.Error(), "filter") {
						t.Errorf("%v does not name the table", err)
					}
				})
			})
		}
	}
}

func TestLegacyLeavesNothingOpen(t *testing.T) {
	kerneltest.Run(t, func(t *testing.T) {
		needLegacy(t, "iptables-legacy")
		count := func() int {
			entries, err := os.ReadDir("/proc/self/fd")
			if err != nil {
				t.Fatal(err)
			}
			return len(entries)
		}
		before := count()
		for range 50 {
			r, err := OpenLegacy(LegacyConfig{})
			if err != nil {
				t.Fatal(err)
			}
			if err := r.Read(t.Context(), netfilter.IPv4, "filter", ignore); err != nil {
				t.Fatal(err)
			}
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if after := count(); after != before {
			t.Errorf("%d open files, %d before", after, before)
		}
	})
}

// TestLegacyReadsWhileRulesChange reads with a writer at work: every reading
// is one of the table's states or ErrInterrupted.
func TestLegacyReadsWhileRulesChange(t *testing.T) {
	kerneltest.Run(t, func(t *testing.T) {
		needLegacy(t, "iptables-legacy")
		const rounds = 60
		done := make(chan error, 1)
		go func() {
			for i := range rounds {
				op := [...]string{"-A", "-D"}[i%2]
				if _, err := kerneltest.TryExec(t, "", "iptables-legacy", "-w", op, "INPUT", "-p", "tcp", "-j", "ACCEPT"); err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
		r := openLegacy(t)
		seen := map[int]int{}
		for {
			select {
			case err := <-done:
				if err != nil {
					t.Fatal(err)
				}
				if seen[0] == 0 || seen[1] == 0 || len(seen) != 2 {
					t.Errorf("rules: readings %v, want some of 0 and of 1", seen)
				}
				return
			default:
			}
			err := r.Read(t.Context(), netfilter.IPv4, "filter", func(table *xtables.Table) error {
				return table.Walk(func(c *xtables.Chain) error {
					if string(c.Name) == "INPUT" {
						seen[c.Len]++
					}
					return nil
				})
			})
			if err != nil && !errors.Is(err, ErrInterrupted) {
				t.Fatal(err)
			}
		}
	})
}
