// SPDX-License-Identifier: Apache-2.0

package correlate

import (
	"crypto/sha256"

	"github.com/svcscope/svcscope/pkg/kubeproxy"
	"github.com/svcscope/svcscope/pkg/ledger"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/ruleset"
	"github.com/svcscope/svcscope/pkg/service"
)

// Counters makes readings for the ledger of the rules of one backend and
// family. It keeps the identities of counters, which are made of a rule's text
// where the kernel gives it no handle.
type Counters struct {
	digests map[ledger.ChainName]chainIDs
	unnamed map[string]bool
	writing map[string]bool
}

// chainIDs are the identities of the rules of one chain.
type chainIDs struct {
	of  *ruleset.Chain
	ids []ledger.ID
}

// NewCounters returns an empty one.
func NewCounters() *Counters {
	return &Counters{digests: make(map[ledger.ChainName]chainIDs), unnamed: make(map[string]bool), writing: make(map[string]bool)}
}

// Writing notes whether a writer was at work when an x_tables table was read last.
func (c *Counters) Writing(table string, writing bool) { c.writing[table] = writing }

// Unnamed returns the hashes of ports that had no name when they were read
// last. The map is the Counters' own.
func (c *Counters) Unnamed() map[string]bool { return c.unnamed }

// Drop forgets what is kept of chains that are gone.
func (c *Counters) Drop(d *ruleset.Delta) {
	for _, name := range d.Gone {
		delete(c.digests, ledger.ChainName{Table: d.Table, Chain: name})
	}
}

// Whole returns all counters of kube-proxy's rules. Rules that no Service is
// known for have the zero Port.
func (c *Counters) Whole(rs *ruleset.Ruleset, v *kubeproxy.View, names *Names) ledger.Reading {
	b := c.builder(rs, names)
	b.dispatch(v, nil)
	for _, p := range v.Ports {
		b.port(p)
	}
	b.refusals(v, nil)
	return b.reading
}

// Part returns the counters of the ports with these hashes, and all refusals:
// those of ports whose chains are gone too, to which the reading's Cover says
// that they have none any more.
func (c *Counters) Part(rs *ruleset.Ruleset, v *kubeproxy.View, names *Names, hashes map[string]bool) ledger.Reading {
	b := c.builder(rs, names)
	b.dispatch(v, hashes)
	b.reading.Cover = make(ledger.Cover, 4*len(hashes)+3)
	for hash := range hashes {
		for _, name := range kubeproxy.ChainsOf(hash) {
			b.reading.Cover[ledger.ChainName{Table: "nat", Chain: name}] = struct{}{}
		}
		if p := v.Ports[hash]; p != nil {
			b.port(p)
		} else {
			delete(c.unnamed, hash)
		}
	}
	for _, name := range kubeproxy.RefusalChains() {
		b.reading.Cover[ledger.ChainName{Table: "filter", Chain: name}] = struct{}{}
	}
	b.refusals(v, hashes)
	return b.reading
}

// Part is some rules out of a ruleset, as notices of commits bring them: no chain
// is there in its whole.
type Part struct {
	rules *ruleset.Ruleset
	view  *kubeproxy.View
}

// PartOf returns the part that some rules are of v's ruleset.
func PartOf(some *ruleset.Ruleset, v *kubeproxy.View) Part {
	if len(some.Tables) == 0 {
		return Part{rules: some, view: kubeproxy.NewView(nil)}
	}
	return Part{rules: some, view: v.Of(some)}
}

// Counters returns the counters of the rules.
func (p Part) Counters(names *Names) []ledger.Counter {
	b := p.builder(names)
	for _, port := range p.view.Ports {
		b.port(port)
	}
	b.refusals(p.view, nil)
	return b.reading.Counters
}

func (p Part) builder(names *Names) *readingBuilder {
	return &readingBuilder{counters: NewCounters(), rs: p.rules, names: names}
}

func (c *Counters) builder(rs *ruleset.Ruleset, names *Names) *readingBuilder {
	b := &readingBuilder{counters: c, rs: rs, names: names, reading: ledger.Reading{
		Source: LedgerSource(rs.Backend, rs.Family),
		// The nf_tables reader takes chains in the order of
		// kubeproxy.ReadRank; an x_tables blob has KUBE-EXT before KUBE-SVC.
		ConnectionsFirst: rs.Backend == ruleset.NFT,
		Dips:             rs.Backend == ruleset.Legacy,
		Writing:          c.writing,
	}}
	b.witnesses()
	return b
}

// LedgerSource names the ledger's source of one backend and family.
func LedgerSource(b ruleset.Backend, f netfilter.Family) ledger.Source {
	return ledger.Source{Backend: string(b), Family: uint8(f)}
}

func ledgerPort(p service.PortName, f netfilter.Family) ledger.Port {
	return ledger.Port{
		Service:  ledger.Service{Namespace: p.Namespace, Name: p.Name.Name},
		Name:     p.Port,
		Protocol: string(p.Protocol),
		Family:   uint8(f),
	}
}

type readingBuilder struct {
	counters *Counters
	reading  ledger.Reading
	rs       *ruleset.Ruleset
	names    *Names
	// dispatched has the packets that were sent on by the cluster address, by
	// hash, where that is to be told.
	dispatched map[string]uint64
}

