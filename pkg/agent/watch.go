// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/svcscope/svcscope/pkg/kubeproxy"
	"github.com/svcscope/svcscope/pkg/ledger"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/nftables"
	"github.com/svcscope/svcscope/pkg/ruleset"
	"github.com/svcscope/svcscope/pkg/service"
)

// An agent that does not listen loses what rules have counted since it read
// them last, when kube-proxy rewrites them. It knows from the API which rules
// will be: those of Services that changed, and all refusals. Until they are
// rewritten it reads these over and over.
const (
	// watchFor is how long kube-proxy may take to write what the API said.
	watchFor = 5 * time.Second
	// watchEvery is the least time between two rounds, of which a round takes at
	// most a tenth. Of x_tables readings take at most a twentieth of the time of
	// each family, and come less often: they hold the mutex that a writer of the
	// family needs, and take a processor from it. Where the writer keeps a pace
	// there are none until shortly before it writes, and then more, but fewer of
	// those that take long: the writer would meet one. Such a one is not made where
	// the other family is about to be written.
	watchEvery  = 2 * time.Millisecond
	watchShare  = 10
	legacyEvery = 10 * time.Millisecond
	// legacyBeside is between two looks while the writer's sessions are watched and read
	// in, and legacyLead how long before it opens the lock file kube-proxy begins to prepare
	// a sync: looks are for the sessions that are missed, and take a processor from a
	// sync that may be under way already. Those that cost next to nothing come more often.
	legacyBeside = 10 * legacyEvery
	legacyLead   = 40 * time.Millisecond
	legacyShare  = 20
	legacyNear   = 4
	legacyLong   = 10
	longLook     = 4 * time.Millisecond
	// dearLook is a reading of x_tables that keeps a writer of the family waiting for
	// so long that there is one look between two writes: it ends twice its time
	// before the next one is expected, or is not made. What is of the other family
	// is looked at meanwhile.
	dearLook = 30 * time.Millisecond
	// dearRecent is how old the last reading of such a table may be at a sampling
	// that leaves it out.
	dearRecent = 4 * time.Second
)

// watched is what is read over and over.
type watched struct {
	ports    map[watchedPort]waiting
	refusals map[netfilter.Family]waiting
}

type watchedPort struct {
	family netfilter.Family
	hash   string
}

// waiting is how long. A change that was announced while another one was
// waited for may come with it, or with a later sync.
type waiting struct {
	until time.Time
	more  bool // more than one announcement is waited for
}

func newWatched() watched {
	return watched{ports: make(map[watchedPort]waiting), refusals: make(map[netfilter.Family]waiting)}
}

// any reports whether there is something to read.
func (w *watched) any() bool { return len(w.ports)+len(w.refusals) > 0 }

// things is how much there is to read, at least 1.
func (w *watched) things() time.Duration { return time.Duration(max(1, len(w.ports)+len(w.refusals))) }

// announce adds an announcement for something that has rules.
func announce[K comparable](m map[K]waiting, key K, until time.Time) {
	_, more := m[key]
	m[key] = waiting{until, more}
}

// written takes note that it was rewritten.
func written[K comparable](m map[K]waiting, key K) {
	if w := m[key]; w.more {
		m[key] = waiting{until: w.until}
	} else {
		delete(m, key)
	}
}

// add watches the ports and all refusals of what has rules.
func (w *watched) add(known []*familyRules, hashes map[string]bool, until time.Time) {
	for _, f := range known {
		if !f.read {
			continue
		}
		if len(f.rules.View.Refusals) > 0 {
			announce(w.refusals, f.set.Family, until)
		}
		for hash := range hashes {
			if f.rules.View.Ports[hash] != nil {
				announce(w.ports, watchedPort{f.set.Family, hash}, until)
			}
		}
	}
}

