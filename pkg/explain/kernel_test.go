// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/svcscope/svcscope/pkg/capture"
	"github.com/svcscope/svcscope/pkg/internal/kerneltest"
	"github.com/svcscope/svcscope/pkg/internal/realcluster"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/ruleset"
)

// TestCommandsOfRules: with the captured rules in the kernel, each command prints its
// rule with the counter that is told.
func TestCommandsOfRules(t *testing.T) {
	for _, s := range realcluster.All() {
		t.Run(s.File, func(t *testing.T) {
			kerneltest.Run(t, func(t *testing.T) {
				// The objects of nfacct are not there, and the rules that count with them cannot be.
				text := regexp.MustCompile("-m nfacct --nfacct-name +[a-z_]+ ").ReplaceAllString(saved(t, s), "")
				tool := "iptables"
				if s.Family == netfilter.IPv6 {
					tool = "ip6tables"
				}
				kerneltest.Exec(t, text, tool+"-"+string(s.Backend)+"-restore", "-c")
				// ip6tables-nft-restore 1.8.9 takes -c and restores no counter.
				counted := s.Backend != ruleset.NFT || s.Family != netfilter.IPv6
				n := &capture.Node{Name: "node1", Catalog: catalog(t), Rules: []capture.Rules{rules(t, s, func(string) string { return text })}}
				seen := map[string]bool{}
				for _, of := range []string{"nodeport", "lb-ranges", "lb-local", "sticky", "empty"} {
					for _, p := range report(t, n, of).Paths {
						each(&p, func(r *Rule) {
							if seen[r.Command] {
								return
							}
							seen[r.Command] = true
							words := strings.Fields(r.Command)
							out := kerneltest.Exec(t, "", words[0], words[1:]...)
							got := strings.Fields(out)
							want := strconv.FormatUint(r.Packets, 10)
							if !counted {
								want = "0"
							}
							if len(got) < 3 || got[0] != want || strings.Count(out, "\n") != 1 || r.Target != "" && !strings.Contains(out, r.Target) {
								t.Errorf("%s prints %q, want %s packets → %s", r.Command, out, want, r.Target)
							}
						})
					}
				}
				if len(seen) < 40 {
					t.Errorf("only %d commands", len(seen))
				}
			})
		})
	}
}

// TestCommandsOfConntrack: with the entries in the kernel, each command lists as many
// as are told.
func TestCommandsOfConntrack(t *testing.T) {
	kerneltest.Run(t, func(t *testing.T) {
		n := plain(t)
		client := 40000
		enter := func(source, to string, more ...string) {
			client++
			dst := netip.MustParseAddrPort(to)
			args := []string{"-I", "-p", "tcp", "-s", source, "-d", dst.Addr().String(), "--sport", strconv.Itoa(client),
				"--dport", strconv.Itoa(int(dst.Port())), "--state", "ESTABLISHED", "-t", "100"}
			kerneltest.Exec(t, "", "conntrack", append(args, more...)...)
		}
		made := func(source, to, from string, entries uint64) {
			tracked(n, to, from, entries, 0)
			for range entries {
				enter(source, to, "--dst-nat", from)
			}
		}
		made("10.244.1.5", "10.96.1.12:80", "10.244.1.11:8080", 3)
		made("10.244.1.5", "10.96.1.12:80", "10.244.1.12:8080", 2)
		made("10.244.1.5", "10.96.1.13:443", "10.244.1.11:8080", 4)
		made("203.0.113.7", "192.168.50.1:30080", "10.244.1.11:8080", 5)
		made("fd00:10:244:1::5", "[fd00:10:96::112]:80", "[fd00:10:244:1::11]:8080", 6)
		enter("10.244.1.6", "10.96.1.12:80") // not sent on
		enter("10.244.1.6", "192.168.50.1:30080")
		lines := func(command string) uint64 {
			words := strings.Fields(command)
			return uint64(strings.Count(kerneltest.Exec(t, "", words[0], words[1:]...), "\n"))
		}
		told := uint64(0)
		for _, p := range report(t, n, "nodeport").Paths {
			for _, e := range p.Entries {
				if got := lines(e.Command); got != *e.Tracked {
					t.Errorf("%s lists %d entries, want %d", e.Command, got, *e.Tracked)
				}
			}
			for _, f := range p.Conntrack {
				told += f.Entries
				if got := lines(f.Command); got != f.Entries {
					t.Errorf("%s lists %d entries, want %d", f.Command, got, f.Entries)
				}
			}
		}
		if told != 16 {
			t.Errorf("%d entries are told, want 16", told)
		}
	})
}
