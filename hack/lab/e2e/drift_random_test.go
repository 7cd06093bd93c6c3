// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"

	"github.com/svcscope/svcscope/hack/lab/internal/cluster"
)

// objectsArg makes this test binary call objectsMain, on the lan.
const objectsArg = "__objects"

// objectsMain is `random SEED N ROUND`: it makes the API have N Services of chance with
// their slices, or in a later round other slices and in part other Services under the same
// names; or `fill N`: plain ones, as many at once as the API server takes.
func objectsMain(args []string) error {
	numbers := make([]uint64, 0, 3)
	for _, a := range args[min(1, len(args)):] {
		n, err := strconv.ParseUint(a, 10, 64)
		if err != nil {
			return err
		}
		numbers = append(numbers, n)
	}
	c, err := cluster.NewClient(os.Getenv("KUBECONFIG"))
	if err != nil {
		return err
	}
	switch {
	case len(numbers) == 3 && args[0] == "random":
		r := randomObjects{seed: numbers[0], round: int(numbers[2])}
		return each(int(numbers[1]), func(i int) error { return r.apply(context.Background(), c, i) })
	case len(numbers) == 1 && args[0] == "fill":
		// The first one makes the namespace.
		if _, err := cluster.Filler(0).Apply(context.Background(), c); err != nil {
			return err
		}
		return each(int(numbers[0]), func(i int) error {
			_, err := cluster.Filler(i).Apply(context.Background(), c)
			return err
		})
	}
	return fmt.Errorf("want random SEED N ROUND or fill N, not %q", args)
}

// each calls f for 0 to n-1, some at a time.
func each(n int, f func(int) error) error {
	const atATime = 16
	next, errs := make(chan int), make([]error, n)
	var all sync.WaitGroup
	for range atATime {
		all.Go(func() {
			for i := range next {
				errs[i] = f(i)
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	all.Wait()
	return errors.Join(errs...)
}

// driftSeed is of the random Services: SVCSCOPE_DRIFT_SEED, or another one each time.
func driftSeed(t *testing.T) uint64 {
	t.Helper()
	text := os.Getenv("SVCSCOPE_DRIFT_SEED")
	if text == "" {
		return rand.Uint64N(1_000_000)
	}
	seed, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("SVCSCOPE_DRIFT_SEED: %v", err)
	}
	return seed
}

// randomObjects are Services of chance, the same ones for a seed.
type randomObjects struct {
	seed  uint64
	round int
}

// remade is of how many Services one is made anew in a round.
const remade = 5

// made is the round in which the Service that now has a number was made.
func (r *randomObjects) made(i int) int {
	for round := r.round; round > 0; round-- {
		if i%remade == round%remade {
			return round
		}
	}
	return 0
}

// apply makes the API have Service i and its slices.
func (r *randomObjects) apply(ctx context.Context, c *cluster.Client, i int) error {
	made := r.made(i)
	s := newRandomService(rand.New(rand.NewPCG(r.seed, uint64(made)<<32|uint64(i))), i)
	its := s.slices(rand.New(rand.NewPCG(r.seed, uint64(r.round+1)<<48|uint64(i))))
	path := "/api/v1/namespaces/default/services/" + s.name
	if made == r.round && made > 0 {
		if err := c.Delete(ctx, path); err != nil {
			return err
		}
	}
	for name := range s.sliceNames() {
		at := "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/" + name
		var err error
		if o, ok := its[name]; ok {
			err = c.Apply(ctx, at, o)
		} else {
			err = c.Delete(ctx, at)
		}
		if err != nil {
			return err
		}
	}
	if err := c.Apply(ctx, path, s.object()); err != nil {
		return err
	}
	if status := s.status(); status != nil {
		return c.Apply(ctx, path+"/status", status)
	}
	return nil
}