// expire drops what waited in vain.
func (w *watched) expire(now time.Time) {
	maps.DeleteFunc(w.ports, func(_ watchedPort, p waiting) bool { return now.After(p.until) })
	maps.DeleteFunc(w.refusals, func(_ netfilter.Family, r waiting) bool { return now.After(r.until) })
}

// announced takes the Services that the API has changed.
func (s *sampler) announced(now time.Time) {
	catalog := s.kube.catalog() // first: what it has is among the changes then
	names, all := s.kube.changes()
	s.drift.arrivals.note(names, all, now)
	if s.programming.held > 0 {
		catalog = s.programming.catalog
	}
	s.programming.announce(names, s.kube.told, catalog, now)
	s.leave(s.gated(now)) // a cluster that grows is not listened to when its rules come
	if all || len(names) == 0 {
		return
	}
	hashes := make(map[string]bool)
	for _, name := range names {
		addHashes(hashes, s.catalog, name)
		addHashes(hashes, s.kube.catalog(), name)
	}
	for _, src := range s.sources {
		if src.backend != s.nft || s.nft.notices.listener == nil {
			src.watched.add(src.families(), hashes, now.Add(watchFor))
		}
	}
}

// addHashes adds those in the names of a Service's chains.
func addHashes(hashes map[string]bool, c *service.Catalog, name service.Name) {
	if c == nil {
		return
	}
	if svc := c.Service(name); svc != nil {
		for i := range svc.Ports {
			hashes[kubeproxy.Hash(svc.PortName(&svc.Ports[i]))] = true
		}
	}
}

// round reads what is watched, and returns after which time to do so again; 0
// when there is nothing left.
func (s *sampler) round(ctx context.Context) time.Duration {
	var next time.Time
	for _, src := range s.sources {
		now := time.Now()
		src.watched.expire(now)
		switch {
		case !src.watched.any():
			continue
		case !src.Success || src.backend == s.nft && s.nft.notices.listener != nil:
			src.watched = newWatched()
			continue
		case !now.Before(src.rest):
			src.rest = s.look(ctx, src)
		}
		next = earlier(next, src.rest)
	}
	if next.IsZero() {
		return 0
	}
	return max(time.Until(next), time.Microsecond)
}

// look reads what is watched of a source and tells the ledger; twice where the
// way of connections is left open, as a rewrite would leave it open for good.
// It returns when to look again.
func (s *sampler) look(ctx context.Context, src *ruleSource) (next time.Time) {
	begin, things := time.Now(), src.watched.things()
	for second := range 2 {
		src.outcome = ledger.Outcome{}
		rest, err := src.backend.look(ctx, &src.watched, second > 0)
		if err != nil {
			now := time.Now()
			return now.Add(max(watchEvery, legacyShare*now.Sub(begin)))
		}
		next = rest
		s.tell(ctx, src, time.Now())
		if !src.outcome.Pending {
			break
		}
	}
	if next.IsZero() {
		now := time.Now()
		spend(&src.cost, now.Sub(begin)/things)
		next = now.Add(max(watchEvery, watchShare*src.cost*things))
	}
	return next
}

// earlier returns the earlier one of two times; the zero time is none.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}

func (b *nftablesBackend) look(ctx context.Context, w *watched, _ bool) (next time.Time, err error) {
	r, err := b.get()
	if err != nil {
		return next, err
	}
	begin, ports := time.Now(), slices.Collect(maps.Keys(w.ports))
	all := b.whole.due(begin) && slices.ContainsFunc(b.families(), func(f *familyRules) bool { return f.full.due(begin) })
	var generation uint32
	err = b.take(ctx, r, func(ctx context.Context, p *pass) error {
		p.watched, generation = w, p.generation()
		other, err := b.otherTables(ctx, p)
		switch {
		case err != nil:
			return err
		case other, all: // where tables are others the generation is, too
			return b.plan(ctx, p)
		}
		p.moved = b.moved
		return b.planWatched(ctx, p)
	})
	if err == nil && all {
		b.whole = wholeLooks{last: begin, cost: time.Since(begin)}
	}
	if err == nil && generation != b.generation && b.strangers(ports) {
		err = b.take(ctx, r, func(ctx context.Context, p *pass) error {
			p.watched = w
			return b.plan(ctx, p)
		})
	}
	if err == nil { // that nothing moved is news to the ledger, too
		for _, port := range ports {
			b.known[port.family].touched[port.hash] = true
		}
	}
	return next, err
}

