// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"container/list"
	"net/netip"
	"time"
)

// Ledger is the state between readings.
type Ledger struct {
	max      int // Services with totals of their own
	sources  map[Source]*source
	services map[Service]*service
	members  int
	round    uint64 // numbers the calls of Know, Apply and Commit
	counting bool   // some source has its baseline
	others   map[OtherKey]*Totals
	folded   uint64
	told     uint64      // the round up to which Changed has told
	gone     []absence   // in the order in which they went
	recent   *list.List  // of ports, the last changed first
	emptied  []*endpoint // since the last reading: may be in no rule any more
	departed []departure // endpoints in no rule, in the order in which they went
}

// New returns an empty ledger that keeps totals of its own for at most
// maxServices Services; the rest share those of Others.
func New(maxServices int) *Ledger {
	return &Ledger{
		max:      maxServices,
		sources:  make(map[Source]*source),
		services: make(map[Service]*service),
		others:   make(map[OtherKey]*Totals),
		recent:   list.New(),
	}
}

// Counting reports whether any source has its baseline.
func (l *Ledger) Counting() bool { return l.counting }

// Baselined reports whether the source's readings are counted: it has its
// baseline.
func (l *Ledger) Baselined(s Source) bool {
	src := l.sources[s]
	return src != nil && src.baselined
}

// Apply adds what has happened since the source's last reading. The first two
// readings of a source are its baseline and add nothing; counters that appear
// later start at 0, but for those of a table that was restored with its
// counters.
func (l *Ledger) Apply(r Reading, now time.Time) Outcome {
	rd := l.begin(r.Source, now)
	defer rd.end()
	switch {
	case rd.src.baselined:
		rd.read(&r)
		rd.settle()
	case r.Cover == nil:
		rd.baseline(&r)
	default:
		rd.out.Suspect = true
	}
	return rd.out
}

// round is one Apply or Commit.
type round struct {
	*Ledger
	src    *source
	commit bool // not a reading
	now    time.Time
	out    Outcome
}

func (l *Ledger) begin(s Source, now time.Time) *round {
	l.round++
	l.forget(now)
	src := l.sources[s]
	if src == nil {
		src = newSource(now)
		l.sources[s] = src
	}
	src.now = now.Sub(src.start)
	return &round{Ledger: l, src: src, now: now}
}

// end forgets what the round has left without a counter.
func (rd *round) end() {
	for _, ch := range rd.src.visits {
		if len(ch.counters) == 0 {
			delete(rd.src.chains, ch.name)
		}
	}
	for _, a := range rd.src.touched {
		if a.live[Connection]+a.live[External] == 0 {
			rd.conclude(a)
			if a.live[Refusal]+a.live[Dispatch] == 0 {
				delete(rd.src.accounts, a.name)
			}
		}
	}
	rd.src.close()
	if !rd.commit { // the next commit may write the rules again
		rd.leave()
	}
}

// read takes a reading of a source with a baseline.
func (rd *round) read(r *Reading) {
	src := rd.src
	src.locate(r.Counters, rd.round)
	src.carry(r, rd)
	stand := src.stand(r, rd.now)
	for i := range r.Counters {
		k := &r.Counters[i]
		c := src.slots[i].c
		isNew := c == nil
		if isNew {
			c = rd.add(k, src.slots[i].chain, i)
			if src.slots[i].nameless {
				c.last = k.Packets
			}
		}
		rd.bind(c, k)
		rd.advance(c, k.Packets, stand[k.ID.Table], isNew)
	}
	src.witness(r)
	if r.Listening {
		rd.tidy()
	} else {
		rd.sweep(r.Cover)
	}
	nameless := src.unnamed(External)
	for _, a := range src.touched {
		cluster, external, open := a.split.settle(r, a, rd.round, nameless)
		rd.out.Pending = rd.out.Pending || open
		rd.credit(a, cluster, external)
	}
}

// baseline takes a reading that only says where counters stand. Another one
// is needed after the first, which may lie within a dip, and has read External
// counters after Connection counters, so that it holds externals whose
// connection it does not.
func (rd *round) baseline(r *Reading) {
	src := rd.src
	src.readings++
	src.locate(r.Counters, rd.round)
	for i := range r.Counters {
		k := &r.Counters[i]
		c := src.slots[i].c
		if c == nil {
			c = rd.add(k, src.slots[i].chain, i)
		}
		rd.bind(c, k)
		c.ahead = 0
		if k.Kind == External && r.ConnectionsFirst && k.Packets > c.last {
			c.ahead = k.Packets - c.last
		}
		if k.Packets > c.last || !r.Dips {
			c.last = k.Packets
		}
		if c.last > 0 {
			c.alive = rd.round
		}
		c.credited, c.stepped = c.account.port != nil, rd.round
	}
	rd.sweep(nil)
	rd.out = Outcome{}
	src.witnesses = r.Witnesses
	src.baselined = src.readings > 1
	rd.out.Suspect = !src.baselined
	if !src.baselined {
		return
	}
	for _, a := range src.touched {
		a.split = split{}
	}
	rd.counting = true
	rd.admit(rd.now)
}

// add makes the state of a new counter.
func (rd *round) add(k *Counter, ch *chain, place int) *counter {
	c := &counter{id: identOf(&k.ID), kind: k.Kind, seen: rd.round, stepped: rd.round, place: int32(place)}
	ch.add(c)
	return c
}

