// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"fmt"
	"net/netip"
	"slices"
)

// dice makes the choices of a run.
type dice interface{ IntN(n int) int }

// ways is what has happened at one port.
type ways struct{ cluster, external, refused uint64 }

func (w ways) minus(o ways) ways {
	return ways{w.cluster - o.cluster, w.external - o.external, w.refused - o.refused}
}

func (w ways) exceeds(o ways) bool {
	return w.cluster > o.cluster || w.external > o.external || w.refused > o.refused
}

func lower(a, b ways) ways {
	return ways{min(a.cluster, b.cluster), min(a.external, b.external), min(a.refused, b.refused)}
}

// rule is one incarnation of a rule in the model's kernel. Its counter has no
// Port: that depends on what is known when it is told.
type rule struct {
	Counter
	at       *modelPort
	restored uint64 // what it began with
	read     bool
}

// modelPort is a port, its rules, and what has happened.
type modelPort struct {
	Port
	named    bool // its rules' comments name it
	conns    []*rule
	ext      *rule
	disp     *rule // x_tables only
	refusals []*rule

	truth     ways
	endpoints map[netip.AddrPort]uint64
	inFlight  uint64 // packets that were within rules while a commit replaced them
	held      uint64 // what the ledger may hold back for them
	window    uint64 // packets that passed new rules before the kernel told of them
	early     uint64 // of those, externals that pass for restored ones
	modelSeries
}

// model is a kernel with kube-proxy's rules: packets come in at any time, also
// between the reading of one counter and the next.
type model struct {
	dice
	source     Source
	ports      []*modelPort
	witness    map[string]*rule  // the one of each table
	tables     map[string]uint64 // their handles
	handle     uint64
	generation int
	joined     bool
	queue      []notice
	// lossy has the tables whose loss the ledger may not be able to tell.
	lossy map[string]bool
	// dirty: rules were made anew since the last whole reading.
	dirty bool
	// alone is the last commit that made an External rule anew, and no other.
	// Where that is not heard, and others were made anew since the last
	// reading, it can't be told from one of all rules.
	alone int
}

// notice is what a listener will hear of one commit.
type notice struct {
	generation   int
	ended, begun []told
}

// told is a rule as a notice or dump shows it.
type told struct {
	Counter
	at *modelPort
}

const inFlight = 2

func newModel(d dice, source Source) *model {
	m := &model{
		dice: d, source: source, witness: make(map[string]*rule),
		tables: map[string]uint64{"nat": 1, "filter": 2}, handle: 10, lossy: make(map[string]bool),
	}
	for i := range 3 {
		p := &modelPort{
			Port: svcPort(fmt.Sprintf("p%d", i)), named: d.IntN(3) > 0,
			endpoints: make(map[netip.AddrPort]uint64),
		}
		p.uid = "0"
		m.ports = append(m.ports, p)
		m.build(p)
	}
	for table := range m.tables {
		m.witness[table] = &rule{Counter: Counter{ID: m.id(table, 0, 0, 0), Packets: uint64(1000 * d.IntN(2))}}
	}
	return m
}

// flip is true once in n times.
func (m *model) flip(n int) bool { return m.IntN(n) == 0 }

func (m *model) id(table string, port, kind, n int) ID {
	if m.source == leg {
		return ID{Table: table, Digest: [16]byte{byte(port), byte(kind), byte(n)}}
	}
	m.handle++
	return ID{Table: table, TableHandle: m.tables[table], RuleHandle: m.handle}
}

// build gives a port new rules that have counted nothing.
func (m *model) build(p *modelPort) {
	p.conns, p.ext, p.disp, p.refusals = nil, nil, nil, nil
	i := slices.Index(m.ports, p)
	if i < 0 {
		i = len(m.ports)
	}
	add := func(table, chain string, kind Kind, n int) *rule {
		return &rule{at: p, Counter: Counter{ID: m.id(table, i, int(kind), n), Kind: kind, Chain: chain, Group: p.Service.Name}}
	}
	if m.flip(4) {
		for n := range 1 + m.IntN(2) {
			r := add("filter", "KUBE-SERVICES", Refusal, n)
			r.Reason = "no_endpoints"
			p.refusals = append(p.refusals, r)
		}
		return
	}
	for n := range 3 {
		if n == 0 || m.flip(2) {
			r := add("nat", "SVC-"+p.Service.Name, Connection, n)
			r.Endpoint = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i), byte(n)}), 80)
			p.conns = append(p.conns, r)
		}
	}
	if !m.flip(3) {
		p.ext = add("nat", "EXT-"+p.Service.Name, External, 0)
	}
	if m.source == leg && !m.flip(4) {
		p.disp = add("nat", "SVC-"+p.Service.Name, Dispatch, 0)
	}
}

// rules lists the port's rules in a table; the ones of nat in the order in
// which kube-proxy names their chains.
func (p *modelPort) rules(table string) []*rule {
	if table == "filter" {
		return slices.Clone(p.refusals)
	}
	rules := slices.Clone(p.conns)
	if p.ext != nil {
		rules = append(rules, p.ext)
	}
	if p.disp != nil {
		rules = append(rules, p.disp)
	}
	return rules
}

func (m *model) rules(table string) []*rule {
	var rules []*rule
	for _, p := range m.ports {
		rules = append(rules, p.rules(table)...)
	}
	return rules
}

// traffic lets up to n packets come in.
func (m *model) traffic(n int) {
	for range m.IntN(n + 1) {
		p := m.ports[m.IntN(len(m.ports))]
		switch {
		case len(p.refusals) > 0:
			p.truth.refused++
			m.witness["filter"].Packets++
			p.refusals[m.IntN(len(p.refusals))].Packets++
		case len(p.conns) > 0:
			for f := m.flight(p); f != nil; {
				f = f()
			}
		}
	}
}

