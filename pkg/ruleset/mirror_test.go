// SPDX-License-Identifier: Apache-2.0

package ruleset_test

import (
	"encoding/binary"
	"slices"
	"strings"
	"testing"

	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/nftables"
	"github.com/svcscope/svcscope/pkg/netfilter/nlattr"
	"github.com/svcscope/svcscope/pkg/ruleset"
)

// jumpRule is a rule of the mirror's tests: it counts and jumps.
type jumpRule struct {
	handle, packets uint64
	to              string
}

// message is the payload of its NFT_MSG_NEWRULE, with the numbers of
// include/uapi/linux/netfilter/nf_tables.h.
func (r jumpRule) message() []byte {
	be64 := func(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }
	expr := func(name string, data []byte) []byte {
		return nlattr.AppendNested(nil, 1, nlattr.AppendNested(nlattr.AppendString(nil, 1, name), 2, data))
	}
	counter := nlattr.Append(nlattr.Append(nil, 1, be64(60*r.packets)), 2, be64(r.packets))
	verdict := nlattr.AppendString(nlattr.AppendUint32(nil, 1, ^uint32(2)), 2, r.to) // NFT_JUMP is -3
	jump := nlattr.AppendNested(nlattr.AppendUint32(nil, 1, 0), 2, nlattr.AppendNested(nil, 2, verdict))
	b := []byte{byte(netfilter.IPv4), 0, 0, 0}
	b = nlattr.AppendString(nlattr.AppendString(b, 1, "nat"), 2, "c")
	return nlattr.AppendNested(nlattr.Append(b, 3, be64(r.handle)), 4, append(expr("counter", counter), expr("immediate", jump)...))
}

// mirrored is a mirror of a table nat with a chain c.
type mirrored struct {
	t *testing.T
	*ruleset.Mirror
	table, chain uint64 // handles
}

func newMirrored(t *testing.T, rules ...jumpRule) *mirrored {
	m := &mirrored{t: t, Mirror: ruleset.NewMirror(netfilter.IPv4), table: 1, chain: 2}
	m.heads(m.read(rules...)).Commit()
	return m
}

func (m *mirrored) heads(s *ruleset.Stage) *ruleset.Stage {
	c := nftables.ChainContent{Chain: nftables.Chain{Family: netfilter.IPv4, Table: "nat", Name: "c", Handle: m.chain}}
	s.Heads(1, []nftables.TableContent{{
		Table: nftables.Table{Family: netfilter.IPv4, Name: "nat", Handle: m.table}, Chains: []nftables.ChainContent{c},
	}})
	return s
}

// read stages the rules without heads.
func (m *mirrored) read(rules ...jumpRule) *ruleset.Stage {
	return m.again(m.Stage(), rules...)
}

func (m *mirrored) again(s *ruleset.Stage, rules ...jumpRule) *ruleset.Stage {
	m.t.Helper()
	c := s.Chain("nat", "c")
	for _, r := range rules {
		if err := c.Rule(r.message()); err != nil {
			m.t.Fatal(err)
		}
	}
	return s
}

func (m *mirrored) now() *ruleset.Chain { return m.Ruleset().Table("nat").Chain("c") }

// holds reports whether the chain has these rules.
func (m *mirrored) holds(rules ...jumpRule) bool {
	return slices.EqualFunc(m.now().Rules, rules, func(r ruleset.Rule, want jumpRule) bool {
		return r.Handle == want.handle && r.Counter.Packets == want.packets && r.Action.Chain == want.to
	})
}

func TestMirrorUpdatesWhatChanged(t *testing.T) {
	before := []jumpRule{{10, 5, "a"}, {11, 6, "b"}, {12, 7, "a"}}
	tests := []struct {
		name  string
		rules []jumpRule
		want  string // what the delta says of the chain
	}{
		{"nothing", before, ""},
		{"a counter", []jumpRule{{10, 5, "a"}, {11, 9, "b"}, {12, 7, "a"}}, "moved"},
		{"the last counter", []jumpRule{{10, 5, "a"}, {11, 6, "b"}, {12, 8, "a"}}, "moved"},
		{"another rule", []jumpRule{{10, 5, "a"}, {11, 6, "other"}, {12, 7, "a"}}, "changed"},
		{"another handle", []jumpRule{{10, 5, "a"}, {13, 0, "b"}, {12, 7, "a"}}, "changed"},
		{"a counter and another rule after it", []jumpRule{{10, 50, "a"}, {11, 6, "b"}, {13, 0, "c"}}, "changed"},
		{"another order under new handles", []jumpRule{{20, 0, "b"}, {21, 0, "a"}, {22, 0, "a"}}, "changed"},
		{"fewer rules", before[:2], "changed"},
		{"no rules", nil, "changed"},
		{"more rules", append(slices.Clone(before), jumpRule{13, 1, "c"}), "changed"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := newMirrored(t, before...)
			old := m.now()
			if s := m.read(tt.rules...); !m.holds(before...) {
				t.Errorf("a stage that is not committed changed %v to %v", s, old.Rules)
			}
			got := ""
			for _, d := range m.read(tt.rules...).Commit() {
				if slices.Contains(d.Moved, m.now()) {
					got += "moved"
				}
				if slices.Contains(d.Changed, m.now()) {
					got += "changed"
				}
			}
			if got != tt.want {
				t.Errorf("the delta says %q, want %q", got, tt.want)
			}
			if same := m.now() == old; same == strings.Contains(tt.want, "changed") {
				t.Errorf("the same *Chain: %v", same)
			}
			if !m.holds(tt.rules...) {
				t.Errorf("rules %v, want %v", m.now().Rules, tt.rules)
			}
		})
	}
}

