// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/svcscope/svcscope/pkg/correlate"
	"github.com/svcscope/svcscope/pkg/kubeproxy"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/ruleset"
)

const (
	// historyOf is how many changes are kept of one Service port, and historyFor for how
	// long those of one that has no chains any more.
	historyOf  = 16
	historyFor = time.Hour
	// comparedAtOnce is for how many ports rules are compared word by word: where more were
	// rewritten, kube-proxy has written all anew.
	comparedAtOnce = 200
)

// history is the last changes of the rules of each Service port. The zero value is ready;
// a nil one keeps nothing.
type history struct {
	mu    sync.Mutex
	ports map[string][]correlate.RuleChange // guarded by mu; by the hash in chains' names, oldest first
	swept time.Time                         // guarded by mu
}

// before is what ports were before a reading, by hash; nil where a port had no chains.
type before map[string]*kubeproxy.PortChains

// ofPorts returns the ports of which a reading has changed chains, as they are in a view.
func ofPorts(v *kubeproxy.View, deltas []ruleset.Delta) before {
	b := make(before)
	touch := func(name string) {
		switch kind, hash := kubeproxy.ParseChain(name); kind {
		case kubeproxy.KindService, kubeproxy.KindLocal, kubeproxy.KindExternal, kubeproxy.KindFirewall:
			b[hash] = v.Ports[hash]
		}
	}
	for i := range deltas {
		if deltas[i].Table != "nat" {
			continue
		}
		for _, c := range deltas[i].Changed {
			touch(c.Name)
		}
		for _, name := range deltas[i].Gone {
			touch(name)
		}
	}
	return b
}

// note keeps what has changed of these ports in a view.
func (h *history) note(b before, v *kubeproxy.View, now time.Time) {
	if h == nil || len(b) == 0 {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ports == nil {
		h.ports = make(map[string][]correlate.RuleChange)
	}
	for hash, old := range b {
		c := correlate.RuleChange{Time: now, Backend: v.Backend, Family: v.Family}
		if !describe(&c, old, v.Ports[hash], len(b) <= comparedAtOnce) {
			continue
		}
		list := h.ports[hash]
		if len(list) == historyOf {
			list = list[1:]
		}
		h.ports[hash] = append(list, c)
	}
	h.sweep(v, now)
}

// sweep forgets ports that are gone, now and then. One whose other family or backend has
// chains yet is kept by the next change there.
func (h *history) sweep(v *kubeproxy.View, now time.Time) {
	if now.Sub(h.swept) < historyFor {
		return
	}
	h.swept = now
	for hash, list := range h.ports {
		if v.Ports[hash] == nil && now.Sub(list[len(list)-1].Time) > historyFor {
			delete(h.ports, hash)
		}
	}
}

// describe says in c what has changed; false: nothing.
func describe(c *correlate.RuleChange, old, now *kubeproxy.PortChains, words bool) bool {
	c.Made, c.Removed = old == nil, now == nil
	was, is := endpointsIn(old), endpointsIn(now)
	c.EndpointsAdded, c.EndpointsRemoved = without(is, was), without(was, is)
	if old == nil && now == nil {
		return false
	}
	if c.Made || c.Removed || len(c.EndpointsAdded)+len(c.EndpointsRemoved) > 0 {
		return true
	}
	return words && !sameWords(old, now, c.Family)
}

func endpointsIn(p *kubeproxy.PortChains) (addrs []netip.AddrPort) {
	if p == nil {
		return nil
	}
	for i := range p.Endpoints {
		addrs = append(addrs, p.Endpoints[i].Addr)
	}
	return addrs
}

func without(all, some []netip.AddrPort) []netip.AddrPort {
	return slices.DeleteFunc(slices.Clone(all), func(a netip.AddrPort) bool { return slices.Contains(some, a) })
}

// sameWords reports whether two states of a port's chains have the same rules.
func sameWords(a, b *kubeproxy.PortChains, f netfilter.Family) bool {
	same := func(x, y *ruleset.Chain) bool {
		if x == nil || y == nil {
			return x == y
		}
		return x == y || slices.EqualFunc(x.Rules, y.Rules, func(r, s ruleset.Rule) bool { return r.Spec(f) == s.Spec(f) })
	}
	return same(a.Service, b.Service) && same(a.Local, b.Local) && same(a.External, b.External) && same(a.Firewall, b.Firewall)
}

// wrote notes who has written the rules of ports in nf_tables, by their chains: the last change of
// each that is not older than a reading.
func (h *history) wrote(writer string, f netfilter.Family, chains []string, since time.Time) {
	if h == nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, chain := range chains {
		_, hash := kubeproxy.ParseChain(chain)
		list := h.ports[hash]
		if len(list) == 0 {
			continue
		}
		if c := &list[len(list)-1]; c.Family == f && c.Backend == ruleset.NFT && c.Writer == "" && !c.Time.Before(since) {
			c.Writer = writer
		}
	}
}

// of returns the changes of a port, oldest first.
func (h *history) of(hash string) []correlate.RuleChange {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.ports[hash])
}
