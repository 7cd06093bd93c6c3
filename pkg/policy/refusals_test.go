// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/svcscope/svcscope/pkg/internal/iptsave"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/ruleset"
)

// parsed is a ruleset of iptables-save's text, and its tables as a first reading
// has them.
func parsed(t *testing.T, text string) (*ruleset.Ruleset, []ruleset.Delta) {
	t.Helper()
	rs, err := iptsave.Parse(netfilter.IPv4, ruleset.NFT, text)
	if err != nil {
		t.Fatal(err)
	}
	var all []ruleset.Delta
	for _, t := range rs.Tables {
		all = append(all, ruleset.Delta{Table: t.Name, Changed: t.Chains})
	}
	return rs, all
}

func told(v *Refusals) []string {
	var all []string
	for f := range v.All() {
		all = append(all, fmt.Sprintf("%s/%s/%d %s %s %s", f.Table, f.Chain.Name, f.Index, f.Hooks, f.Owner, f.Reason))
	}
	return all
}

// TestRefusalsFollow what a reading changes: rules, and what leads to them.
func TestRefusalsFollow(t *testing.T) {
	const head = "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:mine - [0:0]\n:KUBE-FORWARD - [0:0]\n"
	rs, all := parsed(t, head+`
-A INPUT -j mine
-A FORWARD -j KUBE-FORWARD
-A mine -p tcp -j ACCEPT
-A mine -j DROP
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
COMMIT
*raw
:PREROUTING ACCEPT [0:0]
-A PREROUTING -s 10.0.0.0/8 -j DROP
COMMIT
`)
	var v Refusals
	v.Update(rs, all)
	want := []string{
		"filter/mine/1 input other rule",
		"filter/KUBE-FORWARD/0 forward kube-proxy invalid",
		"raw/PREROUTING/0 prerouting other rule",
	}
	if d := cmp.Diff(want, told(&v)); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if !v.Has("filter", "mine") || v.Has("raw", "mine") || v.Has("filter", "INPUT") {
		t.Error("Has tells otherwise")
	}

	// A jump leads to mine from FORWARD, too; KUBE-FORWARD is empty, raw is gone.
	rs, all = parsed(t, head+`
-A INPUT -j mine
-A FORWARD -j mine
-A mine -p tcp -j ACCEPT
-A mine -j DROP
COMMIT
`)
	all = append(all, ruleset.Delta{Table: "raw", Gone: []string{"PREROUTING"}})
	v.Update(rs, all)
	if d := cmp.Diff([]string{"filter/mine/1 input+forward other rule"}, told(&v)); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}

	// Counters alone change nothing.
	v.Update(rs, []ruleset.Delta{{Table: "filter", Moved: rs.Table("filter").Chains}})
	if n := len(told(&v)); n != 1 {
		t.Errorf("%d rules, want 1", n)
	}
}

// TestLikeOfChainsWithOtherNames: a rule of a chain that no reading has seen is reached
// as that of the same pod was.
func TestLikeOfChainsWithOtherNames(t *testing.T) {
	const rules = `*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:KUBE-POD-FW-AAAAAAAAAAAAAAA%s - [0:0]
-A INPUT -j KUBE-POD-FW-AAAAAAAAAAAAAAA%[1]s
-A FORWARD -j KUBE-POD-FW-AAAAAAAAAAAAAAA%[1]s
-A KUBE-POD-FW-AAAAAAAAAAAAAAA%[1]s -m comment --comment "shop/%s reject" -j REJECT --reject-with icmp-port-unreachable
COMMIT
`
	rs, all := parsed(t, fmt.Sprintf(rules, "A", "web-0"))
	var v Refusals
	v.Update(rs, all)
	for _, tt := range []struct{ chain, pod, want string }{
		{"A", "web-0", "input+forward"}, {"B", "web-0", "input+forward"}, {"A", "db-0", "input+forward"}, {"B", "db-0", ""},
	} {
		rs, _ := parsed(t, fmt.Sprintf(rules, tt.chain, tt.pod))
		c := rs.Table("filter").Chain("KUBE-POD-FW-AAAAAAAAAAAAAAA" + tt.chain)
		f, ok := Refusing("filter", c, 0)
		if got := v.Like(&Refusal{Refuser: f, Table: "filter", Chain: c}).Hooks.String(); got != tt.want || !ok {
			t.Errorf("pod %s in chain %s: hooks %q, want %q", tt.pod, tt.chain, got, tt.want)
		}
	}
}
