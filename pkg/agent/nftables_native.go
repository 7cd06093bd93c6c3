// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"maps"
	"slices"

	"github.com/svcscope/svcscope/pkg/correlate"
	"github.com/svcscope/svcscope/pkg/kubeproxy"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/nftables"
	"github.com/svcscope/svcscope/pkg/ruleset"
)

// isNative reports whether a table is that of kube-proxy's nftables mode. All of its rules
// are read when something has changed: kube-proxy puts as many others in a chain as
// there were, and the chain's numbers stay. Nothing in it counts, so that it is not read
// otherwise.
func isNative(f netfilter.Family, table string) bool {
	return table == kubeproxy.NativeTable && f != netfilter.FamilyINet
}

// sets reads the sets and maps of the table of kube-proxy's nftables mode. Those without a
// name of their own do not change while they are there; clients that affinity remembers come
// and go with packets, and are left out.
func (b *nftablesBackend) sets(ctx context.Context, p *pass, t *nftables.TableContent) error {
	var heads []nftables.Set
	if err := p.attempt.Sets(ctx, t.Family, t.Name, func(s *nftables.Set) { heads = append(heads, *s) }); err != nil {
		return err
	}
	var known map[string]*ruleset.Set
	if old := b.known[t.Family].set.Table(t.Name); old != nil && old.Handle == t.Handle {
		known = old.Sets
	}
	all := make([]*ruleset.Set, 0, len(heads))
	for i := range heads {
		h := &heads[i]
		if old := known[h.Name]; old != nil && old.Handle == h.Handle && old.Constant && !old.Unread {
			all = append(all, old)
			continue
		}
		s := ruleset.NewSet(h)
		if !s.Dynamic {
			if err := p.attempt.Elements(ctx, h, s.Add); err != nil {
				return err
			}
			s.Done()
		}
		all = append(all, s)
	}
	p.stages[t.Family].Sets(t.Name, all)
	return nil
}

// updateNative takes what a reading has changed in the table of the nftables mode.
func (f *familyRules) updateNative(deltas []ruleset.Delta) {
	if f.set.Backend != ruleset.NFT || !slices.ContainsFunc(deltas, func(d ruleset.Delta) bool {
		return isNative(f.set.Family, d.Table) && !d.Same()
	}) {
		return
	}
	if f.native == nil {
		f.native = kubeproxy.NewNativeView(nil)
	}
	f.native.UpdateNative(f.set)
}

// nativeRules is the nftables mode's view of a family, if there was one ever.
func (f *familyRules) nativeRules() (correlate.Rules, bool) {
	if f.native == nil {
		return correlate.Rules{}, false
	}
	return correlate.Rules{View: f.native, NFTablesMode: f.rules.NFTablesMode}, true
}

// natives are the views of the nftables mode.
func (s *sampler) natives() []correlate.Rules {
	var all []correlate.Rules
	for _, src := range s.sources {
		for _, f := range src.families() {
			if r, ok := f.nativeRules(); ok && f.read {
				all = append(all, r)
			}
		}
	}
	return all
}

// undecodedNative counts what is not understood in the table of the nftables mode, and
// says so when there is other than before.
func (b *nftablesBackend) undecodedNative() map[string]uint64 {
	sum := make(map[string]uint64)
	for _, f := range b.families() {
		if f.native == nil {
			continue
		}
		for kind, n := range f.native.Native.Undecoded {
			sum[kubeproxy.NativeTable+"/"+kind] += n
		}
	}
	if !maps.Equal(sum, b.strange) {
		if b.strange = sum; len(sum) > 0 {
			b.log.Warn("some of what kube-proxy's nftables mode has in the kernel is not understood: it is left out", "counts", sum)
		}
	}
	return sum
}
