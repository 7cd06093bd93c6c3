// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/svcscope/svcscope/pkg/capture"
	"github.com/svcscope/svcscope/pkg/ruleset"
)

// TestNothingIsCut: lines of 100 columns are all that lines of any length say, with names and
// addresses as long as they may be.
func TestNothingIsCut(t *testing.T) {
	for _, backend := range []ruleset.Backend{ruleset.NFT, ruleset.Legacy} {
		n := node(t, backend, strings.NewReplacer("fd00:10:244:1::1", "fd00:1234:5678:9abc:def0:1234:5678:11").Replace)
		for _, svc := range n.Catalog.Services {
			r := report(t, n, svc.Name.String())
			for i := range r.Paths {
				for j := range r.Paths[i].Endpoints {
					r.Paths[i].Endpoints[j].Node = strings.Repeat("ip-10-0-12-34.eu-central-1.compute.internal-", 5)
				}
			}
			for _, commands := range []bool{false, true} {
				narrow := write(t, r, Options{Width: width, Commands: commands})
				wide := write(t, r, Options{Commands: commands})
				if got, want := words(narrow), words(wide); got != want {
					t.Errorf("%s: at %d columns:\n%s\nwhole:\n%s", svc.Name, width, narrow, wide)
				}
			}
		}
	}
}

