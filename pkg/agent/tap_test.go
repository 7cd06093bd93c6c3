// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/svcscope/svcscope/pkg/correlate"
	"github.com/svcscope/svcscope/pkg/kernel"
)

// fakeTap is a table that takes so many plans.
type fakeTap struct{ plans int }

var errTapGone = errors.New("the table is gone")

func (f *fakeTap) Set(context.Context, kernel.TapWays) (kernel.TapChange, error) {
	f.plans--
	if f.plans < 0 {
		return kernel.TapChange{}, errTapGone
	}
	return kernel.TapChange{}, nil
}

func (*fakeTap) Counts(context.Context) (map[kernel.TapKey]kernel.TapCount, error) { return nil, nil }
func (*fakeTap) Close() error                                                      { return nil }

// TestWatchEndsWithItsTap: a command that taps does not go on without.
func TestWatchEndsWithItsTap(t *testing.T) {
	cfg := testConfig()
	cfg.Tap, cfg.NFLOGGroup = true, "100"
	s := newTestSampler(cfg)
	defer s.close()
	groups := newFakeGroups()
	s.groups = groups.read(groupChoice{groups: []uint16{100}})
	s.tap.groups = groups.read(groupChoice{})
	s.tap.open = func(context.Context, kernel.TapConfig) (tapTable, error) { return &fakeTap{plans: 1}, nil }
	s.tap.held = groups.all
	started := 0
	done := make(chan error, 1)
	go func() {
		done <- s.watchDrops(t.Context(), DropWatch{
			Sources: func(r *correlate.DropsReport) {
				started = len(r.Groups)
				if r.Tap != nil && r.Tap.Active && r.Tap.Group.Bound && r.NoEvents == "" {
					started++
				}
				s.tap.refusals.ways.Store(&[]correlate.TapRefusal{}) // another plan
			},
			Visit: func(*correlate.DropEventReport) {},
		})
	}()
	select {
	case err := <-done:
		if !errors.Is(err, errTapGone) || started != 2 {
			t.Errorf("got %v after %d groups, want that the table is gone", err, started)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("it goes on")
	}
	if held, _ := groups.all(); len(held) != 0 {
		t.Errorf("bound are %v", held)
	}
}