// bind notes what a counter means. Names that are not known now, but were,
// still hold.
func (rd *round) bind(c *counter, k *Counter) {
	c.kind, c.reason = k.Kind, k.Reason
	switch a := c.account; {
	case a == nil:
		c.account = rd.account(k.Port)
		c.account.live[c.kind]++
	case a.name != k.Port && k.Port != Port{}:
		a.live[c.kind]--
		rd.account(a.name) // it may have lost its last counter
		c.account = rd.account(k.Port)
		c.account.blind = max(c.account.blind, a.blind)
		c.account.live[c.kind]++
	case a.round != rd.round:
		rd.account(a.name)
	}
	if len(rd.src.debts) > 0 && k.Group != "" {
		rd.pay(debtor{group: k.Group}, c.account)
	}
	if c.kind == Connection {
		rd.bindEndpoint(c, k.Endpoint)
	}
}

// bindEndpoint notes the address that a counter's connections are given to,
// unless it is the zero value: then it is what it was.
func (rd *round) bindEndpoint(c *counter, addr netip.AddrPort) {
	if !addr.IsValid() && c.ep != nil {
		addr = c.ep.addr
	}
	p := c.account.port
	switch {
	case !addr.IsValid(), c.ep != nil && c.ep.addr == addr && (p == nil || c.ep.port == p):
		return
	case p == nil:
		rd.unbind(c)
		c.ep = &endpoint{addr: addr}
		return
	}
	rd.unbind(c)
	c.ep = p.endpoint(addr, rd.Ledger, rd.now)
	c.ep.counters++
}

// account returns the port's account in the source, touched by the round.
func (rd *round) account(name Port) *account {
	a := rd.src.accounts[name]
	if a == nil {
		a = &account{name: name}
		rd.src.accounts[name] = a
	}
	if a.round == rd.round {
		return a
	}
	a.round = rd.round
	rd.src.touched = append(rd.src.touched, a)
	if a.port == nil || a.port.dead {
		a.port = rd.port(name)
	}
	if p := a.port; p != nil && a.floor != max(p.floor, p.born) {
		a.floor, a.split = max(p.floor, p.born), split{unknown: a.split.unknown + a.split.late + a.split.ghosts}
	}
	if len(rd.src.debts) > 0 {
		rd.pay(debtor{port: name}, a)
	}
	return a
}

// advance takes a counter's value. One whose Service is not known and never
// was keeps its packets until it is: the API may tell after the rules do.
func (rd *round) advance(c *counter, value uint64, t standing, isNew bool) {
	a := c.account
	if a.port == nil && !c.credited {
		c.kept = max(c.kept, value)
		return
	}
	if !c.credited && c.stepped < a.port.floor && c.kept > c.last {
		if c.kind == External && a.paid == rd.round {
			a.split.unknown += c.kept - c.last // some may be of what was owed
		}
		c.last = c.kept // an earlier Service's
	}
	st := c.next(value, t, rd.round)
	if isNew {
		st.change = fresh
	}
	if st.change == held && c.kind != Dispatch {
		rd.out.Suspect = true
		rd.src.held[c.chain.name.Table] = true
	}
	if st.change == reset {
		rd.lose(c)
	}
	st = rd.own(c, st)
	if c.kind != Refusal {
		a.split.add(c, st, rd.round)
	}
	rd.count(c, st.delta)
}

// own takes packets from a step that belong to an earlier Service of the same
// name.
func (rd *round) own(c *counter, st step) step {
	if st.change == held {
		return st
	}
	a, p := c.account, c.account.port
	if p != nil && (c.stepped < p.floor || c.credited && c.stepped < p.born) {
		if c.kind == External {
			a.split.unknown += st.delta
		} else {
			c.base += st.delta
		}
		st.delta = 0
	}
	if c.kind == Connection && !c.credited && c.stepped < a.blind {
		a.split.unknown += st.delta
	}
	a.split.unknown += c.ahead
	c.credited, c.stepped, c.ahead = true, rd.round, 0
	return st
}

// count credits packets whose way does not matter.
func (rd *round) count(c *counter, n uint64) {
	if n == 0 || c.account.port == nil {
		return
	}
	switch c.kind {
	case Connection:
		rd.creditEndpoint(c, n)
	case Refusal:
		if t := rd.totals(c.account.port, rd.now); t != nil {
			t.refuse(c.reason, n)
		}
	}
}

// lose notes that packets of a counter may have been lost.
func (rd *round) lose(c *counter) {
	if c.kind == Dispatch || c.kind != Refusal && (c.account.port == nil || c.account.port.gone) {
		return
	}
	if rd.out.Replaced == nil {
		rd.out.Replaced = make(map[string]time.Time)
	}
	table, since := c.chain.name.Table, rd.src.start.Add(c.chain.readBefore(rd.round))
	if other, ok := rd.out.Replaced[table]; !ok || since.Before(other) {
		rd.out.Replaced[table] = since
	}
}

// credit gives connections to the port's ways.
func (rd *round) credit(a *account, cluster, external uint64) {
	if cluster+external == 0 || a.port == nil {
		return
	}
	if a.port.gone {
		a.split.ghosts += external
	}
	if t := rd.totals(a.port, rd.now); t != nil {
		t.Cluster += cluster
		t.External += external
	}
}
