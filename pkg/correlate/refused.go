// SPDX-License-Identifier: Apache-2.0

package correlate

import (
	"slices"

	"github.com/svcscope/svcscope/pkg/kubeproxy"
	"github.com/svcscope/svcscope/pkg/ledger"
	"github.com/svcscope/svcscope/pkg/policy"
	"github.com/svcscope/svcscope/pkg/ruleset"
)

// RefusalReading is the counters of all rules of one backend and family that refuse
// packets, at one time.
type RefusalReading struct {
	reading  ledger.Reading // without Counters
	counters []refusedCounter
}

// RefusalCommit is the same of what notices of commits tell.
type RefusalCommit struct {
	commit       ledger.Commit // without Ended and Begun
	ended, begun []refusedCounter
}

// refusedCounter is a rule's counter and what the rule tells.
type refusedCounter struct {
	key     DropKey
	counter ledger.Counter // without Port
	nfacct  string         // the object that counts the same packets; empty where there is none
}

// Refused makes the reading of all refusals in a ruleset: of kube-proxy's view those
// of Services, and of the others what is known of them.
func (c *Counters) Refused(rs *ruleset.Ruleset, v *kubeproxy.View, others *policy.Refusals, names *Names, listening bool) RefusalReading {
	b := c.builder(rs, names)
	b.reading.Listening = listening
	r := &refusedBuilder{readingBuilder: b, known: others}
	r.services(v)
	for f := range others.All() {
		r.rule(f)
	}
	return RefusalReading{reading: b.reading, counters: r.out}
}

// RefusedCommit makes the same of rules that ended and begun in a commit.
func RefusedCommit(commit ledger.Commit, ended, begun Part, known *policy.Refusals, names *Names) RefusalCommit {
	commit.Ended, commit.Begun = nil, nil
	return RefusalCommit{commit: commit, ended: ended.refused(known, names), begun: begun.refused(known, names)}
}

// refused has the counters of rules that refuse packets.
func (p Part) refused(known *policy.Refusals, names *Names) []refusedCounter {
	var others policy.Refusals
	others.Update(p.rules, p.rules.Anew())
	r := &refusedBuilder{readingBuilder: p.builder(names), known: known}
	r.services(p.view)
	for f := range others.All() {
		r.rule(known.Like(f))
	}
	return r.out
}

type refusedBuilder struct {
	*readingBuilder
	known *policy.Refusals
	out   []refusedCounter
}

// services adds kube-proxy's refusals of a Service's packets.
func (b *refusedBuilder) services(v *kubeproxy.View) {
	for i := range v.Refusals {
		f := &v.Refusals[i]
		key := DropKey{DropLabels: DropLabels{Reason: string(f.Reason), Owner: policy.KubeProxy}, Family: b.rs.Family}
		if name, ok := b.names.refusal(f); ok {
			key.Service = name.Name
		}
		key.Hook = hookOf(b.known.Hooks(f.Table, f.Chain.Name))
		b.append(refusedCounter{key: key}, f.Table, f.Chain, f.Index)
	}
}

// rule adds another rule. What was marked to be dropped was counted where it was,
// and a Service's refusals are in kube-proxy's view.
func (b *refusedBuilder) rule(f *policy.Refusal) {
	ofServices := kubeproxy.RefusalChains()
	if f.Reason == policy.Marked || f.Table == "filter" && slices.Contains(ofServices[:], f.Chain.Name) {
		return
	}
	b.append(refusedCounter{key: DropKey{
		DropLabels: DropLabels{Reason: string(f.Reason), Hook: hookOf(f.Hooks), Owner: f.Owner},
		Direction:  f.Direction, Policy: f.Policy, Pod: b.names.podOf(&f.Refuser), Family: b.rs.Family,
	}, nfacct: f.NFAcct}, f.Table, f.Chain, f.Index)
}

// append adds a rule whose counter is of what it refuses.
func (b *refusedBuilder) append(c refusedCounter, table string, chain *ruleset.Chain, index int) {
	r := &chain.Rules[index]
	if !r.HasCounter || r.CountsMore {
		return
	}
	c.counter = ledger.Counter{
		ID: b.id(b.rs.Table(table), chain, index), Kind: ledger.Refusal, Reason: c.key.Reason, Chain: chain.Name, Packets: r.Counter.Packets,
	}
	b.out = append(b.out, c)
}

func hookOf(h ruleset.Hooks) string {
	if h == 0 {
		return unknownHook
	}
	return h.String()
}
