// SPDX-License-Identifier: Apache-2.0

package ledger

import "time"

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
		d.blind = d.blind || c.stepped < c.account.blind
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
	if a.port == nil {
		return
	}
	if d := rd.src.claim(who, a.port); d != nil {
		a.split.owed(d)
		a.paid = rd.round
		rd.totals(a.port, rd.now).refuseAll(d.refused)
	}
}

// claim takes what is owed out of the debts; nil where that is nothing, or an
// earlier Service's.
func (s *source) claim(who debtor, p *port) *debt {
	d := s.debts[who]
	delete(s.debts, who)
	if d == nil || d.round < p.floor {
		return nil
	}
	return d
}

func (s *split) owed(d *debt) {
	now := s.told()
	now.any = true
	now.dT += d.t
	now.dE += d.e
	s.unknown += d.doubtful()
}

// doubtful is how many of the connections may be external ones.
func (d *debt) doubtful() uint64 {
	if d.blind {
		return d.slack + d.t
	}
	return d.slack
}

// settleDebts pays a port in a source where no counter of it is left, once no
// External counter is without a name.
func (l *Ledger) settleDebts(p *port, src *source, now time.Time) {
	if src.accounts[p.name] != nil || src.unnamed(External) {
		return
	}
	d := src.claim(debtor{port: p.name}, p)
	if d == nil {
		return
	}
	var a account
	a.split.owed(d)
	cluster, external := a.split.finish(&a, 0, false)
	t := l.totals(p, now)
	t.Cluster += cluster
	t.External += external
	t.refuseAll(d.refused)
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

// settle pays known ports that have no counter left.
func (rd *round) settle() {
	for who := range rd.src.debts {
		if p := rd.port(who.port); p != nil && !p.gone {
			rd.settleDebts(p, rd.src, rd.now)
		}
	}
}

// forgetDebts drops old debts. Connections that are still counted for a Service
// that is not known may have come by externals of which they tell.
func (s *source) forgetDebts(round uint64, now time.Time) {
	for who, d := range s.debts {
		if now.Sub(d.since) < grace {
			continue
		}
		delete(s.debts, who)
		if a := s.accounts[who.port]; a != nil && (d.e > 0 || d.slack > 0 || d.blind) {
			a.blind = round
		}
	}
}
