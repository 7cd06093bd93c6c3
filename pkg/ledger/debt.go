// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"maps"
	"time"
)

// maxDebts bounds the ports of a source for which packets are kept.
const maxDebts = 4096

// debtor is who gets the packets of ended counters whose Service was not known:
// a port, or the port that a group's chains turn out to belong to.
type debtor struct {
	port  Port
	group string
}

// debt is the packets of counters that ended before their Service was known.
type debt struct {
	since   time.Time
	round   uint64
	t, e    uint64
	slack   uint64 // connections that may be external ones in flight
	blind   bool   // externals were lost
	refused map[string]uint64
}

// owe keeps the packets of an ended counter for its Service.
func (rd *round) owe(c *counter, k *Counter, inFlight uint64) {
	n := k.Packets
	if n >= c.last {
		n -= c.last
	}
	who := debtor{port: c.account.name}
	if who.port == (Port{}) {
		who.group = k.Group
	}
	if n == 0 || who == (debtor{}) {
		return
	}
	d := rd.owed(who)
	if d == nil {
		return
	}
	switch c.kind {
	case Connection:
		d.t += n
	case External:
		d.e += n
		d.slack += inFlight + c.ahead
	case Refusal:
		if d.refused == nil {
			d.refused = make(map[string]uint64)
		}
		d.refused[c.reason] += n
	}
}

// owed returns what is owed to who, made if need be; nil where there are too many.
func (rd *round) owed(who debtor) *debt {
	d := rd.src.debts[who]
	if d == nil && len(rd.src.debts) < maxDebts {
		d = &debt{since: rd.now, round: rd.round}
		rd.src.debts[who] = d
	}
	return d
}

// conclude ends the account of a port without counters. The other side of what
// it has not balanced may be counted under no name yet.
func (rd *round) conclude(a *account) {
	s := &a.split
	low := s.e + s.unknown + s.cluster
	switch {
	case a.port == nil:
	case s.t > low && rd.src.unnamed(External) && !a.port.gone: // the next Service of its name is owed nothing
		rd.debt(debtor{port: a.name}, &debt{t: s.t - low})
	case low > s.t && rd.src.unnamed(Connection):
		rd.debt(debtor{port: a.name}, &debt{slack: low - s.t})
	}
	*s = split{}
}

// debt adds to what is owed.
func (rd *round) debt(who debtor, n *debt) {
	d := rd.owed(who)
	if d == nil {
		return
	}
	d.t += n.t
	d.slack += n.slack
}

// pay gives an account what is owed to it.
func (rd *round) pay(who debtor, a *account) {
	d := rd.src.debts[who]
	if d == nil || a.port == nil {
		return
	}
	delete(rd.src.debts, who)
	if d.round < a.port.floor {
		return // they may be an earlier Service's
	}
	a.split.owed(d)
	a.paid = rd.round
	if t := rd.totals(a.port, rd.now); t != nil {
		for reason, n := range d.refused {
			t.refuse(reason, n)
		}
	}
}

func (s *split) owed(d *debt) {
	s.any = true
	s.dT += d.t
	s.dE += d.e
	s.unknown += d.doubtful()
}

// doubtful is how many of the connections may be external ones.
func (d *debt) doubtful() uint64 {
	if d.blind {
		return d.slack + d.t
	}
	return d.slack
}

// settleDebts pays a port that has just become known in the sources where no
// counter of it is left, and forgets old debts.
func (l *Ledger) settleDebts(p *port, src *source, now time.Time) {
	who := debtor{port: p.name}
	d := src.debts[who]
	if d == nil || src.accounts[p.name] != nil || src.unnamed(External) {
		return
	}
	delete(src.debts, who)
	t := l.totals(p, now)
	var s split
	s.t, s.e, s.unknown = d.t, d.e, d.doubtful()
	t.Cluster += s.give(d.t)
	t.External += d.e
	for reason, n := range d.refused {
		t.refuse(reason, n)
	}
}

// blind notes that externals of a port that is not known were lost: of the
// connections that are owed to it some may be theirs.
func (rd *round) blind(name Port) {
	if name == (Port{}) {
		return
	}
	if d := rd.owed(debtor{port: name}); d != nil {
		d.blind = true
	}
}

// settle pays known ports that have no counter left, once no External counter
// is without a name.
func (rd *round) settle() {
	for who := range rd.src.debts {
		if p := rd.port(who.port); p != nil && !p.gone {
			rd.settleDebts(p, rd.src, rd.now)
		}
	}
}

func (s *source) forgetDebts(now time.Time) {
	maps.DeleteFunc(s.debts, func(_ debtor, d *debt) bool { return now.Sub(d.since) >= grace })
}
