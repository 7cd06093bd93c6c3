// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"time"

	"github.com/svcscope/svcscope/pkg/drift"
	"github.com/svcscope/svcscope/pkg/kubeproxy"
	"github.com/svcscope/svcscope/pkg/netfilter/nftables"
	"github.com/svcscope/svcscope/pkg/ruleset"
)

// heard takes what the API has changed. What waits for the rules is looked for first: it may be what
// the API takes back.
func (s *sampler) heard(ctx context.Context) {
	if p := &s.programming; p.held == 0 && p.catalog != s.kube.catalog() {
		s.programmed(ctx)
		if p.held = len(families()); !s.catchUp(ctx) {
			p.held = 0
		}
	}
	s.announced(time.Now())
}

// catchUp reads nat of x_tables where more than one change of a port was not found, and somebody may have
// written since it was read. It reports whether that goes on beside other readings, as it does where
// it takes long.
func (s *sampler) catchUp(ctx context.Context) (reading bool) {
	for _, f := range s.legacy.known {
		nat := legacyTable{f.set.Family, "nat"}
		if !s.programming.behind(nat.family) || !f.rules.View.Present || s.legacy.away(nat) || !s.legacy.unread(f) {
			continue
		}
		if s.readOne(ctx, nat) {
			s.tell(ctx, s.xtables, time.Now())
			s.legacy.programmed(&s.programming)
		}
	}
	return s.legacy.reads()
}

// resume takes the catalog that was held back, when what it waited for has come.
func (s *sampler) resume(ctx context.Context) {
	p := &s.programming
	if p.held == 0 || s.legacy.reads() {
		return
	}
	if p.held--; p.held == 0 || !s.catchUp(ctx) {
		p.held = 0
		s.announced(time.Now())
	}
}

// programmed looks whether what waits has come, and returns when to look again.
func (s *sampler) programmed(ctx context.Context) time.Duration {
	p, begin := &s.programming, time.Now()
	if len(p.waiting) > 0 {
		s.legacy.programmed(p)
		if s.nft.ready {
			// What can't be read now is asked for again.
			_ = s.nft.programmed(ctx, p)
		}
	}
	s.resume(ctx)
	now := time.Now()
	next := p.next(now)
	if p.held > 0 {
		next = programEvery
	}
	if next == 0 {
		return 0
	}
	return max(next, watchShare*now.Sub(begin))
}

// programmed looks at what the last readings have brought.
func (b *legacyBackend) programmed(p *programming) {
	for _, f := range b.known {
		v := f.rules.View
		if !f.familyRules.read || !v.Present {
			continue
		}
		seen := sight{f.at, b.written(f)}
		for at := range p.waiting {
			if at.Family == f.set.Family {
				p.found(ruleset.Legacy, at, endpointChains(v.Ports[kubeproxy.Hash(at.Port)]), seen)
			}
		}
	}
}

// written is by when the rules were there that the newest reading of nat has: the end of the last
// session before it in which somebody may have written, where the lock file tells. A table
// that takes long is read later, so that its writer is not kept waiting.
func (b *legacyBackend) written(f *legacyFamily) time.Time {
	s := b.lock.sessions
	if s == nil {
		return f.at
	}
	t := s.tables[legacyTable{f.set.Family, "nat"}]
	if t == nil || t.over.IsZero() || t.over.After(f.at) || s.held() && !s.begin.After(f.at) {
		return f.at
	}
	return t.over
}

// unread reports whether nat may have been written since it was read.
func (b *legacyBackend) unread(f *legacyFamily) bool {
	s := b.lock.sessions
	if s == nil {
		return true
	}
	t := s.tables[legacyTable{f.set.Family, "nat"}]
	return t == nil || t.over.After(f.at)
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
		p.found(ruleset.NFT, at, chains, sight{read, read})
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
