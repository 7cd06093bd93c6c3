// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/svcscope/svcscope/pkg/capture"
	"github.com/svcscope/svcscope/pkg/ruleset"
)

var update = flag.Bool("update", false, "write testdata")

const (
	width        = 100
	nodeportHash = "IFSGUVPJVX5CWNQP"
	webHash      = "CDGGSHYLG3RE2FKL"
)

// goldens are what is explained in testdata.
var goldens = []struct {
	name, of string
	commands bool
	node     func(t testing.TB) *capture.Node
}{
	{"cluster-ip", "kube-system/kube-dns", false, plain},
	{"node-port", "nodeport", false, func(t testing.TB) *capture.Node {
		n := plain(t)
		tracked(n, "10.96.1.12:80", "10.244.1.11:8080", 3, 1)
		tracked(n, "192.168.50.1:30080", "10.244.1.11:8080", 2, 0)
		tracked(n, "10.96.1.12:80", "10.244.1.12:8080", 40, 0)
		tracked(n, "10.96.1.12:80", "10.244.1.99:8080", 4, 1)
		tracked(n, "10.96.1.13:443", "10.244.1.11:8080", 7, 0) // another Service's
		tracked(n, "[fd00:10:96::112]:80", "[fd00:10:244:1::11]:8080", 1, 0)
		return n
	}},
	{"commands", "nodeport:80", true, func(t testing.TB) *capture.Node {
		n := plain(t)
		tracked(n, "[fd00:10:96::112]:80", "[fd00:10:244:1::11]:8080", 1, 0)
		return n
	}},
	{"source-ranges", "lb-ranges", false, plain},
	{"external-local", "lb-local", false, plain},
	{"external-local-none", "lb-local-none", false, plain},
	{"internal-local", "internal-local:http", false, plain},
	{"both-local", "both-local", false, plain},
	{"affinity", "sticky", false, plain},
	{"external-ip", "external", false, plain},
	{"no-endpoints", "empty", false, plain},
	{"no-local-endpoints", "internal-local-none", false, plain},
	{"draining", "draining", false, plain},
	{"headless", "headless", false, plain},
	{"external-name", "elsewhere", false, plain},
	{"chain-missing", "nodeport", false, func(t testing.TB) *capture.Node {
		return node(t, ruleset.NFT, withoutChain("KUBE-SVC-"+nodeportHash))
	}},
	{"edited", "web", false, func(t testing.TB) *capture.Node {
		svc := "-A KUBE-SVC-" + webHash
		return node(t, ruleset.Legacy,
			replaced("0.50000000000", "0.90000000000", svc), without("-j KUBE-SEP-YYQCU4TCGTAHGAPQ"))
	}},
	{"flushed", "nodeport", false, func(t testing.TB) *capture.Node {
		return node(t, ruleset.NFT, without("-A PREROUTING"), without("-A OUTPUT"), without("-A KUBE-SVC-"), without("-A KUBE-EXT-"))
	}},
	{"without-api", "lb-ranges", false, func(t testing.TB) *capture.Node {
		n := plain(t)
		n.Catalog, n.KubeError = nil, "Get \"https://10.96.0.1/api/v1/services\": dial tcp 10.96.0.1:443: i/o timeout"
		n.Unread = map[ruleset.Backend]string{ruleset.Legacy: "read table nat: ipt_entry at offset 336: need 112 bytes, have 40"}
		n.Flows, n.FlowsError = nil, "open connection tracking: needs CAP_NET_ADMIN: operation not permitted"
		return n
	}},
	{"nftables-mode", "lb-local", false, func(t testing.TB) *capture.Node {
		n := bare(t)
		for i := range n.Rules {
			n.Rules[i].NFTablesMode = true
		}
		tracked(n, "198.51.100.11:80", "10.244.1.11:8080", 5, 0)
		return n
	}},
	{"ipvs-mode", "nodeport", false, func(t testing.TB) *capture.Node {
		n := bare(t)
		n.IPVS = true
		return n
	}},
	{"node-missing", "lb-local", false, func(t testing.TB) *capture.Node {
		n := plain(t)
		n.NodeMissing = true
		return n
	}},
}

// documents are those of goldens whose JSON is in testdata, too.
var documents = []string{
	"node-port", "source-ranges", "external-local", "affinity", "no-endpoints", "headless", "chain-missing", "without-api", "nftables-mode",
}

func plain(t testing.TB) *capture.Node { return node(t, ruleset.NFT) }

// bare has no rules.
func bare(t testing.TB) *capture.Node {
	return node(t, ruleset.NFT, func(string) string { return "*nat\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n" })
}

