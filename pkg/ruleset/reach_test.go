// SPDX-License-Identifier: Apache-2.0

package ruleset_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/svcscope/svcscope/pkg/internal/iptsave"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/ruleset"
)

func TestReach(t *testing.T) {
	rs, err := iptsave.Parse(netfilter.IPv4, ruleset.NFT, `*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:BOTH - [0:0]
:DEEP - [0:0]
:ALONE - [0:0]
-A INPUT -p tcp -j BOTH
-A FORWARD -g BOTH
-A OUTPUT -d 10.0.0.1/32 -j DEEP
-A BOTH -s 10.0.0.0/8 -j DEEP
-A DEEP -j DROP
-A ALONE -j DEEP
COMMIT
`)
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]string)
	for c, hooks := range rs.Table("filter").Reach() {
		got[c.Name] = hooks.String()
	}
	want := map[string]string{
		"INPUT": "input", "FORWARD": "forward", "OUTPUT": "output",
		"BOTH": "input+forward", "DEEP": "input+forward+output",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

// TestReachEnds where chains lead to each other, as parts of two readings may.
func TestReachEnds(t *testing.T) {
	jump := func(to string) []ruleset.Rule {
		return []ruleset.Rule{{Action: ruleset.Action{Kind: ruleset.Jump, Chain: to}}}
	}
	table := ruleset.NewTable("filter", 0, []*ruleset.Chain{
		{Name: "FORWARD", Base: &ruleset.Base{Hook: netfilter.HookForward}, Rules: jump("a")},
		{Name: "a", Rules: jump("b")},
		{Name: "b", Rules: jump("a")},
		{Name: "odd", Base: &ruleset.Base{Hook: 77}},
	})
	if n := len(table.Reach()); n != 3 {
		t.Errorf("%d chains are reached, want 3", n)
	}
}