// step is where a packet goes next; nil at its end.
type hop func() hop

// flight starts a connection's way through the rules that the port has now.
func (m *model) flight(p *modelPort) hop {
	conn := p.conns[m.IntN(len(p.conns))]
	m.witness["nat"].Packets++
	var end hop
	jump := func() hop { conn.Packets++; return end }
	p.endpoints[conn.Endpoint]++
	if p.ext == nil || m.flip(2) {
		p.truth.cluster++
		if p.disp == nil {
			return jump
		}
		return pass(p.disp, jump)
	}
	p.truth.external++
	return pass(p.ext, jump)
}

// pass is the way through a rule and on.
func pass(r *rule, on hop) hop {
	return func() hop {
		r.Packets++
		return on
	}
}

// commit replaces rules: install makes the new ones, which it returns. While
// the kernel reads the final values of the old ones packets are still within
// them, and others pass the new ones.
func (m *model) commit(old []*rule, install func() []*rule) {
	shuffled := m.flip(3) // as stale chains are deleted
	if shuffled {
		for i := range old {
			j := m.IntN(len(old))
			old[i], old[j] = old[j], old[i]
		}
	}
	var flights []hop
	for range m.IntN(inFlight + 1) {
		if p := m.ports[m.IntN(len(m.ports))]; len(p.conns) > 0 {
			p.inFlight++
			flights = append(flights, m.flight(p))
		}
	}
	for _, r := range old {
		r.at.lose(m, r)
		// Of one that is not known yet the order is not kept.
		if r == r.at.ext && (shuffled || !r.at.known || !containsAll(old, r.at.conns)) {
			r.at.held += inFlight
		}
	}
	begun := install()
	m.generation++
	m.dirty = true
	n := notice{generation: m.generation}
	for _, r := range old {
		for i, f := range flights {
			if f != nil && m.flip(2) {
				flights[i] = f()
			}
		}
		m.traffic(1)
		n.ended = append(n.ended, told{r.Counter, r.at})
	}
	for _, r := range begun {
		if m.flip(4) {
			m.traffic(1)
		}
		r.at.window += r.Packets - r.restored
		if r.Kind == External && r.restored > 0 {
			r.at.early += r.Packets - r.restored
		}
		n.begun = append(n.begun, told{r.Counter, r.at})
	}
	for _, f := range flights {
		for f != nil {
			f = f()
		}
	}
	if m.joined {
		m.queue = append(m.queue, n)
	}
}

func containsAll(all, some []*rule) bool {
	return !slices.ContainsFunc(some, func(r *rule) bool { return !slices.Contains(all, r) })
}

// sync is one of kube-proxy: the rules of some ports, and all refusals.
func (m *model) sync() {
	old := m.rules("filter")
	var ports []*modelPort
	for _, p := range m.ports {
		if m.flip(2) {
			ports = append(ports, p)
			old = append(old, p.rules("nat")...)
		}
	}
	m.commit(old, func() []*rule {
		var begun []*rule
		for _, p := range m.ports {
			if slices.Contains(ports, p) {
				m.build(p)
				begun = append(begun, p.rules("nat")...)
			} else {
				m.swap(p.refusals, true)
				m.undispatch(p)
			}
			begun = append(begun, p.rules("filter")...)
		}
		return begun
	})
}

// swap gives rules new incarnations that have counted nothing, under new
// handles if asked to. It returns them.
func (m *model) swap(rules []*rule, handles bool) []*rule {
	for i, r := range rules {
		n := *r
		n.Packets, n.restored, n.read = 0, 0, false
		if handles && m.source != leg {
			n.ID = m.id(r.ID.Table, 0, 0, 0)
		}
		rules[i] = &n
		if r.at != nil && r.at.ext == r {
			r.at.ext = &n
		}
		if r.at != nil && r.at.disp == r {
			r.at.disp = &n
		}
		if r.at != nil {
			for _, own := range [][]*rule{r.at.conns, r.at.refusals} {
				if j := slices.Index(own, r); j >= 0 {
					own[j] = &n
				}
			}
		}
	}
	return slices.Clone(rules)
}

// undispatch writes KUBE-SERVICES anew, as each sync does.
func (m *model) undispatch(p *modelPort) {
	if p.disp != nil {
		m.swap([]*rule{p.disp}, false)
	}
}

// zero makes one chain or one rule anew under its handle, as iptables -Z and
// -R do.
func (m *model) zero() {
	p := m.ports[m.IntN(len(m.ports))]
	if p.disp != nil && m.flip(4) {
		m.undispatch(p)
		return
	}
	rules := slices.Clone(p.conns)
	switch {
	case len(p.refusals) > 0:
		rules = slices.Clone(p.refusals)
	case p.ext != nil && !m.joined:
		// A counter that was reset alone and has passed its old value can't
		// be told from one that was not.
		rules = append(rules, p.ext)
	case p.ext != nil && m.flip(3):
		rules = []*rule{p.ext}
	case p.ext != nil && m.flip(2):
		rules = append(rules, p.ext)
	}
	alone := len(rules) == 1 && rules[0] == p.ext
	handles := m.flip(2) || alone
	if !handles || m.source == leg {
		for _, r := range rules {
			m.lossy[r.ID.Table] = true
		}
	}
	m.commit(slices.Clone(rules), func() []*rule { return m.swap(rules, handles) })
	if alone {
		m.alone = m.generation
	}
}
