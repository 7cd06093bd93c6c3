// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/svcscope/svcscope/pkg/drift"
	"github.com/svcscope/svcscope/pkg/kubeproxy"
	"github.com/svcscope/svcscope/pkg/metrics"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/nftables"
	"github.com/svcscope/svcscope/pkg/ruleset"
	"github.com/svcscope/svcscope/pkg/service"
)

const (
	// programEvery is how often nf_tables is asked whether something has been committed while
	// a change of endpoints waits, and programShare the part of its age that passes
	// between two questions once it has waited for long. One that waits for programFor is
	// given up: svcscope_kube_proxy_pending_change_seconds tells of it.
	programEvery = 50 * time.Millisecond
	programShare = 50
	programFor   = 10 * time.Minute
)

// programming measures how long changes of endpoints take from the API into the kernel.
type programming struct {
	delays  *metrics.ProgrammingDelays
	catalog *service.Catalog // the last one that was seen
	told    []announcement   // of which no catalog is known to tell yet
	waiting map[drift.PortFamily]*unprogrammed
	// asked is the generation of nf_tables up to which chains were looked at; fresh: a
	// change has come since.
	asked uint32
	fresh bool
}

// announcement is that the API has changed a Service. A catalog of that version or a later
// one has the change, and an earlier one may have it.
type announcement struct {
	name    service.Name
	version uint64
	since   time.Time
}

// unprogrammed are the changes of a port's endpoints that the rules do not have yet, in the
// order in which they came. While endpoints come and go all the time the rules never are what
// the API says at any one moment: each change is looked for by itself.
type unprogrammed struct{ changes []endpointChange }

// maxUnprogrammed is how many of a port are told apart.
const maxUnprogrammed = 64

// endpointChange is one of them.
type endpointChange struct {
	since time.Time
	// left has the endpoints' chains to which rules are to lead, true, or are not to any
	// more, and do not or do as far as is known.
	left map[string]bool
}

// announce takes the Services that the API has changed up to a version, and the newest
// catalog. That has the changes up to a second later.
func (p *programming) announce(names []service.Name, version uint64, newest *service.Catalog, now time.Time) {
	for _, name := range names {
		p.told = append(p.told, announcement{name, version, now})
	}
	last := p.catalog
	if last == newest {
		return
	}
	p.catalog = newest
	if last == nil || newest == nil || !last.Synced || !newest.Synced || newest.Node.Name == "" {
		p.told = nil
		return
	}
	compared := make(map[service.Name]bool)
	p.told = slices.DeleteFunc(p.told, func(a announcement) bool {
		changed := !compared[a.name] && p.compare(last, newest, &a)
		compared[a.name] = true
		return changed || a.version <= newest.Version
	})
}

// compare finds the ports of a Service that are to have other endpoints than before.
func (p *programming) compare(last, next *service.Catalog, a *announcement) (changed bool) {
	svc := next.Service(a.name)
	if svc == nil {
		maps.DeleteFunc(p.waiting, func(at drift.PortFamily, _ *unprogrammed) bool { return at.Port.Name == a.name })
		return false
	}
	for i := range svc.Ports {
		for _, f := range families() {
			at := drift.PortFamily{Port: svc.PortName(&svc.Ports[i]), Family: f}
			changed = p.change(last, next, at, a.since) || changed
		}
	}
	return changed
}

// change takes what a port is to have now, where that is another thing.
func (p *programming) change(last, next *service.Catalog, at drift.PortFamily, since time.Time) bool {
	before, known := expectedChains(last, at)
	want, ok := expectedChains(next, at)
	switch {
	case !known || !ok:
		delete(p.waiting, at)
		return false
	case slices.Equal(before, want):
		return false
	case p.waiting[at] == nil:
		p.waiting[at] = &unprogrammed{}
	}
	if p.waiting[at].add(before, want, since); len(p.waiting[at].changes) == 0 {
		delete(p.waiting, at)
	}
	p.fresh = true
	return true
}

// add takes what a port had and is to have now, both in order. What earlier changes have
// not brought yet, and is taken back, is not waited for.
func (w *unprogrammed) add(before, want []string, since time.Time) {
	left := make(map[string]bool)
	missing := func(from, names []string, there bool) {
		for _, name := range names {
			if _, ok := slices.BinarySearch(from, name); !ok {
				left[name] = there
			}
		}
	}
	missing(before, want, true)
	missing(want, before, false)
	for i := range w.changes {
		maps.DeleteFunc(w.changes[i].left, func(name string, was bool) bool {
			there, again := left[name]
			back := again && there != was
			if back {
				delete(left, name)
			}
			return back
		})
	}
	w.done(func(*endpointChange) {})
	switch n := len(w.changes); {
	case len(left) == 0:
	case n < maxUnprogrammed:
		w.changes = append(w.changes, endpointChange{since, left})
	default:
		maps.Copy(w.changes[n-1].left, left)
	}
}

// done drops the changes of which nothing is left.
func (w *unprogrammed) done(tell func(*endpointChange)) {
	w.changes = slices.DeleteFunc(w.changes, func(c endpointChange) bool {
		if len(c.left) == 0 {
			tell(&c)
		}
		return len(c.left) == 0
	})
}

