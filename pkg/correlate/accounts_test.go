// SPDX-License-Identifier: Apache-2.0

package correlate

import (
	"fmt"
	"testing"

	"github.com/svcscope/svcscope/pkg/ledger"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/ruleset"
)

const invalidObject = "ct_state_invalid_dropped_pkts"

// accountRules are kube-proxy's rule with an object, and somebody's with another.
func accountRules(jump string, invalid, own int) string {
	return fmt.Sprintf(`:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:KUBE-FORWARD - [0:0]
%[1]s[%[2]d:0] -A KUBE-FORWARD -m conntrack --ctstate INVALID -m nfacct --nfacct-name  %[4]s -j DROP
[%[3]d:0] -A INPUT -p tcp -m tcp --dport 22 -m nfacct --nfacct-name  mine -j DROP
`, jump, invalid, own, invalidObject)
}

const toForward = "[1000:1000] -A FORWARD -j KUBE-FORWARD\n"

// accounts takes a reading of the objects, by name and packets.
func (s *dropScene) accounts(objects ...any) {
	s.Helper()
	all := make(map[string]netfilter.Counter)
	for i := 0; i < len(objects); i += 2 {
		all[objects[i].(string)] = netfilter.Counter{Packets: uint64(objects[i+1].(int))}
	}
	s.drops.Accounts(all, s.now)
}

// TestDropsOfAnObject are counted by it and not by the rule, from the first reading
// on, whatever becomes of the rule.
func TestDropsOfAnObject(t *testing.T) {
	s := newDropScene(t)
	want := func(invalid, own int) {
		t.Helper()
		s.want(fmt.Sprintf("invalid forward kube-proxy / %d", invalid), fmt.Sprintf("rule input other / %d", own))
	}
	s.accounts(invalidObject, 100, "mine", 100)
	s.read(accountRules(toForward, 60, 7))
	s.read(accountRules(toForward, 60, 7))
	want(0, 0)

	// IPv6's rule counts in it, too.
	s.accounts(invalidObject, 105, "mine", 102)
	s.read(accountRules(toForward, 62, 9))
	want(5, 2)

	// A sync has written the rule anew; and once more, without a jump to it yet.
	s.accounts(invalidObject, 106, "mine", 102)
	s.read(accountRules(toForward, 1, 9))
	s.read(accountRules("", 0, 9))
	want(6, 2)
	s.accounts(invalidObject, 109, "mine", 102)
	want(9, 2)

	// There is no rule for a time, and what it counted to its end is told.
	s.accounts(invalidObject, 111)
	s.read(":INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n")
	s.accounts(invalidObject, 111)
	s.read(accountRules(toForward, 0, 0))
	s.read(accountRules(toForward, 0, 0))
	want(11, 2)

	// The object was deleted and made anew, or set back: it counts from 0.
	s.accounts(invalidObject, 4)
	want(15, 2)
	s.accounts()
	s.accounts(invalidObject, 3)
	s.read(accountRules(toForward, 3, 0))
	want(18, 2)
}

// TestDropsOfAnObjectThatComesLater: it counts from 0, also what it counted before its
// rule was seen; and the rule that has none counts as before.
func TestDropsOfAnObjectThatComesLater(t *testing.T) {
	s := newDropScene(t)
	old := func(n int) string {
		return fmt.Sprintf(":FORWARD ACCEPT [0:0]\n:KUBE-FORWARD - [0:0]\n%s[%d:0] -A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP\n", toForward, n)
	}
	s.accounts("mine", 50)
	for _, n := range []int{5, 5, 8} {
		s.read(old(n))
	}
	s.want("invalid forward kube-proxy / 3")
	s.accounts("mine", 50, invalidObject, 0)
	s.read(old(9))
	s.want("invalid forward kube-proxy / 4")
	s.accounts("mine", 51, invalidObject, 2)
	s.read(accountRules(toForward, 2, 0))
	s.want("invalid forward kube-proxy / 6", "rule input other / 0")
}

// TestDropsOfAnObjectThatCannotBeRead are counted by the rule.
func TestDropsOfAnObjectThatCannotBeRead(t *testing.T) {
	s := newDropScene(t)
	for _, n := range []int{5, 5, 8} {
		s.read(accountRules(toForward, n, 0))
	}
	s.want("invalid forward kube-proxy / 3", "rule input other / 0")

	// Once it can be it is the object: each packet once.
	s.accounts(invalidObject, 40)
	s.read(accountRules(toForward, 9, 0))
	s.accounts(invalidObject, 42)
	s.read(accountRules(toForward, 11, 0))
	s.want("invalid forward kube-proxy / 5", "rule input other / 0")
}

// TestDropsOfAnObjectSinceItWasMade are those of one look without an agent.
func TestDropsOfAnObjectSinceItWasMade(t *testing.T) {
	s := newDropScene(t)
	s.drops.Begin(LedgerSource(ruleset.Legacy, netfilter.IPv4), s.now)
	s.accounts(invalidObject, 40)
	s.read(accountRules(toForward, 9, 2))
	s.want("invalid forward kube-proxy / 40", "rule input other / 2")
}

// TestNoticesOfARuleWithAnObject count nothing beside it.
func TestNoticesOfARuleWithAnObject(t *testing.T) {
	s := newDropScene(t)
	s.accounts(invalidObject, 1)
	s.read(accountRules(toForward, 1, 0))
	s.read(accountRules(toForward, 1, 0))
	key := DropKey{DropLabels: DropLabels{Reason: "invalid", Hook: "forward", Owner: "kube-proxy"}, Family: netfilter.IPv4}
	ended := refusedCounter{key: key, nfacct: invalidObject, counter: ledger.Counter{
		ID: ledger.ID{Table: "filter", RuleHandle: 7}, Kind: ledger.Refusal, Reason: "invalid", Chain: "KUBE-FORWARD", Packets: 50,
	}}
	s.drops.Commit(RefusalCommit{
		commit: ledger.Commit{Source: LedgerSource(ruleset.NFT, netfilter.IPv4)}, ended: []refusedCounter{ended},
	}, s.now)
	s.accounts(invalidObject, 4)
	s.want("invalid forward kube-proxy / 3", "rule input other / 0")
}
