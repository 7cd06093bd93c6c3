// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/svcscope/svcscope/pkg/internal/kerneltest"
	"github.com/svcscope/svcscope/pkg/internal/realcluster"
	"github.com/svcscope/svcscope/pkg/netfilter"
)

// TestExplainOfTheKernel: with the captured rules in the kernel, the numbers that are told
// are those of iptables-save -c, of entries those of conntrack -L.
func TestExplainOfTheKernel(t *testing.T) {
	for _, r := range realcluster.All() {
		if r.Family != netfilter.IPv4 { // ip6tables-nft-restore 1.8.9 restores no counter
			continue
		}
		t.Run(r.File, func(t *testing.T) {
			kerneltest.Run(t, func(t *testing.T) {
				text, err := r.Text()
				if err != nil {
					t.Fatal(err)
				}
				// The objects of nfacct are not there, and the rules that count with them cannot be.
				text = regexp.MustCompile("-m nfacct --nfacct-name +[a-z_]+ ").ReplaceAllString(text, "")
				tool := "iptables-" + string(r.Backend)
				kerneltest.Exec(t, text, tool+"-restore", "-c")
				kerneltest.Exec(t, "", "conntrack", "-I", "-p", "tcp", "-s", "10.244.1.5", "-d", "10.96.1.12", "--sport", "40000",
					"--dport", "80", "--state", "ESTABLISHED", "-t", "100", "--dst-nat", "10.244.1.11:8080")
				want := savedRules(kerneltest.Exec(t, "", tool+"-save", "-c"))
				for _, name := range []string{"nodeport", "lb-ranges", "lb-local", "sticky", "empty"} {
					var stdout, stderr bytes.Buffer
					if code := Run([]string{"explain", name, "--kube=never", "-o", "json"}, &stdout, &stderr); code != exitOK {
						t.Fatalf("%s: exit status %d: %s", name, code, &stderr)
					}
					var report any
					if err := json.Unmarshal(stdout.Bytes(), &report); err != nil {
						t.Fatal(err)
					}
					got := toldRules(report, nil)
					if len(got) < 3 {
						t.Errorf("%s: only %d rules", name, len(got))
					}
					for _, rule := range got {
						if !want[rule] {
							t.Errorf("%s: %s-save -c has no %s", name, tool, rule)
						}
					}
					if name == "nodeport" && strings.Count(stdout.String(), `"tracked": 1`) != 1 {
						t.Errorf("not one entry is told:\n%s", &stdout)
					}
				}
			})
		})
	}
}

// savedRules has each rule of iptables-save -c as `table chain number packets`.
func savedRules(text string) map[string]bool {
	rule := regexp.MustCompile(`^\[(\d+):\d+\] -A (\S+)`)
	all, table, number := map[string]bool{}, "", map[string]int{}
	for line := range strings.Lines(text) {
		if name, ok := strings.CutPrefix(line, "*"); ok {
			table, number = strings.TrimSpace(name), map[string]int{}
		}
		if m := rule.FindStringSubmatch(line); m != nil {
			number[m[2]]++
			all[fmt.Sprintf("%s %s %d %s", table, m[2], number[m[2]], m[1])] = true
		}
	}
	return all
}

// toldRules finds the rules anywhere in a document, in the same words.
func toldRules(v any, out []string) []string {
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			out = toldRules(e, out)
		}
	case map[string]any:
		if v["packets"] != nil && v["table"] != nil {
			return append(out, fmt.Sprintf("%v %v %v %v", v["table"], v["chain"], v["number"], v["packets"]))
		}
		for _, e := range v {
			out = toldRules(e, out)
		}
	}
	return out
}
