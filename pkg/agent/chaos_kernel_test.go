// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/svcscope/svcscope/pkg/internal/kerneltest"
	"github.com/svcscope/svcscope/pkg/service"
)

// chaos is traffic, an agent, and somebody who writes rules at random.
type chaos struct {
	t       *testing.T
	f       *family
	backend string
	exact   bool // nothing may be lost
	rng     *rand.Rand
	traffic *traffic

	mu     sync.Mutex // of the sampler, which is for one goroutine
	s      *sampler
	last   tally // counted by the last pass
	lost   tally // at the end of the last round: opened, and not counted
	blind  time.Duration
	slack  tally // may be lost in this round though the agent listens
	passes int
	looks  int // at what the API said will change

	zeroed    atomic.Bool // a hidden operation has begun
	owed      uint64      // externals that may have lost their connections to one
	historyMu sync.Mutex
	history   []string // operations so far, with the rounds' ends
}

// note adds to the history.
func (c *chaos) note(what string) {
	c.historyMu.Lock()
	defer c.historyMu.Unlock()
	c.history = append(c.history, what)
}

// lately is the end of the history.
func (c *chaos) lately() []string {
	c.historyMu.Lock()
	defer c.historyMu.Unlock()
	return slices.Clone(c.history[max(0, len(c.history)-12):])
}

// pass samples, and holds what is counted against what was opened.
func (c *chaos) pass() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.s.pass(c.t.Context())
	_, begun := c.traffic.opened()
	now, _ := counted(c.s.latest.Load())
	if c.waysApart(now).more(c.waysApart(begun)) {
		c.t.Errorf("%+v counted, more than %+v that were opened; lately %q", now, begun, c.lately())
	}
	if c.last.more(now) {
		c.t.Errorf("%+v counted after %+v: a number fell", now, c.last)
	}
	c.last = now
	c.passes++
}

// waysApart is what has to hold of the two ways: each by its own or, where
// somebody has zeroed a counter that keeps its identity, their sum. Unless the
// kernel tells of it such a one may have passed its old value by the next
// reading, and an external connection then looks like one by cluster address.
func (c *chaos) waysApart(n tally) tally {
	if c.backend == "legacy" || !c.exact && c.zeroed.Load() {
		n.cluster, n.external = n.cluster+n.external, 0
	}
	return n
}

// between does what the agent does between samplings: it looks at what the API
// says will change, and reads around the sessions of who writes x_tables.
func (c *chaos) between(announce bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if announce {
		c.s.announced(now)
	}
	c.s.legacy.lock.drain(now)
	c.s.readDue(c.t.Context())
	if c.s.round(c.t.Context()) > 0 {
		c.looks++
	}
}

// sample passes at random moments, and does at others what comes between, until
// stop is closed.
func (c *chaos) sample(stop <-chan struct{}, rng *rand.Rand) {
	for {
		select {
		case <-stop:
			return
		case <-time.After(time.Duration(rng.IntN(8)) * time.Millisecond):
			if n := rng.IntN(20); n < 4 {
				c.pass()
			} else {
				c.between(n < 8)
			}
		}
	}
}

// round does some operations and holds the books of the round.
func (c *chaos) round(ops []operation) (n int) {
	blindBefore, lostBefore := c.blind, c.lost
	c.slack = tally{}
	c.note("round")
	openedBefore, _ := c.traffic.opened()
	hidden := c.backend == "legacy" // identities outlive everything there
	for range 1 + c.rng.IntN(4) {
		op := ops[c.rng.IntN(len(ops))]
		c.note(op.name)
		if op.hidden {
			hidden = true
			c.zeroed.Store(true)
		}
		if !op.whole {
			c.slack.cluster += 3 * 2 * uint64(runtime.NumCPU()) // three commits
			c.slack.external++                                  // in the old rules at the switch
		}
		if op.table {
			const early = 16 // that pass before the kernel tells of the commit
			c.slack = c.slack.plus(tally{early, early, early})
		}
		op.do(c)
		time.Sleep(time.Duration(c.rng.IntN(20)) * time.Millisecond) // traffic, and perhaps a pass
		n++
	}
	c.traffic.rules.Lock() // nothing is on its way
	defer c.traffic.rules.Unlock()
	for range 3 {
		c.pass()
	}
	c.settle()
	if hidden {
		opened, _ := c.traffic.opened()
		c.owed += opened.external - openedBefore.external
	}
	switch lost := c.lost.less(lostBefore); {
	case !c.lost.more(lostBefore): // nothing, or some of what was lost has come
	case c.exact && c.lost.more(lostBefore.plus(c.slack)):
		c.t.Errorf("not counted: %+v, and before %q %+v", c.lost, c.lately(), lostBefore)
	case !hidden && lost.cluster <= c.owed && lost == tally{cluster: lost.cluster}:
		c.owed -= lost.cluster
	case !c.exact && c.blind == blindBefore && !hidden:
		c.t.Errorf("not counted: %+v, and before %q %+v; no blind time says so", c.lost, c.lately(), lostBefore)
	}
	if c.exact && !c.listens() {
		c.t.Errorf("not listening after %q", c.lately())
	}
	return n
}

