// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"testing"
	"time"

	"github.com/svcscope/svcscope/pkg/internal/kerneltest"
	"github.com/svcscope/svcscope/pkg/kernel"
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
