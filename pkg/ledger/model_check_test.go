// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
)

// tell notes what the ledger is told of the port.
func (p *modelPort) tell(r *run) {
	told := p.toldUID
	r.introduced = r.introduced || p.api && !p.known
	p.toldUID = p.uid
	p.met = p.met && p.known
	switch {
	case p.known && !p.api:
		p.known = false
		p.left, p.leftAt = p.truth, r.now
		if !r.joined || len(r.queue) > 0 {
			p.left = p.whole // rules of which nothing is told yet have counted since
		}
		if !p.met {
			// Nothing says that they were not the next one's.
			p.left = p.start
		}
	case p.known && told != p.uid:
		p.renew(p.whole)
	case !p.known && p.api && !p.ever:
		// Nothing tells whose packets those of unnamed rules were that are gone.
		p.exempt = p.exempt || p.unkept || !p.named && len(p.conns) == 0
		p.known, p.ever = true, true
	case !p.known && p.api:
		p.known = true
		if told == p.uid && r.now.Sub(p.leftAt) < grace {
			p.exempt = true // packets may have been lost unsaid
			return
		}
		p.renew(lower(p.left, p.whole))
	}
	if !p.known {
		p.toldUID = told
	}
}

// renew starts another series.
func (p *modelPort) renew(from ways) {
	p.series++
	p.start, p.exempt = from, true
}

// within checks that nothing is more than it was, and nothing fell.
func (r *run) within() {
	var sum, all ways
	for _, p := range r.ports {
		all.cluster += p.truth.cluster
		all.external += p.truth.external
		all.refused += p.truth.refused
		t, ok := r.l.Total(p.Port)
		if ok != p.known && r.l.max > 1 {
			r.fail("%s: known %v, exposed %v", p.Service.Name, p.known, ok)
		}
		if !ok {
			continue
		}
		got := t.ways()
		sum.cluster += got.cluster
		sum.external += got.external
		sum.refused += got.refused
		most := p.truth.minus(p.start)
		if got.exceeds(ways{most.cluster + p.early, most.external, most.refused}) || got.cluster+got.external > most.cluster+most.external {
			r.fail("%s: %+v, of at most %+v", p.Service.Name, got, most)
		}
		for _, e := range t.Endpoints {
			if e.Connections > p.endpoints[e.Addr] {
				r.fail("%s: %d connections to %v, of %d", p.Service.Name, e.Connections, e.Addr, p.endpoints[e.Addr])
			}
		}
		if p.lastOf == p.series && p.last.Created.Equal(t.Created) && p.last.ways().exceeds(got) {
			r.fail("%s: a total fell from %+v to %+v", p.Service.Name, p.last.ways(), got)
		}
		if p.lastOf == p.series && r.l.max > 1 && !p.last.Created.IsZero() && !p.last.Created.Equal(t.Created) {
			r.fail("%s: another series was started", p.Service.Name)
		}
		p.last, p.lastOf = t, p.series
	}
	for _, t := range r.l.Others() {
		got := PortTotal{Totals: t}.ways()
		sum.cluster += got.cluster
		sum.external += got.external
		sum.refused += got.refused
	}
	if sum.exceeds(all) {
		r.fail("in all %+v, of %+v", sum, all)
	}
}

func (t PortTotal) ways() ways {
	return ways{t.Cluster, t.External, t.Rejected["no_endpoints"]}
}

// check reads all while nothing happens, and compares what is missing with
// what was at the last check.
func (r *run) check(first bool) {
	dirty, calm := r.lossy, r.source != leg || r.generation == r.checked && !r.dipped
	r.lossy = make(map[string]bool)
	r.deliver(r.generation)
	for _, p := range r.ports {
		p.whole = p.truth
	}
	out := r.apply(r.read(nil, 0))
	r.settle(out, 0)
	r.settle(r.apply(r.read(nil, 0)), 0)
	r.dirty = false
	calm = calm && (r.source != leg || !r.dipped)
	r.checked, r.dipped = r.generation, false
	r.within()
	for table := range dirty {
		r.replaced[table] = true
	}
	for _, p := range r.ports {
		t, ok := r.l.Total(p.Port)
		if !ok || r.l.max == 1 {
			continue
		}
		allowed := 2*(p.inFlight+p.window) + p.held
		p.inFlight, p.window, p.held = 0, 0, 0
		missing := p.truth.minus(p.start).minus(t.ways())
		missing.cluster += r.reserved(p)
		if int64(missing.cluster) < 0 { // what is owed may be an earlier Service's
			missing.cluster = 0
		}
		exempt := first || p.exempt || !calm
		p.exempt = false
		if !exempt && !r.replaced["nat"] &&
			(missing.cluster > p.deficit.cluster+allowed || missing.external > p.deficit.external+allowed) ||
			!exempt && !r.replaced["filter"] && missing.refused > p.deficit.refused+allowed {
			r.fail("%s: missing %+v after %+v; allowed %d, replaced %v", p.Service.Name, missing, p.deficit, allowed, r.replaced)
		}
		p.deficit = missing
	}
	clear(r.replaced)
}

// reserved is how many of the port's connections the ledger holds back from the
// cluster's share: of the next, and of those owed while an External counter has
// no name.
func (r *run) reserved(p *modelPort) (n uint64) {
	src := r.l.sources[r.source]
	if d := src.debts[debtor{port: p.Port}]; d != nil {
		n = d.slack - d.t
	}
	if a := src.accounts[p.Port]; a != nil {
		low := a.split.e + a.split.unknown + a.split.cluster
		n += low - min(low, a.split.t)
	}
	return n
}

// seeds is how many runs of each source are made: SVCSCOPE_SEEDS, or 1000.
func seeds(t *testing.T) int {
	s := os.Getenv("SVCSCOPE_SEEDS")
	if s == "" {
		return 1000
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestModel runs random interleavings of all that happens to counters.
func TestModel(t *testing.T) {
	for _, source := range []Source{nft, leg} {
		for seed := range uint64(seeds(t)) {
			rnd := rand.New(rand.NewPCG(seed, 7))
			drive(rnd, source, 40, func(format string, args ...any) {
				t.Helper()
				t.Errorf("seed %d %s: "+format, append([]any{seed, source.Backend}, args...)...)
				t.FailNow()
			})
		}
	}
}

// bytesDice reads its choices from bytes, and then chooses 0.
type bytesDice struct{ data []byte }

func (b *bytesDice) IntN(n int) int {
	if len(b.data) == 0 {
		return 0
	}
	v := int(b.data[0])
	b.data = b.data[1:]
	return v % n
}

// FuzzLedger drives the model from bytes.
func FuzzLedger(f *testing.F) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 8 {
		seed := make([]byte, 2000)
		for i := range seed {
			seed[i] = byte(rnd.IntN(256))
		}
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		d := &bytesDice{data: data}
		source := []Source{nft, leg}[d.IntN(2)]
		drive(d, source, min(60, len(data)/40), t.Fatalf)
	})
}
