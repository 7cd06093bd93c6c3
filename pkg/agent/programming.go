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

// unprogrammed is a port whose endpoints the API has changed.
type unprogrammed struct {
	since time.Time
	// before and want are the chains of the endpoints that the port had and is to have,
	// in order.
	before, want []string
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
	w := p.waiting[at]
	switch {
	case !known || !ok:
		delete(p.waiting, at)
		return false
	case slices.Equal(before, want):
		return false
	case w == nil:
		p.waiting[at] = &unprogrammed{since: since, before: before, want: want}
	case slices.Equal(want, w.before): // taken back
		delete(p.waiting, at)
	default:
		w.want = want
	}
	p.fresh = true
	return true
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
	slices.Sort(chains)
	if slices.Equal(slices.Compact(chains), w.want) {
		p.delays.Observe(at.Family, now.Sub(w.since))
		delete(p.waiting, at)
	}
}

// next is when to ask again, after a time; 0: nothing waits.
func (p *programming) next(now time.Time) time.Duration {
	youngest := time.Duration(-1)
	for at, w := range p.waiting {
		age := now.Sub(w.since)
		if age > programFor {
			delete(p.waiting, at)
		} else if youngest < 0 || age < youngest {
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
	p := &s.programming
	if len(p.waiting) > 0 {
		s.legacy.programmed(p, time.Now())
		if s.nft.ready {
			// What can't be read now is asked for again.
			_ = s.nft.programmed(ctx, p)
		}
	}
	return p.next(time.Now())
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
