// SPDX-License-Identifier: Apache-2.0

package nftables

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/svcscope/svcscope/pkg/netfilter"
)

var (
	savedRule    = regexp.MustCompile(`^\[(\d+):(\d+)\] -A (\S+)`)
	savedComment = regexp.MustCompile(`--comment (?:"([^"]*)"|(\S+))`)
	savedJump    = regexp.MustCompile(` -([jg]) (\S+)`)
	savedModule  = regexp.MustCompile(` -m (\S+)`)
)

// TestRulesAsIptablesSavesThem holds the counter, the comment and the action
// of each rule, in order, and its matches that iptables-nft has no
// expressions of nf_tables for, against iptables-nft-save -c.
func TestRulesAsIptablesSavesThem(t *testing.T) {
	files := map[netfilter.Family]string{netfilter.IPv4: "iptables-save.txt", netfilter.IPv6: "ip6tables-save.txt"}
	for _, scene := range []string{"kube-proxy", "plain"} {
		rules := decodeAll(t, scene, "rules.bin", DecodeRule)
		for family, file := range files {
			t.Run(scene+"/"+family.String(), func(t *testing.T) {
				text, err := os.ReadFile(filepath.Join("testdata", scene, file))
				if err != nil {
					t.Fatal(err)
				}
				want := savedLines(string(text))
				got := map[string][]string{}
				for _, r := range rules {
					if r.Family == family {
						key := r.Table + " " + r.Chain
						got[key] = append(got[key], asSaved(t, r))
					}
				}
				if d := gocmp.Diff(want, got); d != "" {
					t.Errorf("rules (-want +got):\n%s", d)
				}
			})
		}
	}
}

func savedLines(text string) map[string][]string {
	out := map[string][]string{}
	table := ""
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if name, ok := strings.CutPrefix(line, "*"); ok {
			table = name
		}
		m := savedRule.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		s := fmt.Sprintf("%s:%s", m[1], m[2])
		for _, mod := range savedModule.FindAllStringSubmatch(line, -1) {
			switch mod[1] {
			case "tcp", "udp", "mark", "limit": // native in iptables 1.8.9
			case "comment":
				c := savedComment.FindStringSubmatch(line)
				s += fmt.Sprintf(" comment=%q", c[1]+c[2])
			default:
				s += " " + mod[1]
			}
		}
		if j := savedJump.FindStringSubmatch(line); j != nil {
			s += " -" + j[1] + " " + j[2]
		}
		key := table + " " + m[3]
		out[key] = append(out[key], s)
	}
	return out
}

func asSaved(t *testing.T, r Rule) string {
	t.Helper()
	c, ok := r.Counter()
	if !ok {
		t.Errorf("rule %d of %s has no counter", r.Handle, r.Chain)
	}
	s := fmt.Sprintf("%d:%d", c.Packets, c.Bytes)
	for _, e := range r.Exprs {
		switch e := e.(type) {
		case CompatMatch:
			switch e.Name {
			case "tcp", "udp":
			case "comment":
				text, _, _ := strings.Cut(string(e.Data), "\x00")
				s += fmt.Sprintf(" comment=%q", text)
			default:
				s += " " + e.Name
			}
		case CompatTarget:
			name := e.Name
			if name == "CT" { // with the flag XT_CT_NOTRACK alone
				name = "NOTRACK"
			}
			s += " -j " + name
		case Log:
			s += " -j NFLOG"
		case Meta:
			if e.Set && e.Key == MetaNFTrace {
				s += " -j TRACE"
			}
		case Immediate:
			if e.Verdict != nil {
				s += verdictAsSaved(e.Verdict)
			}
		case Opaque:
			t.Errorf("rule %d of %s: opaque %s", r.Handle, r.Chain, e.Name)
		}
	}
	return s
}

func verdictAsSaved(v *Verdict) string {
	switch v.Code {
	case Jump:
		return " -j " + v.Chain
	case Goto:
		return " -g " + v.Chain
	case Accept:
		return " -j ACCEPT"
	case Drop:
		return " -j DROP"
	case Return:
		return " -j RETURN"
	}
	return fmt.Sprint(" -j ", v.Code)
}