// strangers reports whether one of these ports has an endpoint of which nothing
// tells where it is: above 1,000 endpoints kube-proxy leaves out the comment, and
// the chain was not read yet.
func (b *nftablesBackend) strangers(ports []watchedPort) bool {
	return slices.ContainsFunc(ports, func(port watchedPort) bool {
		chains := b.known[port.family].rules.View.Ports[port.hash]
		return chains != nil && slices.ContainsFunc(chains.Endpoints, func(e kubeproxy.EndpointChains) bool { return !e.Addr.IsValid() })
	})
}

// planWatched reads the chains of what is watched.
func (b *nftablesBackend) planWatched(ctx context.Context, p *pass) error {
	for f := range p.watched.refusals {
		if err := p.chains(ctx, f, "filter", refusing(b.known[f].rules.View)...); err != nil {
			return err
		}
	}
	var chains []*nftables.Chain
	for port := range p.watched.ports {
		nat := b.known[port.family].set.Table("nat")
		for _, name := range kubeproxy.ChainsOf(port.hash) {
			if nat.Chain(name) != nil {
				chains = append(chains, &nftables.Chain{Family: port.family, Table: "nat", Name: name})
			}
		}
	}
	return p.readAll(ctx, chains)
}

// otherTables reports whether a table was made anew since the tables were
// listed: its rules are none of those that are known under its name.
func (b *nftablesBackend) otherTables(ctx context.Context, p *pass) (other bool, err error) {
	if b.generation == p.generation() {
		return false, nil
	}
	for _, f := range families() {
		err = errors.Join(err, p.attempt.Tables(ctx, f, func(t nftables.Table) {
			known := b.known[f].set.Table(t.Name)
			other = other || known != nil && known.Handle != t.Handle
		}))
	}
	return other, err
}

// refusing lists the chains in filter that refuse anything.
func refusing(v *kubeproxy.View) []string {
	var names []string
	for i := range v.Refusals {
		r := &v.Refusals[i]
		if r.Table == "filter" && !slices.Contains(names, r.Chain.Name) {
			names = append(names, r.Chain.Name)
		}
	}
	return names
}

// tables lists those of a family that have something that is watched.
func (w *watched) tables(f netfilter.Family) []string {
	var tables []string
	if _, ok := w.refusals[f]; ok {
		tables = append(tables, "filter")
	}
	for p := range w.ports {
		if p.family == f {
			return append(tables, "nat")
		}
	}
	return tables
}

// rewritten takes note of chains that are others now: of a port only once,
// however many of its chains are.
func (w *watched) rewritten(f netfilter.Family, deltas []ruleset.Delta) {
	seen, refusals := make(map[string]bool), kubeproxy.RefusalChains()
	for _, d := range deltas {
		for _, c := range d.Changed {
			switch _, hash := kubeproxy.ParseChain(c.Name); {
			case d.Table == "filter" && !seen["filter"] && slices.Contains(refusals[:], c.Name):
				seen["filter"] = true
				written(w.refusals, f)
			case d.Table == "nat" && hash != "" && !seen[hash]:
				seen[hash] = true
				written(w.ports, watchedPort{f, hash})
			}
		}
	}
}

// spend notes how long something took that costs so much. Once that it took long
// it had to wait, for a processor or for a writer: that is no cost.
func spend(cost *time.Duration, d time.Duration) {
	if *cost > 0 {
		d = min(d, *cost+*cost/8)
	}
	*cost = d
}
