// SPDX-License-Identifier: Apache-2.0

package iptsave

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/svcscope/svcscope/pkg/ruleset"
)

// Format writes rs as iptables-save -c does, its comment lines apart and in a
// fixed order: tables by name, built-in chains by hook before others by name.
// Chains have no counters ("[0:0]"): neither backend keeps useful ones.
func Format(rs *ruleset.Ruleset) string {
	var b strings.Builder
	tables := slices.Clone(rs.Tables)
	slices.SortStableFunc(tables, func(x, y *ruleset.Table) int { return cmp.Compare(x.Name, y.Name) })
	for _, t := range tables {
		formatTable(&b, rs, t)
	}
	return b.String()
}

func formatTable(b *strings.Builder, rs *ruleset.Ruleset, t *ruleset.Table) {
	chains := slices.Clone(t.Chains)
	slices.SortStableFunc(chains, compareChains)
	fmt.Fprintf(b, "*%s\n", t.Name)
	for _, c := range chains {
		policy := "-"
		if c.Base != nil {
			policy = c.Base.Policy.String()
		}
		fmt.Fprintf(b, ":%s %s [0:0]\n", c.Name, policy)
	}
	for _, c := range chains {
		for i := range c.Rules {
			r := &c.Rules[i]
			fmt.Fprintf(b, "[%d:%d] -A %s", r.Counter.Packets, r.Counter.Bytes, c.Name)
			if s := r.Spec(rs.Family); s != "" {
				b.WriteString(" " + s)
			}
			b.WriteByte('\n')
		}
	}
	b.WriteString("COMMIT\n")
}

func compareChains(x, y *ruleset.Chain) int {
	switch {
	case x.Base != nil && y.Base != nil:
		return cmp.Compare(x.Base.Hook, y.Base.Hook)
	case x.Base != nil:
		return -1
	case y.Base != nil:
		return 1
	}
	return strings.Compare(x.Name, y.Name)
}

// Normalize brings the output of iptables-save into Format's order and leaves
// comment lines and chains' counters out, so that it can be compared with what
// Format writes. It changes no rule.
func Normalize(text string) string {
	type table struct {
		name   string
		chains []*ruleset.Chain
		policy map[string]string
		rules  map[string][]string
	}
	var tables []table
	for line := range strings.SplitSeq(text, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' || line == "COMMIT" {
			continue
		}
		if line[0] == '*' {
			tables = append(tables, table{name: line[1:], policy: map[string]string{}, rules: map[string][]string{}})
			continue
		}
		if len(tables) == 0 {
			continue
		}
		t := &tables[len(tables)-1]
		f := strings.Fields(line)
		if line[0] == ':' && len(f) > 1 {
			name := f[0][1:]
			t.chains = append(t.chains, &ruleset.Chain{Name: name, Base: base(ruleset.Legacy, t.name, name)})
			t.policy[name] = f[1]
			continue
		}
		if i := slices.Index(f, "-A"); i >= 0 && i+1 < len(f) {
			t.rules[f[i+1]] = append(t.rules[f[i+1]], line)
		}
	}
	slices.SortStableFunc(tables, func(x, y table) int { return cmp.Compare(x.name, y.name) })
	var b strings.Builder
	for _, t := range tables {
		fmt.Fprintf(&b, "*%s\n", t.name)
		slices.SortStableFunc(t.chains, compareChains)
		for _, c := range t.chains {
			fmt.Fprintf(&b, ":%s %s [0:0]\n", c.Name, t.policy[c.Name])
		}
		for _, c := range t.chains {
			for _, r := range t.rules[c.Name] {
				b.WriteString(r + "\n")
			}
		}
		b.WriteString("COMMIT\n")
	}
	return b.String()
}
