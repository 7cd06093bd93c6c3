// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/svcscope/svcscope/pkg/internal/kerneltest"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/nftables"
)

// load builds rules as kube-proxy and other tools write them.
func load(t *testing.T) {
	t.Helper()
	const dir = "../netfilter/nftables/testdata/scenes/"
	for _, l := range []struct {
		file string
		tool []string
	}{
		{"kube-proxy.rules", []string{"iptables-nft-restore", "--counters"}},
		{"kube-proxy.rules6", []string{"ip6tables-nft-restore", "--counters"}},
		{"kube-proxy-nftables.nft", []string{"nft", "-f", "-"}},
		{"native.nft", []string{"nft", "-f", "-"}},
	} {
		text, err := os.ReadFile(dir + l.file)
		if err != nil {
			t.Fatal(err)
		}
		kerneltest.Exec(t, string(text), l.tool[0], l.tool[1:]...)
	}
}

func open(t *testing.T) *NFTables {
	t.Helper()
	n, err := OpenNFTables()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = n.Close() })
	return n
}

func read(t *testing.T, n *NFTables) *NFTablesReading {
	t.Helper()
	r, err := n.Read(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestReadAsNFTLists(t *testing.T) {
	kerneltest.Run(t, func(t *testing.T) {
		load(t)
		r := read(t, open(t))
		var got []string
		for _, table := range r.Tables {
			family := map[netfilter.Family]string{netfilter.IPv4: "ip", netfilter.IPv6: "ip6"}[table.Family]
			for _, c := range table.Chains {
				for _, rule := range c.Rules {
					s := fmt.Sprint(family, " ", rule.Table, " ", rule.Chain, " ", rule.Handle)
					if n, ok := rule.Counter(); ok {
						s += fmt.Sprint(" ", n.Packets, ":", n.Bytes)
					}
					got = append(got, s)
				}
			}
		}
		want := listed(t)
		slices.Sort(got)
		slices.Sort(want)
		if d := cmp.Diff(want, got); d != "" || len(got) < 200 {
			t.Errorf("%d rules (-want +got):\n%s", len(got), d)
		}
		if len(r.Skipped) != 0 || r.Retries != 0 {
			t.Errorf("skipped %v, %v; %d retries", r.Skipped, r.SkipErr, r.Retries)
		}
		if len(r.Undecoded) == 0 {
			t.Error("no undecoded expression, although the scene has some")
		}
	})
}

// listed lists the rules of the families ip and ip6 as nft sees them.
func listed(t *testing.T) (out []string) {
	t.Helper()
	var doc struct {
		Nftables []struct {
			Rule *struct {
				Family, Table, Chain string
				Handle               uint64
				Expr                 []map[string]json.RawMessage
			}
		}
	}
	if err := json.Unmarshal([]byte(kerneltest.Exec(t, "", "nft", "-j", "list", "ruleset")), &doc); err != nil {
		t.Fatal(err)
	}
	for _, o := range doc.Nftables {
		if o.Rule == nil || o.Rule.Family != "ip" && o.Rule.Family != "ip6" {
			continue
		}
		s := fmt.Sprint(o.Rule.Family, " ", o.Rule.Table, " ", o.Rule.Chain, " ", o.Rule.Handle)
		for _, e := range o.Rule.Expr {
			var n struct{ Packets, Bytes uint64 }
			// The counter of an object is a string here.
			if raw, ok := e["counter"]; ok && json.Unmarshal(raw, &n) == nil {
				s += fmt.Sprint(" ", n.Packets, ":", n.Bytes)
			}
		}
		out = append(out, s)
	}
	return out
}

func TestReadAsIptablesSaves(t *testing.T) {
	kerneltest.Run(t, func(t *testing.T) {
		load(t)
		// iptables-nft-save refuses tables with rules it cannot print.
		for _, args := range [][]string{{"ip", "tool"}, {"ip", "kube-proxy"}, {"ip6", "kube-proxy"}} {
			kerneltest.Exec(t, "", "nft", append([]string{"delete", "table"}, args...)...)
		}
		r := read(t, open(t))
		line := regexp.MustCompile(`^(\[\d+:\d+\]) -A (\S+)`)
		for family, tool := range map[netfilter.Family]string{netfilter.IPv4: "iptables-nft-save", netfilter.IPv6: "ip6tables-nft-save"} {
			want, got := map[string][]string{}, map[string][]string{}
			table := ""
			for l := range strings.Lines(kerneltest.Exec(t, "", tool, "-c")) {
				if strings.HasPrefix(l, "*") {
					table = strings.TrimSpace(l[1:])
				}
				if m := line.FindStringSubmatch(l); m != nil {
					want[table+" "+m[2]] = append(want[table+" "+m[2]], m[1])
				}
			}
			for _, tab := range r.Tables {
				for _, c := range tab.Chains {
					for _, rule := range c.Rules {
						if n, _ := rule.Counter(); rule.Family == family {
							key := tab.Name + " " + c.Name
							got[key] = append(got[key], fmt.Sprintf("[%d:%d]", n.Packets, n.Bytes))
						}
					}
				}
			}
			if d := cmp.Diff(want, got); d != "" || len(got) < 10 {
				t.Errorf("%s (-want +got):\n%s", tool, d)
			}
		}
	})
}

func TestReadNeedsNetAdminOnly(t *testing.T) {
	kerneltest.Run(t, func(t *testing.T) {
		load(t)
		t.Run("with it", func(t *testing.T) {
			kerneltest.DropCapabilities(t, unix.CAP_NET_ADMIN)
			if r := read(t, open(t)); len(r.Tables) == 0 {
				t.Error("no tables")
			}
			c, err := OpenConntrack()
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if _, err := c.Stats(t.Context()); err != nil {
				t.Error(err)
			}
			for name, f := range map[string]func() (uint64, error){
				"limit":   func() (uint64, error) { return c.Limit(t.Context()) },
				"buckets": func() (uint64, error) { return c.Buckets(t.Context()) },
			} {
				if n, err := f(); n == 0 || err != nil {
					t.Errorf("%s: got %d, %v", name, n, err)
				}
			}
		})
		t.Run("without it", func(t *testing.T) {
			kerneltest.DropCapabilities(t)
			_, err := OpenNFTables()
			var capability *CapabilityError
			if !errors.As(err, &capability) || capability.Cap != "CAP_NET_ADMIN" || !errors.Is(err, unix.EPERM) {
				t.Errorf("got %v, want a CapabilityError", err)
			}
			c, err := OpenConntrack()
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if _, err := c.Stats(t.Context()); !errors.As(err, &capability) {
				t.Errorf("statistics: got %v, want a CapabilityError", err)
			}
		})
	})
}

// TestRulesetChangesUnderTheReader changes the ruleset between the reading of
// two chains: the reader starts anew and what it returns is of one state.
func TestRulesetChangesUnderTheReader(t *testing.T) {
	kerneltest.Run(t, func(t *testing.T) {
		load(t)
		n := open(t)
		changed := false
		change := func(_ nftables.Table, chains []nftables.Chain) []nftables.Chain {
			if !changed {
				changed = true
				kerneltest.Exec(t, "", "nft", "add", "chain", "ip", "tool", "late")
			}
			return chains
		}
		r, err := n.Read(t.Context(), change)
		if err != nil || r.Retries != 1 {
			t.Fatalf("got %v, want one retry", err)
		}
		i := slices.IndexFunc(r.Tables, func(tc nftables.TableContent) bool { return tc.Name == "tool" })
		if !slices.ContainsFunc(r.Tables[i].Chains, func(c nftables.ChainContent) bool { return c.Name == "late" }) {
			t.Error("the new chain is missing")
		}
		if gen, err := n.Generation(t.Context()); gen != r.Generation || err != nil {
			t.Errorf("generation: got %d, %v; want %d", gen, err, r.Generation)
		}
		_, err = n.Read(t.Context(), func(_ nftables.Table, chains []nftables.Chain) []nftables.Chain {
			kerneltest.Exec(t, "flush chain ip tool late\nadd rule ip tool late accept\n", "nft", "-f", "-")
			return chains
		})
		if !errors.Is(err, ErrInterrupted) {
			t.Errorf("changes for ever: got %v, want ErrInterrupted", err)
		}
	})
}

func TestReadingsLeaveNothingBehind(t *testing.T) {
	kerneltest.Run(t, func(t *testing.T) {
		load(t)
		n := open(t)
		read(t, n)
		before := openFiles(t)
		goroutines := runtime.NumGoroutine()
		gen, err := n.Generation(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for range 20 {
			read(t, n)
		}
		if got := openFiles(t); got != before {
			t.Errorf("open files: got %d, want %d", got, before)
		}
		if got := runtime.NumGoroutine(); got > goroutines {
			t.Errorf("goroutines: got %d, want %d", got, goroutines)
		}
		if after, err := n.Generation(t.Context()); after != gen || err != nil {
			t.Errorf("generation moved from %d to %d by reading (%v)", gen, after, err)
		}
	})
}

func openFiles(t *testing.T) int {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(fds)
}