// expectedChains are the names of the chains of the endpoints that kube-proxy is to send a
// port's connections to on this node, in order.
func expectedChains(c *service.Catalog, at drift.PortFamily) (names []string, ok bool) {
	svc := c.Service(at.Port.Name)
	if svc == nil {
		return nil, false
	}
	i := slices.IndexFunc(svc.Ports, func(p service.Port) bool { return svc.PortName(&p) == at.Port })
	if i < 0 {
		return nil, false
	}
	e, ok := drift.Expect(c, svc, &svc.Ports[i], at.Family == netfilter.IPv6)
	if !ok {
		return nil, false
	}
	for _, list := range [...][]service.Endpoint{e.Cluster, e.Local} {
		for j := range list {
			names = append(names, kubeproxy.EndpointChain(at.Port, list[j].Addr))
		}
	}
	slices.Sort(names)
	return slices.Compact(names), true
}

// found takes the endpoints' chains that a port's rules jump to at a time.
func (p *programming) found(at drift.PortFamily, chains []string, now time.Time) {
	w := p.waiting[at]
	if w == nil {
		return
	}
	leads := make(map[string]bool, len(chains))
	for _, name := range chains {
		leads[name] = true
	}
	for i := range w.changes {
		maps.DeleteFunc(w.changes[i].left, func(name string, there bool) bool { return leads[name] == there })
	}
	w.done(func(c *endpointChange) { p.delays.Observe(at.Family, now.Sub(c.since)) })
	if len(w.changes) == 0 {
		delete(p.waiting, at)
	}
}

// next is when to ask again, after a time; 0: nothing waits.
func (p *programming) next(now time.Time) time.Duration {
	youngest := time.Duration(-1)
	for at, w := range p.waiting {
		w.changes = slices.DeleteFunc(w.changes, func(c endpointChange) bool { return now.Sub(c.since) > programFor })
		if len(w.changes) == 0 {
			delete(p.waiting, at)
		} else if age := now.Sub(w.changes[len(w.changes)-1].since); youngest < 0 || age < youngest {
			youngest = age
		}
	}
	if youngest < 0 {
		return 0
	}
	return max(programEvery, youngest/programShare)
}

// programmed looks whether what waits has come, and returns when to look again.
func (s *sampler) programmed(ctx context.Context) time.Duration {
	p, begin := &s.programming, time.Now()
	if len(p.waiting) > 0 {
		s.legacy.programmed(p, time.Now())
		if s.nft.ready {
			// What can't be read now is asked for again.
			_ = s.nft.programmed(ctx, p)
		}
	}
	now := time.Now()
	next := p.next(now)
	if next == 0 {
		return 0
	}
	return max(next, watchShare*now.Sub(begin))
}

// programmed looks at what the last readings have brought.
func (b *legacyBackend) programmed(p *programming, now time.Time) {
	for _, f := range b.known {
		if v := f.rules.View; f.familyRules.read && v.Present {
			for at := range p.waiting {
				if at.Family == f.set.Family {
					p.found(at, endpointChains(v.Ports[kubeproxy.Hash(at.Port)]), now)
				}
			}
		}
	}
}

func endpointChains(p *kubeproxy.PortChains) (names []string) {
	if p == nil {
		return nil
	}
	for i := range p.Endpoints {
		names = append(names, p.Endpoints[i].Chain)
	}
	return names
}

// programmed reads the chains of what waits, where anything was committed since it was last
// asked. It is no reading of the rules: nothing of it is kept.
func (b *nftablesBackend) programmed(ctx context.Context, p *programming) error {
	var found map[drift.PortFamily][]string
	var read time.Time
	err := b.value.Try(ctx, func(ctx context.Context, a rulesAttempt) error {
		found = make(map[drift.PortFamily][]string)
		if a.Generation() == p.asked && !p.fresh {
			return nil
		}
		read = time.Now()
		for at := range p.waiting {
			if !b.known[at.Family].rules.View.Present {
				continue
			}
			chains, err := jumpsToEndpoints(ctx, a, at)
			if err != nil {
				return err
			}
			found[at] = chains
		}
		p.asked, p.fresh = a.Generation(), false
		return nil
	})
	if err != nil {
		p.fresh = true
		return err
	}
	for at, chains := range found {
		p.found(at, chains, read)
	}
	return nil
}

// jumpsToEndpoints lists the endpoints' chains that a port's chains jump to; a chain that
// is not there jumps to none.
func jumpsToEndpoints(ctx context.Context, a rulesAttempt, at drift.PortFamily) (names []string, err error) {
	convert := ruleset.NewConverter(at.Family)
	for _, chain := range []string{kubeproxy.ServiceChain(at.Port), kubeproxy.LocalChain(at.Port)} {
		err := a.Rules(ctx, &nftables.Chain{Family: at.Family, Table: "nat", Name: chain}, func(b []byte) error {
			decoded, err := nftables.DecodeRule(b)
			if err != nil {
				return err
			}
			rule := convert.NFTRule(&decoded)
			if kind, _ := kubeproxy.ParseChain(rule.Action.Chain); kind == kubeproxy.KindEndpoint {
				names = append(names, rule.Action.Chain)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return names, nil
}
