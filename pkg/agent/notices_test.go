// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"testing"
	"time"

	"github.com/svcscope/svcscope/pkg/kernel"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/nftables"
)

// fakeListening has joined fake notices of fake rules.
func fakeListening(t *testing.T, l *logs, states ...nftState) (*sampler, *fakeNotices) {
	t.Helper()
	s, source := nftSampler(&fakeNFTables{states: states}, l), newFakeNotices()
	s.nft = s.sources[0].backend.(*nftablesBackend)
	s.nft.notices.open = func() (noticeSource, error) { return source, nil }
	s.pass(t.Context())
	s.gate.stood = time.Now().Add(-stoodFor)
	s.pass(t.Context())
	s.pass(t.Context())
	if !s.nft.notices.exact() {
		t.Fatal("it does not listen")
	}
	t.Cleanup(func() { _ = s.close() })
	return s, source
}

// exactNow is what the newest snapshot says of IPv4.
func exactNow(s *sampler) bool {
	for _, e := range s.latest.Load().Exact {
		if e.Family == netfilter.IPv4 && e.Exact {
			return true
		}
	}
	return false
}

// TestReadingsWaitForNothingThatWasTold reads one generation over and over: the
// clock is not to be seen in it.
func TestReadingsWaitForNothingThatWasTold(t *testing.T) {
	l := &logs{}
	s, source := fakeListening(t, l, nftState{generation: 7})
	for range 20 {
		s.pass(t.Context())
	}
	if !exactNow(s) || l.count("missed") != 0 || source.closed {
		t.Errorf("exact %v, closed %v:\n%s", exactNow(s), source.closed, l.b.String())
	}
}

// TestNoticesThatAreLost makes the next reading the base of what follows.
func TestNoticesThatAreLost(t *testing.T) {
	l := &logs{}
	fake := nftState{generation: 7}
	s, source := fakeListening(t, l, fake)
	read := s.sources[0].backend.(*nftablesBackend).value.(*fakeNFTables)
	read.states = []nftState{{generation: 9}}
	source.err <- kernel.ErrOverrun
	s.pass(t.Context())
	if l.count("changes of rules were missed") != 1 {
		t.Errorf("the loss is not logged once:\n%s", l.b.String())
	}
	if exactNow(s) || source.closed {
		t.Errorf("after a loss: exact %v, closed %v", exactNow(s), source.closed)
	}
	// Of the commit after the loss some may be lost: it ends where the next reading is.
	read.states = []nftState{{generation: 10}}
	source.commits <- made(10, "", "nat", "KUBE-MARK-MASQ", 1)
	s.pass(t.Context())
	if exactNow(s) || source.closed {
		t.Errorf("after half a commit: exact %v, closed %v", exactNow(s), source.closed)
	}
	read.states = []nftState{{generation: 11}}
	source.commits <- made(11, "", "nat", "KUBE-MARK-MASQ", 1)
	s.pass(t.Context())
	if !exactNow(s) {
		t.Error("it does not go on from the reading")
	}
	if l.count("missed") != 2 || s.nft.notices.from != 11 {
		t.Errorf("told up to %d, want 11:\n%s", s.nft.notices.from, l.b.String())
	}
}

// TestNoticesWithAGap: a loss that nothing tells of shows in the generations.
func TestNoticesWithAGap(t *testing.T) {
	for name, generations := range map[string][]uint32{"before": {9, 10}, "after": {8, 9}, "between": {8, 10}} {
		l := &logs{}
		s, source := fakeListening(t, l, nftState{generation: 7})
		s.sources[0].backend.(*nftablesBackend).value.(*fakeNFTables).states = []nftState{{generation: 10}}
		for _, g := range append(generations, 11) {
			source.commits <- made(g, "", "nat", "KUBE-MARK-MASQ", 1)
		}
		s.pass(t.Context())
		if exactNow(s) || source.closed || l.count(errGap.Error()) != 1 || s.nft.notices.from != 10 {
			t.Errorf("a gap %s: exact %v, closed %v, told up to %d:\n%s", name, exactNow(s), source.closed, s.nft.notices.from, l.b.String())
		}
	}
	for before, want := range map[uint32]uint32{7: 8, 1<<32 - 1: 1} {
		if got := after(before); got != want {
			t.Errorf("after %d comes %d, want %d", before, got, want)
		}
	}
}

// TestKernelWithoutFinalCounters is never exact, and is not asked again.
func TestKernelWithoutFinalCounters(t *testing.T) {
	l := &logs{}
	s, source := fakeListening(t, l, nftState{generation: 7})
	s.sources[0].backend.(*nftablesBackend).value.(*fakeNFTables).states = []nftState{{generation: 8}}
	source.commits <- []nftables.Notice{
		{Kind: nftables.DelRule, Family: netfilter.IPv4, Table: "nat", Chain: "KUBE-SVC-ABCDEFGHIJKLMNOP"},
		{Kind: nftables.NewGen, Gen: nftables.Gen{ID: 8}},
	}
	for range 3 {
		s.pass(t.Context())
		if exactNow(s) || s.nft.notices.listener != nil || !source.closed {
			t.Fatalf("exact %v, closed %v", exactNow(s), source.closed)
		}
	}
	if l.count(errMute.Error()) != 1 {
		t.Errorf("not said once:\n%s", l.b.String())
	}
}
