// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/svcscope/svcscope/pkg/capture"
	"github.com/svcscope/svcscope/pkg/internal/realcluster"
	"github.com/svcscope/svcscope/pkg/kubeproxy"
	"github.com/svcscope/svcscope/pkg/service"
)

// oracle is what iptables-save -c printed: each rule's counter and text, by its table,
// chain and place.
type oracle map[string]oracleRule

type oracleRule struct {
	packets     uint64
	chain, text string
}

func (o oracle) at(table, chain string, number int) string {
	return fmt.Sprintf("%s %s %d", table, chain, number)
}

var savedRule = regexp.MustCompile(`^\[(\d+):\d+\] -A (\S+)(?: (.*))?$`)

func newOracle(t testing.TB, text string) oracle {
	t.Helper()
	o := oracle{}
	table, places := "", map[string]int{}
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if name, ok := strings.CutPrefix(line, "*"); ok {
			table, places = name, map[string]int{}
		}
		m := savedRule.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		n, err := strconv.ParseUint(m[1], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		places[m[2]]++
		o[o.at(table, m[2], places[m[2]])] = oracleRule{n, m[2], m[3]}
	}
	return o
}

// check holds all rules of a path against the text, and returns which they were.
func (o oracle) check(t testing.TB, of string, p *Path) map[string]bool {
	t.Helper()
	told := map[string]bool{}
	each(p, func(r *Rule) {
		at := o.at(r.Table, r.Chain, r.Number)
		told[at] = true
		want, ok := o[at]
		if !ok || r.Packets != want.packets || r.Text != want.text {
			t.Errorf("%s: %s: %d packets, %s\nwant %d, %s", of, at, r.Packets, r.Text, want.packets, want.text)
		}
		if _, more := o[o.at(r.Table, r.Chain, r.Of+1)]; more || o[o.at(r.Table, r.Chain, r.Of)].chain == "" {
			t.Errorf("%s: %s: the chain has not %d rules", of, r.Chain, r.Of)
		}
	})
	for _, c := range p.Chains {
		o.checkShares(t, of, &c)
	}
	return told
}

// checkShares sums the jumps to each endpoint.
func (o oracle) checkShares(t testing.TB, of string, c *Chain) {
	t.Helper()
	sum := map[string]uint64{}
	all := uint64(0)
	for _, r := range o {
		if _, to, ok := strings.Cut(r.text, "-j KUBE-SEP-"); ok && r.chain == c.Name {
			sum["KUBE-SEP-"+to] += r.packets
			all += r.packets
		}
	}
	if all != c.Connections {
		t.Errorf("%s: %s: %d connections, want %d", of, c.Name, c.Connections, all)
	}
	for _, s := range c.Shares {
		if s.Packets != sum[s.Chain] || (s.Real == nil) != (all == 0) {
			t.Errorf("%s: %s → %s: %+v, want %d packets of %d", of, c.Name, s.Chain, s, sum[s.Chain], all)
		}
		if s.Real != nil && *s.Real != float64(s.Packets)/float64(all) {
			t.Errorf("%s: %s → %s: real share %v", of, c.Name, s.Chain, *s.Real)
		}
		delete(sum, s.Chain)
	}
	if len(sum) > 0 {
		t.Errorf("%s: %s: no shares of %v", of, c.Name, sum)
	}
}

// about are the rules that name a port in their comment, or are in its chains or lead
// to them.
func (o oracle) about(name service.PortName) []string {
	hash := kubeproxy.Hash(name)
	comment := regexp.MustCompile(`--comment "?([a-zA-Z ]+ )?` + regexp.QuoteMeta(name.String()) + `(["\s]|$)`)
	var out []string
	for at, r := range o {
		if strings.HasSuffix(r.chain, "-"+hash) || strings.HasSuffix(r.text, "-"+hash) || comment.MatchString(r.text) {
			out = append(out, at)
		}
	}
	slices.Sort(out)
	return out
}

// TestNumbersAreThoseOfIptablesSave: every rule that is told has the counter and the
// words that iptables-save -c prints for it, and every rule about a Service is told.
func TestNumbersAreThoseOfIptablesSave(t *testing.T) {
	for _, s := range realcluster.All() {
		t.Run(s.File, func(t *testing.T) {
			o := newOracle(t, saved(t, s))
			n := &capture.Node{Name: "node1", Catalog: catalog(t), Rules: []capture.Rules{rules(t, s)}}
			rules := 0
			for _, svc := range n.Catalog.Services {
				r := report(t, n, svc.Name.String())
				told := map[service.PortName]map[string]bool{}
				for i := range r.Paths {
					if p := &r.Paths[i]; p.Backend != "" {
						told[service.PortName{Name: svc.Name, Port: p.PortName, Protocol: service.Protocol(p.Protocol)}] = o.check(t, svc.Name.String(), p)
					}
				}
				for i := range svc.Ports {
					name := svc.PortName(&svc.Ports[i])
					for _, at := range o.about(name) {
						rules++
						if !told[name][at] {
							t.Errorf("%s: %s is not told: %s", name, at, o[at].text)
						}
					}
				}
			}
			if rules < 100 {
				t.Errorf("only %d rules about Services", rules)
			}
		})
	}
}

// TestDamagedRules: with any one rule missing the numbers stay right, and a rule of a
// Service's that is missing is a difference of it or of all.
func TestDamagedRules(t *testing.T) {
	s := realcluster.All()[0]
	whole := newOracle(t, saved(t, s))
	services := []service.PortName{
		{Name: service.Name{Namespace: "default", Name: "nodeport"}, Protocol: service.TCP},
		{Name: service.Name{Namespace: "default", Name: "lb-local"}, Port: "http", Protocol: service.TCP},
		{Name: service.Name{Namespace: "default", Name: "sticky"}, Port: "http", Protocol: service.TCP},
		{Name: service.Name{Namespace: "default", Name: "empty"}, Protocol: service.TCP},
	}
	lines := strings.SplitAfter(saved(t, s), "\n")
	damaged := 0
	for i, line := range lines {
		if !savedRule.MatchString(strings.TrimSuffix(line, "\n")) {
			continue
		}
		text := strings.Join(slices.Delete(slices.Clone(lines), i, i+1), "")
		o := newOracle(t, text)
		n := &capture.Node{Name: "node1", Catalog: catalog(t), Rules: []capture.Rules{rules(t, s, func(string) string { return text })}}
		for _, name := range services {
			r := report(t, n, name.Name.String())
			differ := 0
			for j := range r.Paths {
				if r.Paths[j].Backend != "" {
					o.check(t, name.String(), &r.Paths[j])
				}
				differ += len(r.Paths[j].Differences)
			}
			for j := range r.Families {
				differ += len(r.Families[j].Differences)
			}
			write(t, r, Options{Width: width, Commands: true})
			if len(o.about(name)) < len(whole.about(name)) && differ == 0 && !tolerated(line) {
				t.Errorf("%s: nothing differs without %s", name, line)
			}
			damaged += differ
		}
	}
	if damaged < 40 {
		t.Errorf("only %d differences in all", damaged)
	}
}

// tolerated reports whether a rule may be missing by docs/drift.md: the marks of clients
// outside the cluster, and the rules for pods and for 127.0.0.0/8.
func tolerated(line string) bool {
	return strings.Contains(line, "-A KUBE-SV") && strings.Contains(line, "-j KUBE-MARK-MASQ") ||
		strings.Contains(line, "pod traffic for") || strings.Contains(line, "-d 127.0.0.0/8")
}
