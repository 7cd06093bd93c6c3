// SPDX-License-Identifier: Apache-2.0

package drift

import (
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/svcscope/svcscope/pkg/internal/iptsave"
	"github.com/svcscope/svcscope/pkg/kubeproxy"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/ruleset"
	"github.com/svcscope/svcscope/pkg/service"
)

// node is a kernel with the rules of one family, and the View of them, as readings of
// nf_tables keep it: a chain that is written becomes another one.
type node struct {
	family  netfilter.Family
	set     *ruleset.Ruleset
	view    *kubeproxy.View
	lines   map[string]chains // by table
	pending map[string]map[string]bool
}

const baseRules = `*filter
-A INPUT -m conntrack --ctstate NEW -j KUBE-PROXY-FIREWALL
-A INPUT -j KUBE-NODEPORTS
-A INPUT -m conntrack --ctstate NEW -j KUBE-EXTERNAL-SERVICES
-A FORWARD -m conntrack --ctstate NEW -j KUBE-PROXY-FIREWALL
-A FORWARD -j KUBE-FORWARD
-A FORWARD -m conntrack --ctstate NEW -j KUBE-SERVICES
-A FORWARD -m conntrack --ctstate NEW -j KUBE-EXTERNAL-SERVICES
-A OUTPUT -m conntrack --ctstate NEW -j KUBE-PROXY-FIREWALL
-A OUTPUT -m conntrack --ctstate NEW -j KUBE-SERVICES
*nat
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING
`

// newNode has the jumps, and no rules of kube-proxy's chains.
func newNode(t testing.TB, f netfilter.Family) *node {
	n := &node{
		family: f, set: &ruleset.Ruleset{Backend: ruleset.NFT, Family: f}, view: kubeproxy.NewView(nil),
		lines: map[string]chains{}, pending: map[string]map[string]bool{},
	}
	table := ""
	for line := range strings.Lines(baseRules) {
		line = strings.TrimSpace(line)
		if name, ok := strings.CutPrefix(line, "*"); ok {
			table = name
			n.lines[table], n.pending[table] = chains{}, map[string]bool{}
			continue
		}
		words := strings.SplitN(line, " ", 3)
		n.set1(table, words[1], append(n.lines[table][words[1]], words[2]))
	}
	n.read(t)
	return n
}

// set1 replaces a chain; nil deletes it.
func (n *node) set1(table, chain string, lines []string) {
	n.pending[table][chain] = true
	if lines == nil {
		delete(n.lines[table], chain)
		return
	}
	n.lines[table][chain] = lines
}

// commit writes what a sync of kube-proxy writes into a table: the chains of all Services,
// those of Services that are named, or all, and takes away what is no more wanted.
func (n *node) commit(table string, to chains, services map[string]bool, all bool, rng *rand.Rand) {
	for chain, lines := range to {
		kind, _ := kubeproxy.ParseChain(chain)
		shared := kind == kubeproxy.KindServices || kind == kubeproxy.KindNodePorts || kind == kubeproxy.KindPostrouting || kind == kubeproxy.KindMarkMasq ||
			table == "filter"
		if _, there := n.lines[table][chain]; shared || all || services[chain] || !there {
			lines = slices.Clone(lines)
			if kind == kubeproxy.KindServices || kind == kubeproxy.KindNodePorts {
				shuffle(lines, rng)
			}
			n.set1(table, chain, lines)
		}
	}
	for chain := range n.lines[table] {
		if kind, hash := kubeproxy.ParseChain(chain); hash != "" && kind != kubeproxy.KindOther && to[chain] == nil {
			n.set1(table, chain, nil)
		}
	}
}

// shuffle puts rules into an order of chance, but for the last ones of KUBE-SERVICES.
func shuffle(lines []string, rng *rand.Rand) {
	last := slices.IndexFunc(lines, func(l string) bool { return strings.Contains(l, "-j KUBE-NODEPORTS") })
	if last < 0 {
		last = len(lines)
	}
	rng.Shuffle(last, func(i, j int) { lines[i], lines[j] = lines[j], lines[i] })
}

// read brings set and view up to date, as a reading of the kernel does.
func (n *node) read(t testing.TB) {
	t.Helper()
	var deltas []ruleset.Delta
	var tables []*ruleset.Table
	for _, name := range []string{"filter", "nat"} {
		d := ruleset.Delta{Table: name}
		old := n.set.Table(name)
		fresh := n.parse(t, name)
		var all []*ruleset.Chain
		for _, chain := range slices.Sorted(maps.Keys(n.lines[name])) {
			c := old.Chain(chain)
			if f := fresh.Chain(chain); n.pending[name][chain] || c == nil {
				c = f
				d.Changed = append(d.Changed, c)
			}
			all = append(all, c)
		}
		for chain := range n.pending[name] {
			if n.lines[name][chain] == nil && old.Chain(chain) != nil {
				d.Gone = append(d.Gone, chain)
			}
		}
		clear(n.pending[name])
		deltas = append(deltas, d)
		tables = append(tables, ruleset.NewTable(name, 1, all))
	}
	n.set.Tables = tables
	n.view.Update(n.set, deltas)
	for i := range deltas {
		for _, c := range deltas[i].Changed {
			if kind, _ := kubeproxy.ParseChain(c.Name); kind == kubeproxy.KindEndpoint {
				c.Rules, c.Unread = nil, true
			}
		}
	}
}

// parse makes a table of the chains that are to be read anew.
func (n *node) parse(t testing.TB, table string) *ruleset.Table {
	var b strings.Builder
	b.WriteString("*" + table + "\n")
	for chain := range n.lines[table] {
		policy := "-"
		if !strings.HasPrefix(chain, "KUBE-") {
			policy = "ACCEPT"
		}
		b.WriteString(":" + chain + " " + policy + " [0:0]\n")
	}
	for chain := range n.pending[table] {
		for _, line := range n.lines[table][chain] {
			b.WriteString("-A " + chain + " " + line + "\n")
		}
	}
	b.WriteString("COMMIT\n")
	rs, err := iptsave.Parse(n.family, ruleset.NFT, b.String())
	if err != nil {
		t.Fatal(err)
	}
	return rs.Table(table)
}

func (n *node) rules() Rules { return Rules{View: n.view, Set: n.set} }

// sync has kube-proxy write all of a catalog.
func (n *node) sync(t testing.TB, c *service.Catalog, f flags, rng *rand.Rand) {
	t.Helper()
	p := proxier{catalog: c, ipv6: n.family == netfilter.IPv6, flags: f}
	p.sync()
	n.commit("filter", p.filter, nil, true, rng)
	n.commit("nat", p.nat, nil, true, rng)
	n.read(t)
}