// settle notes what is lost when nothing is on its way.
func (c *chaos) settle() {
	opened, _ := c.traffic.opened()
	var now tally
	now, c.blind = counted(c.s.latest.Load())
	c.lost = opened.less(now)
}

// run has rounds until the time is over.
func (c *chaos) run(d time.Duration) {
	stop, done := make(chan struct{}), make(chan struct{})
	seed := c.rng.Uint64()
	go func() {
		defer close(done)
		c.sample(stop, rand.New(rand.NewPCG(seed, 2)))
	}()
	count, rounds := 0, 0
	for end := time.Now().Add(d); time.Now().Before(end) && !c.t.Failed(); rounds++ {
		count += c.round(operations())
	}
	close(stop)
	<-done
	if err := c.traffic.end(); err != nil {
		c.t.Error(err)
	}
	c.pass()
	c.settle()
	opened, _ := c.traffic.opened()
	// In x_tables a counter that was reset and has passed its old value shows nothing of
	// it; but where all is looked at again and again most is counted.
	if all, lost := opened.sum(), c.lost.sum(); all > 100 && lost > all-all/10 {
		c.t.Errorf("%d of %d lost", lost, all)
	}
	c.t.Logf("%d operations in %d rounds, %d passes, %d looks: %+v opened, %+v lost, blind for %v",
		count, rounds, c.passes, c.looks, opened, c.lost, c.blind)
	if opened.cluster == 0 || opened.external == 0 || opened.refused == 0 || count == 0 || c.looks == 0 && !c.exact {
		c.t.Error("nothing happened")
	}
}

// chaosSeed is random, or what SVCSCOPE_CHAOS_SEED says.
func chaosSeed(t *testing.T) uint64 {
	t.Helper()
	seed := rand.Uint64()
	if s := os.Getenv("SVCSCOPE_CHAOS_SEED"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		seed = n
	}
	t.Logf("SVCSCOPE_CHAOS_SEED=%d", seed)
	return seed
}

// TestRandomTrouble has rules zeroed, replaced, emptied, removed, restored and
// flushed in random order while connections come in and the agent reads.
// Listening, it counts each of them once; otherwise never more than there
// were, and what it loses is lost in blind time. SVCSCOPE_LONG=1 takes
// minutes.
func TestRandomTrouble(t *testing.T) {
	d := 1500 * time.Millisecond
	if os.Getenv("SVCSCOPE_LONG") == "1" {
		d = time.Minute
	}
	for _, mode := range []string{"nft listening", "nft", "legacy"} {
		for _, f := range []family{ipv4(), ipv6()} {
			t.Run(mode+" "+f.name, func(t *testing.T) {
				kerneltest.Run(t, func(t *testing.T) { newChaos(t, mode, &f).run(d) })
			})
		}
	}
}

// newChaos makes the scene: rules, traffic, and an agent that has its
// baseline.
func newChaos(t *testing.T, mode string, f *family) *chaos {
	t.Helper()
	backend, listens, _ := strings.Cut(mode, " ")
	f.load(t, backend)
	f.restore(t, backend, f.chaosRules(""))
	f.serve(t)
	cfg := testConfig()
	cfg.Kube = KubeAuto
	if listens == "" {
		cfg.MaxRules = 0
	}
	api := chaosAPI(f)
	api.names = []service.Name{webPort.Name}
	s := apiSampler(t, cfg, api)
	for range 3 { // baseline, join, base
		s.pass(t.Context())
	}
	seed := chaosSeed(t)
	c := &chaos{t: t, f: f, backend: backend, exact: listens != "", s: s, rng: rand.New(rand.NewPCG(seed, 1))}
	if c.exact && !s.nft.notices.exact() {
		t.Fatal("the agent does not listen")
	}
	c.traffic = startTraffic(t, f, 2, seed)
	return c
}
