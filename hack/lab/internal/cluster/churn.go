// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Churn changes endpoints of Services again and again, as a rollout does.
type Churn struct {
	// Services are changed at each step: one of its endpoints, another each
	// time, goes and the one that went before comes back.
	Services []Exposure
	// Fillers is the number of fillers (see Filler) of which one, another at
	// each step, loses its last endpoint or gets it back.
	Fillers int
	// Every is the time from one step to the next.
	Every time.Duration
}

// Run changes until ctx ends, and returns the number of steps. At the end all
// Services but fillers have all their endpoints again.
func (ch Churn) Run(ctx context.Context, c *Client) (steps int, err error) {
	for _, e := range ch.Services {
		if len(e.Endpoints) < 2 {
			return 0, fmt.Errorf("churn %s: %d endpoints: want 2 or more", e.Name, len(e.Endpoints))
		}
	}
	tick := time.NewTicker(ch.Every)
	defer tick.Stop()
	for ; ; steps++ {
		select {
		case <-ctx.Done():
			return steps, ch.restore(context.WithoutCancel(ctx), c)
		case <-tick.C:
		}
		for _, e := range ch.step(steps) {
			if err := e.applySlices(ctx, c); err != nil && !errors.Is(err, context.Canceled) {
				return steps, fmt.Errorf("churn: %w", err)
			}
		}
	}
}

// step returns what is to be at a step, counted from 0.
func (ch Churn) step(n int) []Exposure {
	var out []Exposure
	for _, e := range ch.Services {
		e.Endpoints = slices.Delete(slices.Clone(e.Endpoints), n%len(e.Endpoints), n%len(e.Endpoints)+1)
		out = append(out, e)
	}
	if ch.Fillers > 0 {
		f := Filler(n % ch.Fillers)
		if n/ch.Fillers%2 == 0 {
			f.Endpoints = f.Endpoints[:len(f.Endpoints)-1]
		}
		out = append(out, f)
	}
	return out
}

func (ch Churn) restore(ctx context.Context, c *Client) error {
	for _, e := range ch.Services {
		if err := e.applySlices(ctx, c); err != nil {
			return fmt.Errorf("churn: %w", err)
		}
	}
	return nil
}
