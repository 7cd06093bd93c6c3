// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"time"

	"github.com/svcscope/svcscope/pkg/kubeproxy"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/nftables"
	"github.com/svcscope/svcscope/pkg/service"
)

// An agent that does not listen loses what rules have counted since it read
// them last, when kube-proxy rewrites them. It knows from the API which rules
// will be: those of Services that changed, and all refusals. Until they are
// rewritten it reads these over and over.
const (
	// watchFor is how long kube-proxy may take to write what the API said.
	watchFor = 5 * time.Second
	// watchEvery is the least time between two rounds; a round's cost is at
	// most a tenth of it.
	watchEvery = 2 * time.Millisecond
	watchShare = 10
)

// watched is what is read over and over, each until a time.
type watched struct {
	ports    map[watchedPort]time.Time
	refusals map[netfilter.Family]time.Time
}

type watchedPort struct {
	family netfilter.Family
	hash   string
}

func newWatched() watched {
	return watched{ports: make(map[watchedPort]time.Time), refusals: make(map[netfilter.Family]time.Time)}
}

// any reports whether there is something to read.
func (w *watched) any() bool { return len(w.ports)+len(w.refusals) > 0 }

// watch adds the ports of Services and all refusals, as far as they have rules.
func (b *nftablesBackend) watch(w *watched, hashes []string, until time.Time) {
	for _, f := range families() {
		if len(b.known[f].rules.View.Refusals) > 0 {
			w.refusals[f] = until
		}
		for _, hash := range hashes {
			if b.known[f].rules.View.Ports[hash] != nil {
				w.ports[watchedPort{f, hash}] = until
			}
		}
	}
}

// expire drops what waited in vain.
func (w *watched) expire(now time.Time) {
	for p, until := range w.ports {
		if now.After(until) {
			delete(w.ports, p)
		}
	}
	for f, until := range w.refusals {
		if now.After(until) {
			delete(w.refusals, f)
		}
	}
}

// announced takes the Services that the API has changed.
func (s *sampler) announced(now time.Time) {
	names, all := s.kube.changes()
	s.listen(now) // a cluster that grows is not listened to when its rules come
	if s.nft.notices.exact() || !s.nft.seen || all {
		return
	}
	var hashes []string
	for _, name := range names {
		hashes = append(hashes, hashesOf(s.catalog, name)...)
		hashes = append(hashes, hashesOf(s.kube.catalog(), name)...)
	}
	if len(names) > 0 {
		s.nft.watch(&s.watched, hashes, now.Add(watchFor))
	}
}

// hashesOf lists those in the names of a Service's chains.
func hashesOf(c *service.Catalog, name service.Name) (hashes []string) {
	if c == nil {
		return nil
	}
	svc := c.Service(name)
	if svc == nil {
		return nil
	}
	for i := range svc.Ports {
		hashes = append(hashes, kubeproxy.Hash(svc.PortName(&svc.Ports[i])))
	}
	return hashes
}

// round reads what is watched, and returns after which time to do so again; 0
// when there is nothing left.
func (s *sampler) round(ctx context.Context) time.Duration {
	src := s.sources[0]
	s.watched.expire(time.Now())
	if !s.watched.any() || s.nft.notices.exact() || !src.Success {
		s.watched = newWatched()
		return 0
	}
	begin := time.Now()
	if s.nft.look(ctx, &s.watched) == nil {
		s.tell(ctx, src, time.Now())
	}
	return max(watchEvery, watchShare*time.Since(begin))
}

// look reads what is watched and drops from it what has been rewritten.
func (b *nftablesBackend) look(ctx context.Context, w *watched) error {
	r, err := b.get()
	if err != nil {
		return err
	}
	return b.take(ctx, r, func(ctx context.Context, p *pass) error {
		p.watched = w
		p.moved = b.moved
		refusals := kubeproxy.RefusalChains()
		for f := range w.refusals {
			if err := p.chains(ctx, f, "filter", refusals[:]...); err != nil {
				return err
			}
		}
		var chains []*nftables.Chain
		for port := range w.ports {
			nat := b.known[port.family].set.Table("nat")
			for _, name := range kubeproxy.ChainsOf(port.hash) {
				if nat.Chain(name) != nil {
					chains = append(chains, &nftables.Chain{Family: port.family, Table: "nat", Name: name})
				}
			}
		}
		return p.readAll(ctx, chains)
	})
}

// rewritten drops a chain that is another one now.
func (w *watched) rewritten(f netfilter.Family, table, chain string) {
	switch _, hash := kubeproxy.ParseChain(chain); {
	case table == "filter":
		delete(w.refusals, f)
	case hash != "":
		delete(w.ports, watchedPort{f, hash})
	}
}
