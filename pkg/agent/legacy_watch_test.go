// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"os"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/svcscope/svcscope/pkg/internal/kerneltest"
	"github.com/svcscope/svcscope/pkg/kernel"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/xtables"
)

// quietLock is a lock file of which a test tells what happens to it.
type quietLock struct{}

func (quietLock) Events() <-chan kernel.LockEvent { return nil }
func (quietLock) Close() error                    { return nil }

// TestSessionReadingsKnowTheWay has the rules replaced right after the reading
// in a session: which way the connections before it came can't be told later.
func TestSessionReadingsKnowTheWay(t *testing.T) {
	for _, f := range []family{ipv4(), ipv6()} {
		t.Run(f.name, func(t *testing.T) {
			kerneltest.Run(t, func(t *testing.T) {
				f.load(t, "legacy")
				f.serve(t)
				s := newTestSampler(testConfig())
				t.Cleanup(func() { _ = s.close() })
				lock := s.legacy.lock
				lock.path, lock.watch = "lock", func(string) (lockWatch, error) { return quietLock{}, nil }
				s.pass(t.Context())
				s.pass(t.Context())

				connect(t, f.cluster(), 70)
				connect(t, f.external(), 20)
				now := time.Now()
				lock.take(kernel.LockEvent{Kind: kernel.LockOpened, At: now}, true, now)
				s.readDue(t.Context())
				f.restore(t, "legacy", f.chains())
				f.restore(t, "legacy", f.rules(""))
				connect(t, f.cluster(), 3)
				now = time.Now()
				lock.take(kernel.LockEvent{Kind: kernel.LockClosed, At: now}, true, now)
				s.pass(t.Context())
				check(t, page(t, s), f, 73, 20)
			})
		})
	}
}

// TestSessionsOfTablesThatAreGone has a table that was read once go, and a
// family that could never be read as a whole: a writer's session must not keep
// the agent from anything else.
func TestSessionsOfTablesThatAreGone(t *testing.T) {
	reader := &tornReader{tables: []string{"nat", "filter"}, t: t}
	s := newTestSampler(testConfig())
	s.legacy = newLegacyBackend(func() (legacyReader, error) { return reader, nil })
	s.xtables.backend = s.legacy
	lock := s.legacy.lock
	lock.path, lock.watch = "lock", func(string) (lockWatch, error) { return quietLock{}, nil }
	s.watchLock(time.Now())
	session := func() {
		t.Helper()
		for _, kind := range []kernel.LockEventKind{kernel.LockOpened, kernel.LockClosed} {
			now := time.Now()
			lock.take(kernel.LockEvent{Kind: kind, At: now}, true, now)
			done := make(chan struct{})
			go func() { s.readDue(t.Context()); close(done) }()
			select {
			case <-done:
			case <-time.After(10 * time.Second):
				t.Fatalf("it reads for ever after %v, %d times so far", kind, reader.reads.Load())
			}
		}
	}
	reader.torn = "filter"
	_, _ = s.legacy.read(t.Context()) // nat was read, filter never
	session()
	reader.torn = ""
	if _, err := s.legacy.read(t.Context()); err != nil {
		t.Fatal(err)
	}
	reader.tables = []string{"nat"}
	session()
}

// tornReader has the tables of a node without kube-proxy.
type tornReader struct {
	t      *testing.T
	tables []string
	torn   string // this one can't be read
	reads  atomic.Int64
}

func (r *tornReader) Tables(context.Context, netfilter.Family) ([]string, error) {
	return r.tables, nil
}

func (r *tornReader) Read(_ context.Context, f netfilter.Family, table string, use func(*xtables.Table) error) error {
	r.reads.Add(1)
	switch {
	case table == r.torn:
		return kernel.ErrInterrupted
	case !slices.Contains(r.tables, table):
		return kernel.ErrAbsent
	}
	base := fmt.Sprintf("../netfilter/xtables/testdata/plain/ipv%d/%s", map[netfilter.Family]int{netfilter.IPv4: 4, netfilter.IPv6: 6}[f], table)
	info, err := xtables.DecodeInfo(r.file(base + ".info"))
	if err != nil {
		return err
	}
	blob, err := xtables.DecodeEntries(r.file(base + ".bin"))
	if err != nil {
		return err
	}
	parsed, err := xtables.NewTable(f, info, blob)
	if err != nil {
		return err
	}
	return use(parsed)
}

func (r *tornReader) file(path string) []byte {
	b, err := os.ReadFile(path)
	if err != nil {
		r.t.Fatal(err)
	}
	return b
}

func (*tornReader) Stats() kernel.ReadStats { return kernel.ReadStats{} }
func (*tornReader) Close() error            { return nil }