// dispatch counts what was sent on by the cluster addresses of ports with these
// hashes; nil is all of them. In nf_tables a reading is not of all chains, and
// another one costs little.
func (b *readingBuilder) dispatch(v *kubeproxy.View, hashes map[string]bool) {
	if b.rs.Backend != ruleset.Legacy {
		return
	}
	b.dispatched = make(map[string]uint64)
	for i := range v.Dispatch {
		d := &v.Dispatch[i]
		toEndpoints := d.Target == kubeproxy.KindService || d.Target == kubeproxy.KindLocal
		if toEndpoints && d.Frontend.Kind != kubeproxy.NodePort && (hashes == nil || hashes[d.Hash]) {
			b.dispatched[d.Hash] += d.Rule.Counter.Packets
		}
	}
}

func (b *readingBuilder) port(p *kubeproxy.PortChains) {
	var port ledger.Port
	if name, ok := b.names.port(p); ok {
		port = ledgerPort(name, b.rs.Family)
		delete(b.counters.unnamed, p.Hash)
	} else {
		b.counters.unnamed[p.Hash] = true
	}
	for j := range p.EndpointJumps() {
		b.add("nat", j.Chain, j.Index, ledger.Counter{Kind: ledger.Connection, Group: p.Hash, Port: port, Endpoint: p.Address(j.Target)})
	}
	if n, ok := b.dispatched[p.Hash]; ok {
		chain := p.Service
		if chain == nil {
			chain = p.Local
		}
		// The rules of KUBE-SERVICES are many, and all are written at each sync:
		// their sum has an identity that costs nothing.
		b.reading.Counters = append(b.reading.Counters, ledger.Counter{
			ID: ledger.ID{Table: "nat", Digest: [16]byte{'d'}}, Kind: ledger.Dispatch, Group: p.Hash, Port: port,
			Chain: chain.Name, Packets: n,
		})
	}
	for j := range p.ExternalJumps() {
		b.add("nat", j.Chain, j.Index, ledger.Counter{Kind: ledger.External, Group: p.Hash, Port: port})
	}
}

// refusals adds those of filter, and those in nat of ports with these hashes;
// nil is all of them.
func (b *readingBuilder) refusals(v *kubeproxy.View, hashes map[string]bool) {
	for i := range v.Refusals {
		f := &v.Refusals[i]
		if f.Table == "nat" && hashes != nil && !hashes[f.Hash] {
			continue
		}
		c := ledger.Counter{Kind: ledger.Refusal, Reason: string(f.Reason)}
		if name, ok := b.names.refusal(f); ok {
			c.Port = ledgerPort(name, b.rs.Family)
		}
		b.add(f.Table, f.Chain, f.Index, c)
	}
}

// add gives c the identity and value of a rule and appends it.
func (b *readingBuilder) add(table string, chain *ruleset.Chain, index int, c ledger.Counter) {
	r := &chain.Rules[index]
	if !r.HasCounter {
		return
	}
	c.Packets, c.Chain = r.Counter.Packets, chain.Name
	c.ID = b.id(b.rs.Table(table), chain, index)
	b.reading.Counters = append(b.reading.Counters, c)
}

// ids returns the identities of a chain's rules where there are no handles.
func (c *Counters) ids(table string, chain *ruleset.Chain) []ledger.ID {
	key := ledger.ChainName{Table: table, Chain: chain.Name}
	if known := c.digests[key]; known.of == chain {
		return known.ids
	}
	ids := make([]ledger.ID, len(chain.Rules))
	seen := make(map[[16]byte]uint32, len(ids))
	for i := range ids {
		d := digest(table, chain, &chain.Rules[i])
		ids[i] = ledger.ID{Table: table, Digest: d, Ordinal: seen[d]}
		seen[d]++
	}
	c.digests[key] = chainIDs{chain, ids}
	return ids
}

// witnesses adds the jumps from built-in chains of nat and filter that
// kube-proxy makes sure of once and leaves alone after (iptablesJumpChains in
// pkg/proxy/iptables/proxier.go).
func (b *readingBuilder) witnesses() {
	for _, t := range b.rs.Tables {
		if t.Name != "nat" && t.Name != "filter" {
			continue
		}
		for c := range t.BaseChains {
			for i := range c.Rules {
				if r := &c.Rules[i]; r.HasCounter && isPermanent(r.Action) {
					b.reading.Witnesses = append(b.reading.Witnesses, ledger.Witness{
						ID: b.id(t, c, i), Rule: digest(t.Name, c, r), Packets: r.Counter.Packets,
					})
				}
			}
		}
	}
}

// id is the identity of a rule's counter.
func (b *readingBuilder) id(t *ruleset.Table, c *ruleset.Chain, index int) ledger.ID {
	if b.rs.Backend == ruleset.NFT {
		return ledger.ID{Table: t.Name, TableHandle: t.Handle, RuleHandle: c.Rules[index].Handle}
	}
	return b.counters.ids(t.Name, c)[index]
}

func isPermanent(a ruleset.Action) bool {
	switch a.Chain {
	case "KUBE-SERVICES", "KUBE-EXTERNAL-SERVICES", "KUBE-PROXY-FIREWALL":
		return a.Kind == ruleset.Jump
	}
	return false
}

// digest is what identifies a rule without a handle: its place and what it
// does, the comment left out.
func digest(table string, chain *ruleset.Chain, r *ruleset.Rule) [16]byte {
	var buf [512]byte
	text := append(buf[:0], table...)
	text = append(append(text, 0), chain.Name...)
	for _, m := range r.Matches {
		text = append(append(text, 0), m.String()...)
	}
	text = append(text, 0, byte(r.Action.Kind))
	text = append(append(text, r.Action.Chain...), 0)
	d := r.Action.Details()
	text = append(append(text, d.With...), 0)
	text = append(text, d.Name...)
	sum := sha256.Sum256(text)
	return [16]byte(sum[:16])
}
