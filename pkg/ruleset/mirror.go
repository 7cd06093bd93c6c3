// SPDX-License-Identifier: Apache-2.0

package ruleset

import (
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/nftables"
)

// Mirror keeps the nf_tables rules of one family from one reading to the next,
// so that a reading costs what has changed. Counters are updated in place; a
// chain whose rules are others than before becomes another *Chain.
//
//	s := m.Stage()
//	s.Heads(generation, tables) // where the generation moved
//	c := s.Chain("nat", "KUBE-SERVICES")
//	c.Rule(payload) // of each rule of the chain
//	delta := s.Commit()
//
// It is for one goroutine. The Ruleset may be read between commits.
type Mirror struct {
	set     *Ruleset
	scanner nftables.RuleScanner
	odd     map[*chainState]struct{} // those of chains with something not understood
}

// chainState is what is known of a chain's messages.
type chainState struct {
	prints []print
	odd    map[int]map[string]uint64 // what is not understood, by rule
}

// print tells whether a rule is still the same.
type print struct{ handle, sum uint64 }

// NewMirror returns an empty one for IPv4 or IPv6.
func NewMirror(family netfilter.Family) *Mirror {
	return &Mirror{
		set:     &Ruleset{Backend: NFT, Family: family},
		scanner: nftables.NewRuleScanner(), odd: make(map[*chainState]struct{}),
	}
}

// Ruleset returns the rules as of the last commit. It is the same pointer
// always; Generation is that of the last Heads.
func (m *Mirror) Ruleset() *Ruleset { return m.set }

// Undecoded counts what is not understood in the rules, by kind
// (Converter.Undecoded).
func (m *Mirror) Undecoded() map[string]uint64 {
	sum := make(map[string]uint64)
	for s := range m.odd {
		for _, kinds := range s.odd {
			for kind, n := range kinds {
				sum[kind] += n
			}
		}
	}
	return sum
}

// Forget drops a chain's rules, of which nothing more is asked: it is Unread
// from now on.
func (m *Mirror) Forget(c *Chain) {
	c.Rules, c.Unread = nil, true
	m.keep(c, nil)
}

// keep notes what is known of a chain's messages; nil forgets it.
func (m *Mirror) keep(c *Chain, s *chainState) {
	delete(m.odd, c.state)
	c.state = s
	if s != nil && len(s.odd) > 0 {
		m.odd[s] = struct{}{}
	}
}

// Stage begins a reading. What it brings counts only once it is committed; one
// that is not is forgotten.
func (m *Mirror) Stage() *Stage {
	return &Stage{mirror: m, anew: make(map[chainKey]bool), chains: make(map[chainKey]*StagedChain)}
}

type chainKey struct{ table, chain string }

// Stage is a reading before it counts. Of chains that say what they said
// before it keeps nothing.
type Stage struct {
	mirror     *Mirror
	headed     bool
	generation uint32
	tables     []*nftables.TableContent
	anew       map[chainKey]bool // those that were made anew, of which old rules say nothing
	current    StagedChain
	next       int // where the chain after the current one is likely to be
	chains     map[chainKey]*StagedChain
	order      []chainKey
	counters   []netfilter.Counter // where chains' are cut from
	converter  *Converter
	maps       map[string]map[string][]string // by table
	sets       map[string][]*Set              // likewise
}

// Heads gives the tables and chains that exist, without rules; those of other
// families are left out. It comes before all chains. It does not keep tables
// after Commit.
func (s *Stage) Heads(generation uint32, tables []nftables.TableContent) {
	s.headed, s.generation = true, generation
	for i := range tables {
		head := &tables[i]
		if head.Family != s.mirror.set.Family {
			continue
		}
		s.tables = append(s.tables, head)
		old, next := s.mirror.set.Table(head.Name), 0
		for j := range head.Chains {
			c := &head.Chains[j].Chain
			var known *Chain
			known, next = old.ChainNear(next, c.Name)
			if known != nil && (known.Handle != c.Handle || old.Handle != head.Handle) {
				s.anew[chainKey{old.Name, known.Name}] = true
			}
		}
	}
}