// words is a text without what sets it in lines: the tree's lines, spaces, backslashes,
// and whether a table's last columns stand below the others.
func words(text string) string {
	var all []string
	for line := range strings.Lines(text) {
		all = append(all, strings.Map(func(r rune) rune {
			if unicode.IsSpace(r) || strings.ContainsRune(`│\`, r) {
				return -1
			}
			return r
		}, line))
	}
	return strings.Join(all, "")
}

// TestLongAddresses: where it is that a long endpoint is.
func TestLongAddresses(t *testing.T) {
	const long = "fd00:1234:5678:9abc:def0:1234:5678:11"
	r := report(t, plain(t), "nodeport")
	for i := range r.Paths {
		if p := &r.Paths[i]; p.IPFamily == "IPv6" {
			e := &p.Endpoints[0]
			e.Address, e.Local, e.Node = "["+long+"]:8080", new(false), "ip-10-0-12-34.eu-central-1.compute.internal"
			for j := range p.Chains {
				for k := range p.Chains[j].Shares {
					if share := &p.Chains[j].Shares[k]; share.Chain == e.Chain {
						share.Endpoint = e.Address
					}
				}
			}
		}
	}
	text := write(t, r, Options{Width: width})
	if !strings.Contains(text, "\n    ready, on ip-10-0-12-34.eu-central-1.compute.internal\n") {
		t.Errorf("not where it is:\n%s", text)
	}
	for line := range strings.Lines(text) {
		if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > width {
			t.Errorf("%d characters: %s", n, line)
		}
	}
}

// TestNoControl: a comment does not control the terminal.
func TestNoControl(t *testing.T) {
	n := node(t, ruleset.NFT, strings.NewReplacer("default/web:http cluster IP", "default/web:http cluster IP\x1b[2J\u009b2J").Replace)
	text := write(t, report(t, n, "web"), Options{Width: width, Commands: true})
	if strings.ContainsFunc(text, func(r rune) bool { return unicode.IsControl(r) && r != '\n' }) || !strings.Contains(text, "cluster IP\ufffd[2J\ufffd2J") {
		t.Errorf("%q", text)
	}
}

// fact is a word that names or counts something.
var fact = regexp.MustCompile(`[0-9A-Za-z\[:.%/_-]*[0-9][0-9A-Za-z\]:.%/_-]*|KUBE-[A-Z-]+`)

// TestDocumentIsComplete: what the text tells is in the JSON document, too: each number,
// address and name of a chain.
func TestDocumentIsComplete(t *testing.T) {
	for _, tt := range goldens {
		t.Run(tt.name, func(t *testing.T) {
			r := report(t, tt.node(t), tt.of)
			b, err := json.Marshal(r)
			if err != nil {
				t.Fatal(err)
			}
			document := string(b)
			numbers := numbersOf(t, r)
			has := func(word string) bool {
				if n, err := strconv.ParseUint(word, 10, 64); err == nil {
					return numbers[strconv.FormatUint(n, 10)]
				}
				return numbers[word] || strings.Contains(document, word)
			}
			facts := 0
			for _, word := range fact.FindAllString(write(t, r, Options{Commands: true}), -1) {
				word = strings.Trim(word, ".:")
				facts++
				if has(word) {
					continue
				}
				// An address and its port, a number and its protocol, are two fields.
				if a, err := netip.ParseAddrPort(word); err == nil && has(a.Addr().String()) && has(strconv.Itoa(int(a.Port()))) {
					continue
				}
				if number, protocol, ok := strings.Cut(word, "/"); ok && has(number) && has(protocol) {
					continue
				}
				if word == "ip6tables-"+"nft" || word == "ip6tables-legacy" { // backend and family
					continue
				}
				t.Errorf("the document has no %q", word)
			}
			if facts < 4 {
				t.Errorf("only %d facts", facts)
			}
		})
	}
}

// numbersOf are the numbers of a report, those that the text sums, and shares in percent.
func numbersOf(t testing.TB, r *Report) map[string]bool {
	t.Helper()
	b, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]bool{"100": true}
	for _, n := range regexp.MustCompile(`[0-9]+(\.[0-9]+)?`).FindAllString(string(b), -1) {
		all[n] = true
		if share, err := strconv.ParseFloat(n, 64); err == nil {
			all[fmt.Sprintf("%.1f%%", share*100)] = true
		}
	}
	for i := range r.Paths {
		p := &r.Paths[i]
		if w := p.Wanted; w != nil { // where nothing is explained each endpoint is told with its share
			all[fmt.Sprintf("%.1f%%", 100/float64(len(w.Endpoints)))] = true
			all[fmt.Sprintf("%.1f%%", 100/float64(len(w.LocalEndpoints)))] = true
		}
		sum, _ := hairpins(p)
		all[strconv.FormatUint(sum, 10)] = true
		for _, c := range p.Chains {
			all[strconv.FormatUint(c.Connections, 10)] = true
		}
		for j := range p.Endpoints {
			all[dnatText(&p.Endpoints[j])] = true
		}
	}
	return all
}

// TestRefusalArrivals: by which hooks packets come to refusals, and that there is none.
func TestRefusalArrivals(t *testing.T) {
	tell := func(n *capture.Node, of string) (chains []string) {
		for _, a := range report(t, n, of).Paths[0].RefusalArrivals {
			for _, r := range a.Rules {
				if r.Table != filter || r.Chain != a.Chain || r.Role != RoleArrival || r.SinceSync {
					t.Errorf("%s: %+v", of, r)
				}
				chains = append(chains, a.Chain+" → "+r.Target)
			}
		}
		return chains
	}
	for of, want := range map[string][]string{
		"empty":               {"INPUT → KUBE-EXTERNAL-SERVICES", "FORWARD → KUBE-SERVICES", "FORWARD → KUBE-EXTERNAL-SERVICES", "OUTPUT → KUBE-SERVICES"},
		"internal-local-none": {"FORWARD → KUBE-SERVICES", "OUTPUT → KUBE-SERVICES"},
		"lb-ranges":           {"INPUT → KUBE-PROXY-FIREWALL", "FORWARD → KUBE-PROXY-FIREWALL", "OUTPUT → KUBE-PROXY-FIREWALL"},
		"nodeport":            nil,
	} {
		got := tell(plain(t), of)
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", of, got, want)
		}
	}
	n := node(t, ruleset.NFT, without("-A FORWARD", "-j KUBE-SERVICES"), without("-A OUTPUT", "-j KUBE-SERVICES"))
	if got := tell(n, "internal-local-none"); got != nil {
		t.Errorf("without jumps: %q", got)
	}
	if text := write(t, report(t, n, "internal-local-none"), Options{Width: width}); !strings.Contains(text, " filter KUBE-SERVICES: no rule leads to it\n") {
		t.Errorf("that no rule leads there is not told:\n%s", text)
	}
}
