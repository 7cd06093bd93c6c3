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

// TestCommandsOfEndpoints: where the node has links and routes as a node has, the commands
// of endpoints show which are here, and who answers there.
func TestCommandsOfEndpoints(t *testing.T) {
	kerneltest.Run(t, func(t *testing.T) {
		ip := func(args string) { kerneltest.Exec(t, "", "ip", strings.Fields(args)...) }
		for link, addrs := range map[string][]string{
			"cni0": {"10.244.1.1/24", "fd00:10:244:1::1/64"}, "eth0": {"192.168.50.11/24", "fd00:192:168:50::11/64"},
		} {
			ip("link add " + link + " type veth peer name of-" + link)
			ip("link set " + link + " up")
			ip("link set of-" + link + " up")
			for _, a := range addrs {
				ip("addr add " + a + " dev " + link + " nodad")
			}
		}
		ip("route add 10.244.2.0/24 via 192.168.50.12")
		ip("route add fd00:10:244:2::/64 via fd00:192:168:50::12")
		for _, a := range []string{"10.244.1.11", "10.244.1.12", "fd00:10:244:1::11", "fd00:10:244:1::12"} {
			ip("neigh add " + a + " lladdr 02:00:00:00:00:01 dev cni0")
		}
		here, there := 0, 0
		for _, p := range report(t, plain(t), "web").Paths {
			for _, e := range p.Endpoints {
				var told []string
				for _, c := range e.Commands {
					words := strings.Fields(c)
					told = append(told, kerneltest.Exec(t, "", words[0], words[1:]...))
				}
				if *e.Local {
					here++
					if len(told) != 2 || !strings.Contains(told[0], " dev cni0 ") || strings.Contains(told[0], " via ") || !strings.Contains(told[1], " lladdr ") {
						t.Errorf("%s is here: %q prints %q", e.Address, e.Commands, told)
					}
					continue
				}
				there++
				if len(told) != 1 || !strings.Contains(told[0], " via ") || !strings.Contains(told[0], " dev eth0 ") {
					t.Errorf("%s is on %s: %q prints %q", e.Address, e.Node, e.Commands, told)
				}
			}
		}
		if here != 4 || there != 2 {
			t.Errorf("%d endpoints here, and %d elsewhere", here, there)
		}
	})
}
