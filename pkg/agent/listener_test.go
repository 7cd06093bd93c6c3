// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/svcscope/svcscope/pkg/kernel"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/nftables"
)

// fakeNotices is a source that hands out what the test gives it.
type fakeNotices struct {
	commits chan []nftables.Notice
	err     chan error
	lost    uint64
	closed  bool
}

func newFakeNotices() *fakeNotices {
	return &fakeNotices{commits: make(chan []nftables.Notice, 100), err: make(chan error, 10)}
}

func (f *fakeNotices) Lost() uint64 { return f.lost }
func (f *fakeNotices) Close() error { f.closed = true; return nil }

func (f *fakeNotices) Next(ctx context.Context, visit func(*nftables.Notice)) error {
	select {
	case c := <-f.commits:
		for i := range c {
			visit(&c[i])
		}
		return nil
	default:
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case err := <-f.err:
		return err
	case c := <-f.commits:
		for i := range c {
			visit(&c[i])
		}
		return nil
	}
}

// made is a commit of some rules in a chain, ended by its generation.
func made(generation uint32, by, table, chain string, rules int) []nftables.Notice {
	var ns []nftables.Notice
	for range rules {
		ns = append(ns, nftables.Notice{Kind: nftables.DelRule, Family: netfilter.IPv4, Table: table, Chain: chain, HasCounter: true})
	}
	return append(ns, nftables.Notice{Kind: nftables.NewGen, Gen: nftables.Gen{ID: generation, ProcName: by}})
}

func openListener(t *testing.T) (*listener, *fakeNotices) {
	t.Helper()
	f := newFakeNotices()
	l := listenTo(f)
	t.Cleanup(func() {
		if err := l.close(); err != nil || !f.closed {
			t.Errorf("close: %v, closed %v", err, f.closed)
		}
	})
	return l, f
}

func generations(commits []commit) (out []uint32) {
	for _, c := range commits {
		out = append(out, c.generation)
	}
	return out
}

func TestCommitsUpToAGeneration(t *testing.T) {
	l, f := openListener(t)
	const svc = "KUBE-SVC-ABCDEFGHIJKLMNOP"
	f.commits <- made(1<<32-1, "iptables-restor", "nat", svc, 2)
	f.commits <- made(0, "nft", "nat", "chain", 3) // it wraps around
	commits, err := l.upTo(t.Context(), 0)
	if got := generations(commits); err != nil || !slices.Equal(got, []uint32{1<<32 - 1, 0}) {
		t.Fatalf("got %v, %v", got, err)
	}
	if n, m := len(commits[0].notices), len(commits[1].notices); n != 2 || m != 0 {
		t.Errorf("%d and %d notices are kept, want those of chains that count", n, m)
	}
	if a, b := commits[0].writer, commits[1].writer; a != "kube-proxy" || b != "nft" {
		t.Errorf("writers %q and %q", a, b)
	}

	// A reading runs ahead of the notices: it waits for them, and leaves what
	// comes after.
	go func() {
		f.commits <- made(1, "", "nat", svc, 1)
		f.commits <- made(2, "", "nat", svc, 1)
		f.commits <- made(3, "", "nat", svc, 1)
	}()
	commits, err = l.upTo(t.Context(), 2)
	if got := generations(commits); err != nil || !slices.Equal(got, []uint32{1, 2}) {
		t.Errorf("got %v, %v; want 1 and 2", got, err)
	}
	commits, err = l.upTo(t.Context(), 3)
	if got := generations(commits); err != nil || !slices.Equal(got, []uint32{3}) {
		t.Errorf("got %v, %v; want 3", got, err)
	}
	if commits, err = l.upTo(t.Context(), 4); !errors.Is(err, errLate) || len(commits) != 0 {
		t.Errorf("got %v, %v; want errLate", generations(commits), err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err = l.upTo(ctx, 5); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the context's error", err)
	}
}

func TestLostNoticesAreToldInTheirPlace(t *testing.T) {
	l, f := openListener(t)
	const svc = "KUBE-SVC-ABCDEFGHIJKLMNOP"
	f.commits <- made(1, "", "nat", svc, 1)
	commits, err := l.upTo(t.Context(), 1)
	if err != nil || len(commits) != 1 {
		t.Fatal(commits, err)
	}
	f.err <- kernel.ErrOverrun
	if commits, err = l.upTo(t.Context(), 2); !errors.Is(err, kernel.ErrOverrun) || len(commits) != 0 {
		t.Errorf("got %v, %v; want the loss", generations(commits), err)
	}
	f.commits <- made(7, "", "nat", svc, 1)
	if commits, err = l.upTo(t.Context(), 7); err != nil || len(commits) != 1 {
		t.Errorf("after the loss: %v, %v", generations(commits), err)
	}
}

// TestQueueIsBounded: what nobody takes is dropped and said to be lost.
func TestQueueIsBounded(t *testing.T) {
	l := &listener{more: make(chan struct{}, 1)}
	half := make([]nftables.Notice, queueRules/2+1)
	l.add(commit{generation: 1, notices: half})
	l.add(commit{generation: 2, notices: half})
	if commits, err := l.upTo(t.Context(), 2); !errors.Is(err, kernel.ErrOverrun) || len(commits) != 0 {
		t.Errorf("got %d commits, %v; want the loss", len(commits), err)
	}
	if l.dropped != 2*uint64(len(half)) {
		t.Errorf("%d notices are said to be lost, want %d", l.dropped, 2*len(half))
	}
	if l.rules != 0 || len(l.queue) != 0 {
		t.Errorf("%d rules in %d commits are left in the queue", l.rules, len(l.queue))
	}
}

func TestGate(t *testing.T) {
	g := gate{max: 1000}
	for _, step := range []struct {
		rules int
		want  bool
	}{
		{10, true}, {1000, true}, {1001, false}, {1000, false}, {801, false}, {800, true}, {1000, true},
	} {
		if got := g.wants(step.rules); got != step.want {
			t.Errorf("%d rules: %v, want %v", step.rules, got, step.want)
		}
	}
	if g := (gate{}); g.wants(0) {
		t.Error("--exact.max-rules=0 listens")
	}
}

// TestNobodyPaysForTheFirstLoad: an agent that is there first does not listen
// before the rules are, or when the API says that there will be many.
func TestNobodyPaysForTheFirstLoad(t *testing.T) {
	now := time.Now()
	s := nftSampler(&fakeNFTables{states: []nftState{{generation: 7}}}, nil)
	source := newFakeNotices()
	s.nft = s.sources[0].backend.(*nftablesBackend)
	s.nft.notices.open = func() (noticeSource, error) { return source, nil }
	s.listen(now)
	if s.nft.notices.listener != nil {
		t.Fatal("it listens before there is any rule")
	}
	s.pass(t.Context())
	s.listen(now)
	s.listen(now.Add(stoodFor - time.Second))
	if s.nft.notices.listener != nil {
		t.Fatal("it listens while kube-proxy may be loading, and no API tells")
	}
	s.listen(now.Add(stoodFor + time.Second))
	if s.nft.notices.listener == nil {
		t.Fatal("it does not listen")
	}
	// The API now tells of many.
	f := ipv4()
	c := f.catalog()
	for range s.cfg.MaxRules {
		c.Services = append(c.Services, c.Services[0])
	}
	s.catalog = c
	s.listen(now.Add(2 * stoodFor))
	if s.nft.notices.listener != nil || !source.closed {
		t.Error("it listens to a cluster with thousands of rules to come")
	}
}