func TestGolden(t *testing.T) {
	for _, tt := range goldens {
		t.Run(tt.name, func(t *testing.T) {
			r := report(t, tt.node(t), tt.of)
			golden(t, tt.name+".txt", write(t, r, Options{Width: width, Commands: tt.commands}))
			if !slices.Contains(documents, tt.name) {
				return
			}
			text, err := json.MarshalIndent(r, "", " ")
			if err != nil {
				t.Fatal(err)
			}
			golden(t, tt.name+".json", string(text)+"\n")
		})
	}
}

func golden(t *testing.T, file, got string) {
	t.Helper()
	file = filepath.Join("testdata", file)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got)\n%s", file, diff)
	}
}

// TestReadme: what README.md shows is what is printed.
func TestReadme(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	printed, err := os.ReadFile("testdata/node-port.txt")
	if err != nil {
		t.Fatal(err)
	}
	_, block, _ := strings.Cut(string(readme), "$ svcscope explain nodeport\n")
	block, _, ok := strings.Cut(block, "```")
	if !ok {
		t.Fatal("README.md shows nothing")
	}
	for part := range strings.SplitSeq(block, "…\n  E") {
		if part = strings.TrimPrefix(part, "NDPOINT"); !strings.Contains(string(printed), part) {
			t.Errorf("not printed:\n%s", part)
		}
	}
}

// TestLinesAreNoLonger looks at every Service there is, and at names and numbers as long
// as they may be.
func TestLinesAreNoLonger(t *testing.T) {
	var nodes []*capture.Node
	for _, backend := range []ruleset.Backend{ruleset.NFT, ruleset.Legacy} {
		nodes = append(nodes, node(t, backend), node(t, backend, func(text string) string {
			return strings.ReplaceAll(text, "[0:0] -A KUBE", "[18446744073709551615:0] -A KUBE")
		}))
	}
	for _, n := range nodes {
		for _, svc := range n.Catalog.Services {
			r := report(t, n, svc.Name.String())
			for i := range r.Paths {
				for j := range r.Paths[i].Endpoints {
					r.Paths[i].Endpoints[j].Node = strings.Repeat("ip-10-0-12-34.eu-central-1.compute.internal-", 5)
				}
			}
			for _, o := range []Options{{Width: width}, {Width: width, Commands: true}} {
				for line := range strings.Lines(write(t, r, o)) {
					if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > width {
						t.Errorf("%s: %d characters: %s", svc.Name, n, line)
					}
					if strings.HasSuffix(line, " \n") {
						t.Errorf("%s: ends with a space: %q", svc.Name, line)
					}
				}
			}
		}
	}
}

// TestCommandsAreWhole: those of the report are in the text, in one line or two.
func TestCommandsAreWhole(t *testing.T) {
	n := plain(t)
	tracked(n, "[fd00:10:96::112]:80", "[fd00:10:244:1::11]:8080", 1, 0)
	r := report(t, n, "nodeport")
	joined := strings.Join(strings.Fields(strings.ReplaceAll(write(t, r, Options{Width: width, Commands: true, Dim: true}), "\\\x1b[0m\n", "")), " ")
	joined = strings.NewReplacer("\x1b[2m", "", "\x1b[0m", "", "│ ", "").Replace(joined)
	all := 0
	for _, p := range r.Paths {
		each(&p, func(rule *Rule) {
			all++
			if !strings.Contains(joined, rule.Command) {
				t.Errorf("no %s", rule.Command)
			}
		})
		for _, e := range p.Entries {
			if !strings.Contains(joined, e.Command) {
				t.Errorf("no %s", e.Command)
			}
		}
	}
	ways := 0
	for _, p := range r.Paths {
		for _, e := range p.Endpoints {
			for _, c := range e.Commands {
				if ways++; !strings.Contains(joined, c) {
					t.Errorf("no %s", c)
				}
			}
		}
	}
	if all < 20 || ways < 6 {
		t.Errorf("only %d rules, and %d ways to endpoints", all, ways)
	}
	if plain := write(t, r, Options{Width: width}); strings.Contains(plain, "$ ") || strings.Contains(plain, "\x1b") {
		t.Errorf("commands that nobody asked for:\n%s", plain)
	}
}

// each calls f for all rules of a path.
func each(p *Path, f func(*Rule)) {
	list := func(rules []Rule) {
		for i := range rules {
			f(&rules[i])
		}
	}
	for i := range p.Arrivals {
		list(p.Arrivals[i].Rules)
	}
	for i := range p.RefusalArrivals {
		list(p.RefusalArrivals[i].Rules)
	}
	for i := range p.Entries {
		list(p.Entries[i].Dispatch)
		list(p.Entries[i].Refusals)
	}
	for i := range p.Chains {
		list(p.Chains[i].Rules)
	}
	for i := range p.Endpoints {
		list(p.Endpoints[i].Rules)
	}
	list(p.HealthChecks)
	list(p.Masquerading)
}