// Chain begins a chain: its rules follow, and then the next chain, at which the
// one before must not be used any more. A chain without rules is empty now.
func (s *Stage) Chain(table, name string) *StagedChain {
	s.settle()
	c := &s.current
	*c = StagedChain{stage: s, key: chainKey{table, name}}
	var old *Chain
	if old, s.next = s.mirror.set.Table(table).ChainNear(s.next, name); old != nil && (len(s.anew) == 0 || !s.anew[c.key]) {
		c.old, c.state = old, old.state
	}
	return c
}

// settle keeps the chain that was read last, if there is something to keep.
func (s *Stage) settle() {
	c := &s.current
	if c.stage == nil {
		return
	}
	if s.chains[c.key] == nil {
		if c.same() && !c.moved {
			return
		}
		s.order = append(s.order, c.key)
	}
	kept := *c
	s.chains[kept.key] = &kept
	c.stage = nil
}

// slab returns an empty slice for so many counters. Most chains are short: they
// share their memory.
func (s *Stage) slab(n int) []netfilter.Counter {
	const many = 1024
	if cap(s.counters)-len(s.counters) < n {
		s.counters = make([]netfilter.Counter, 0, max(n, many))
	}
	at := len(s.counters)
	s.counters = s.counters[:at+n]
	return s.counters[at : at : at+n]
}

// StagedChain is a chain whose rules are being read.
type StagedChain struct {
	stage    *Stage
	key      chainKey
	old      *Chain              // nil for a new one
	state    *chainState         // of old; nil where its rules are not known
	n        int                 // rules so far
	moved    bool                // some counter is not the old one
	counters []netfilter.Counter // of the rules so far; none while no rule is another one and none has moved
	*another                     // nil while no rule is another one than before
}

// another is the rules of a chain of which one is another than before.
type another struct {
	rules []Rule
	now   chainState
	bySum map[uint64]int // where old rules are, by what they say
}

// Rule takes the payload of the next NFT_MSG_NEWRULE message.
func (c *StagedChain) Rule(b []byte) error {
	scan, err := c.stage.mirror.scanner.Scan(b)
	if err != nil {
		return err
	}
	at := c.n
	p := print{scan.Handle, scan.Sum}
	if c.another == nil && c.state != nil && at < len(c.state.prints) && c.state.prints[at] == p {
		c.n++
		c.move(at, scan.Counter)
		return nil
	}
	if c.another == nil {
		c.differ(at)
	}
	rule, odd, err := c.convert(&scan, b)
	if err != nil {
		return err
	}
	if len(odd) > 0 {
		c.odd(at, odd)
	}
	c.n++
	c.counters = append(c.counters, scan.Counter)
	c.rules = append(c.rules, rule)
	c.now.prints = append(c.now.prints, p)
	return nil
}

// move notes the counter of a rule that is the old one.
func (c *StagedChain) move(at int, counter netfilter.Counter) {
	if !c.moved {
		if c.old.Rules[at].Counter == counter {
			return
		}
		c.moved = true
		c.keepCounters(at)
	}
	c.counters = append(c.counters, counter)
}

// keepCounters begins the list of counters with the first n old ones.
func (c *StagedChain) keepCounters(n int) {
	c.counters = c.stage.slab(len(c.old.Rules))
	for i := range c.old.Rules[:n] {
		c.counters = append(c.counters, c.old.Rules[i].Counter)
	}
}

// convert decodes a rule. One that says what a rule of before said is that one
// under another handle: kube-proxy writes its longest chains anew at each sync,
// in another order.
func (c *StagedChain) convert(scan *nftables.RuleCounter, b []byte) (Rule, map[string]uint64, error) {
	if i, ok := c.bySum[scan.Sum]; ok {
		rule := c.old.Rules[i]
		rule.Handle = scan.Handle
		return rule, c.state.odd[i], nil
	}
	decoded, err := nftables.DecodeRule(b)
	if err != nil {
		return Rule{}, nil, err
	}
	conv := c.stage.conv()
	return conv.NFTRule(&decoded), conv.take(), nil
}

