// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"maps"
	"slices"
	"time"

	"github.com/svcscope/svcscope/pkg/correlate"
	"github.com/svcscope/svcscope/pkg/drift"
	"github.com/svcscope/svcscope/pkg/kubeproxy"
	"github.com/svcscope/svcscope/pkg/ledger"
	"github.com/svcscope/svcscope/pkg/metrics"
	"github.com/svcscope/svcscope/pkg/netfilter"
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
	// brought has the last commit of each backend and family that is known to have brought a
	// change of endpoints since Services were judged.
	brought map[ledger.Source]drift.Commit
	// held is how many readings the next catalog waits for at most: it would take back what they
	// may find.
	held int
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
	// missed is when the rules were read last that did not have it; zero: never since the change.
	missed time.Time
}

// sight is a look at a port's rules: when they were read, and by when they had been written.
type sight struct{ read, written time.Time }

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
		w.changes = append(w.changes, endpointChange{since: since, left: left})
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
	ipv6 := at.Family == netfilter.IPv6
	e, ok := drift.Expect(c, svc, &svc.Ports[i], ipv6)
	if !ok || drift.Undecided(c.EndpointsOf(at.Port, ipv6)) {
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

// found takes the endpoints' chains that a port's rules jump to.
func (p *programming) found(b ruleset.Backend, at drift.PortFamily, chains []string, seen sight) {
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
	w.done(func(c *endpointChange) {
		p.delays.Observe(at.Family, max(0, seen.written.Sub(c.since)))
		if source := correlate.LedgerSource(b, at.Family); c.missed.After(p.brought[source].After) {
			p.brought[source] = drift.Commit{Family: at.Family, Backend: b, After: c.missed, Seen: later(seen.read, c.missed)}
		}
	})
	for i := range w.changes {
		if c := &w.changes[i]; seen.read.After(c.since) {
			c.missed = seen.read
		}
	}
	if len(w.changes) == 0 {
		delete(p.waiting, at)
	}
}

// commits sharpens what readings tell of kube-proxy's commits: what has brought a change of
// endpoints came after a look that did not find it. In x_tables readings do not tell of one that
// has left KUBE-SERVICES in the same order.
func (p *programming) commits(seen []drift.Commit, now time.Time) []drift.Commit {
	for source, b := range p.brought {
		i := slices.IndexFunc(seen, func(c drift.Commit) bool { return !c.Half && c.Family == b.Family && c.Backend == b.Backend })
		switch {
		case i >= 0:
			seen[i].After = later(seen[i].After, b.After)
		case b.Backend == ruleset.Legacy:
			b.Seen = now
			seen = append(seen, b)
		}
		delete(p.brought, source)
	}
	return seen
}

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// behind reports whether some port of a family has more than one change that was not found: the next
// one may take the first of them back.
func (p *programming) behind(f netfilter.Family) bool {
	for at, w := range p.waiting {
		if at.Family == f && len(w.changes) > 1 {
			return true
		}
	}
	return false
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
