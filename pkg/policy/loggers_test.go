// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/svcscope/svcscope/pkg/ruleset"
)

// TestLoggers finds rules that log to a group, and whether what they log is refused.
func TestLoggers(t *testing.T) {
	rs, all := parsed(t, `*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:KUBE-POD-FW-AAAAAAAAAAAAAAAA - [0:0]
:audit - [0:0]
-A INPUT -j audit
-A FORWARD -j KUBE-POD-FW-AAAAAAAAAAAAAAAA
-A KUBE-POD-FW-AAAAAAAAAAAAAAAA -m comment --comment "shop/web-0 log-drop" -m mark ! --mark 0x10000/0x10000 -m limit --limit 10/min --limit-burst 10 -j NFLOG --nflog-group 100
-A KUBE-POD-FW-AAAAAAAAAAAAAAAA -m comment --comment "shop/web-0 reject" -m mark ! --mark 0x10000/0x10000 -j REJECT --reject-with icmp-port-unreachable
-A audit -p udp -j NFLOG --nflog-group 5 --nflog-prefix "seen"
-A audit -p tcp -j DROP
-A audit -p tcp -m tcp --dport 22 -j NFLOG --nflog-group 6
-A audit -p tcp -m limit --limit 5/min -j DROP
-A audit -p tcp -m tcp --dport 23 -j NFLOG --nflog-group 7
-A audit -p tcp -j DROP
-A audit -j LOG --log-prefix "to the kernel's log"
-A audit -j NFLOG
COMMIT
`)
	var v Refusals
	v.Update(rs, all)
	if d := cmp.Diff([]string{
		`KUBE-POD-FW-AAAAAAAAAAAAAAAA group 100 "" forward: kube-router policy_default {shop web-0}`,
		`audit group 5 "seen" input: not refused`,
		`audit group 6 "" input: not refused`,
		`audit group 7 "" input: other rule { }`,
		`audit group 0 "" input: not refused`,
	}, logs(&v)); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	// In nf_tables one rule logs and then does something else.
	logs5 := ruleset.Also{Action: ruleset.Action{Kind: ruleset.Log, Group: 5, More: &ruleset.Details{Name: "NFLOG"}}}
	native := &ruleset.Chain{Name: "native", Rules: []ruleset.Rule{
		{Matches: []ruleset.Match{logs5}, Action: ruleset.Action{Kind: ruleset.Drop}},
		{Matches: []ruleset.Match{logs5, ruleset.Protocol{}}, Action: ruleset.Action{Kind: ruleset.Drop}},
		{Matches: []ruleset.Match{logs5}, Action: ruleset.Action{Kind: ruleset.Accept}},
		{Matches: []ruleset.Match{logs5}},
		{Action: ruleset.Action{Kind: ruleset.Drop}},
	}}
	var refuses []bool
	for _, l := range loggersOf("mine", native) {
		refuses = append(refuses, l.Refuses)
	}
	if d := cmp.Diff([]bool{true, false, false, true}, refuses); d != "" {
		t.Errorf("rules of nf_tables (-want +got):\n%s", d)
	}
	v.Update(rs, []ruleset.Delta{{Table: "filter", Gone: []string{"audit", "KUBE-POD-FW-AAAAAAAAAAAAAAAA"}}})
	if got := logs(&v); len(got) != 0 {
		t.Errorf("got %q of chains that are gone", got)
	}
}

func logs(v *Refusals) []string {
	var all []string
	for l := range v.Loggers() {
		s := fmt.Sprintf("%s group %d %q %s: ", l.Chain, l.Group, l.Prefix, l.Hooks)
		if l.Refuses {
			s += fmt.Sprintf("%s %s %v", l.Refuser.Owner, l.Refuser.Reason, l.Refuser.Pod)
		} else {
			s += "not refused"
		}
		all = append(all, s)
	}
	return all
}