// differ begins a new list of rules, with the first n of the old one.
func (c *StagedChain) differ(n int) {
	c.another = &another{}
	if c.state != nil {
		if !c.moved {
			c.keepCounters(n)
		}
		c.bySum = make(map[uint64]int, len(c.state.prints))
		for i, p := range c.state.prints {
			c.bySum[p.sum] = i
		}
		c.rules = make([]Rule, 0, len(c.old.Rules))
		c.now.prints = make([]print, 0, len(c.old.Rules))
	}
	if n == 0 {
		return
	}
	c.rules = append(c.rules, c.old.Rules[:n]...)
	c.now.prints = append(c.now.prints, c.state.prints[:n]...)
	for i, odd := range c.state.odd {
		if i < n {
			c.odd(i, odd)
		}
	}
}

func (c *StagedChain) odd(rule int, kinds map[string]uint64) {
	if c.now.odd == nil {
		c.now.odd = make(map[int]map[string]uint64)
	}
	c.now.odd[rule] = kinds
}

// same reports whether all rules are those of before.
func (c *StagedChain) same() bool {
	return c.another == nil && c.state != nil && c.n == len(c.state.prints)
}

// Moved yields the rules that have counted since the last commit; those of
// a chain whose rules are others than before as far as they have counted.
func (c *StagedChain) Moved(yield func(*Rule) bool) {
	same := c.same()
	if same && !c.moved {
		return
	}
	var rules []Rule
	if c.another != nil {
		rules = c.rules
	} else if c.old != nil {
		rules = c.old.Rules
		if !c.moved {
			c.keepCounters(c.n)
			c.moved = true
		}
	}
	for i := range min(len(rules), len(c.counters)) {
		was := netfilter.Counter{}
		if same {
			was = rules[i].Counter
		}
		if was != c.counters[i] && !yield(&rules[i]) {
			return
		}
	}
}

// conv is a Converter for what has changed: its memory is the stage's.
func (s *Stage) conv() *Converter {
	if s.converter == nil {
		s.converter = NewConverter(s.mirror.set.Family)
	}
	return s.converter
}

// Commit makes the reading count and returns what it changed, a Delta a table.
func (s *Stage) Commit() []Delta {
	s.settle()
	d := deltas{}
	if s.headed {
		s.commitHeads(&d)
	}
	for _, key := range s.order {
		s.commitChain(key, d.of(key.table))
	}
	s.commitSets(&d)
	return d.list()
}

// commitChain updates one chain that was read.
func (s *Stage) commitChain(key chainKey, d *Delta) {
	c := s.chains[key]
	t := s.mirror.set.Table(key.table)
	old := t.Chain(key.chain)
	if old == nil {
		return // gone, or of a table that is: the heads say so
	}
	if c.same() && c.old == old {
		if !c.moved { // it had, when it was read before
			return
		}
		for i := range old.Rules {
			old.Rules[i].Counter = c.counters[i]
		}
		d.Moved = append(d.Moved, old)
		return
	}
	if c.another == nil { // fewer rules than before, or none
		c.differ(c.n)
	}
	for i := range c.rules {
		r := &c.rules[i]
		r.Counter = c.counters[i]
		if to := t.Chain(r.Action.Chain); to != nil {
			r.Action.Chain = to.Name // the same, in memory that is there anyway
		}
	}
	chain := *old
	chain.Rules, chain.Unread = fit(c.rules), false
	s.mirror.keep(old, nil)
	s.mirror.keep(&chain, &chainState{prints: fit(c.now.prints), odd: c.now.odd})
	t.replace(&chain)
	d.Changed = append(d.Changed, &chain)
}