// A chain that was deleted and made again between two readings may have rules
// with the handles and the text of before: a table made anew counts them from 1.
func TestMirrorOfWhatWasMadeAnew(t *testing.T) {
	rules := []jumpRule{{10, 5, "a"}, {11, 6, "b"}}
	for name, anew := range map[string]func(*mirrored){
		"chain": func(m *mirrored) { m.chain++ },
		"table": func(m *mirrored) { m.table++ },
	} {
		t.Run(name, func(t *testing.T) {
			m := newMirrored(t, rules...)
			old := m.now()
			anew(m)
			s := m.heads(m.Stage())
			deltas := m.again(s, rules...).Commit()
			if m.now() == old || !m.holds(rules...) {
				t.Errorf("the same *Chain: %v, rules %v", m.now() == old, m.now().Rules)
			}
			if len(deltas) != 1 || !slices.Contains(deltas[0].Changed, m.now()) {
				t.Errorf("the delta does not have the chain: %+v", deltas)
			}
		})
	}
}

func TestMirrorTakesTheLastReadingOfAStage(t *testing.T) {
	m := newMirrored(t, jumpRule{10, 5, "a"})
	s := m.read(jumpRule{10, 6, "a"}) // moved
	m.again(s, jumpRule{20, 0, "b"})  // rewritten since
	last := []jumpRule{{20, 1, "b"}}
	m.again(s, last...).Commit()
	if !m.holds(last...) {
		t.Errorf("rules %v, want %v", m.now().Rules, last)
	}
	s = m.read(jumpRule{20, 9, "b"})
	if d := m.again(s, last...).Commit(); !m.holds(last...) {
		t.Errorf("rules %v, want %v; %+v", m.now().Rules, last, d)
	}
}

func TestMirrorForgets(t *testing.T) {
	rules := []jumpRule{{10, 5, "a"}}
	m := newMirrored(t, rules...)
	m.Forget(m.now())
	if c := m.now(); !c.Unread || len(c.Rules) > 0 {
		t.Errorf("unread %v, %d rules", c.Unread, len(c.Rules))
	}
	m.read(rules...).Commit()
	if c := m.now(); c.Unread || !m.holds(rules...) {
		t.Errorf("unread %v, rules %v", c.Unread, c.Rules)
	}
}

// TestMirrorOfMaps tells where other maps than before lead, and keeps them while
// nobody asks again.
func TestMirrorOfMaps(t *testing.T) {
	m := newMirrored(t, jumpRule{10, 5, "a"})
	with := func(to map[string][]string) bool {
		s := m.Stage()
		s.Maps("nat", to)
		s.Maps("gone", to)
		deltas := s.Commit()
		return len(deltas) == 1 && deltas[0].Table == "nat" && deltas[0].Resized
	}
	for _, tt := range []struct {
		to   map[string][]string
		want bool
	}{
		{nil, false},
		{map[string][]string{"m": {"a", "b"}}, true},
		{map[string][]string{"m": {"a", "b"}}, false},
		{map[string][]string{"m": {"a", "c"}}, true},
		{map[string][]string{"n": {"a", "c"}}, true},
	} {
		if got := with(tt.to); got != tt.want {
			t.Errorf("%v: told %v", tt.to, got)
		}
	}
	m.chain++ // which makes another Table
	m.heads(m.read(jumpRule{10, 0, "a"})).Commit()
	if got := m.Ruleset().Table("nat").Maps; len(got["n"]) != 2 {
		t.Errorf("got %v", got)
	}
	m.table++
	m.heads(m.read(jumpRule{10, 0, "a"})).Commit()
	if got := m.Ruleset().Table("nat").Maps; got != nil {
		t.Errorf("of a table that was made anew: %v", got)
	}
}
