// SPDX-License-Identifier: Apache-2.0

package ledger

import "time"

// source is the state of one Source between rounds.
type source struct {
	start     time.Time
	now       time.Duration // of the round, since start
	readings  int           // up to the two that make the baseline
	baselined bool
	chains    map[ChainName]*chain
	accounts  map[Port]*account
	witnesses []Witness         // of each table's last reading without a doubt
	held      map[string]bool   // tables in which the round's reading has values in doubt
	restored  map[string]uint64 // the last round that found a table restored
	debts     map[debtor]*debt

	// Of the round; kept for their memory.
	slots   []slot // of the reading's counters
	visits  []*chain
	touched []*account
}

// slot is where a counter of a reading belongs.
type slot struct {
	chain *chain
	c     *counter // nil for a new one
	// nameless: it may be an older one, restored, of which nothing is known.
	nameless bool
}

// account is what one port has in one source.
type account struct {
	name  Port
	port  *port  // nil while the Service is not known
	round uint64 // that touched it last
	floor uint64 // the higher one of the port's floor and born
	paid  uint64 // the round that paid it what was owed
	blind uint64 // the round that lost an External counter with kept packets
	live  [Dispatch + 1]int
	split split
}

func newSource(now time.Time) *source {
	return &source{
		start:    now,
		chains:   make(map[ChainName]*chain),
		accounts: make(map[Port]*account),
		restored: make(map[string]uint64),
		held:     make(map[string]bool),
		debts:    make(map[debtor]*debt),
	}
}

// visit returns a chain that the round reads, made if need be.
func (s *source) visit(name ChainName, round uint64) *chain {
	ch := s.chains[name]
	if ch == nil {
		ch = &chain{name: name}
		s.chains[name] = ch
	}
	if ch.visited != round {
		ch.before, ch.visited, ch.next = ch.visited, round, 0
		ch.wasRead, ch.read = ch.read, s.now
		s.visits = append(s.visits, ch)
	}
	return ch
}

// unnamed reports whether any counter of a kind has no port yet.
func (s *source) unnamed(k Kind) bool {
	a := s.accounts[Port{}]
	return a != nil && a.live[k] > 0
}

// locate finds where the counters belong.
func (s *source) locate(counters []Counter, round uint64) {
	var ch *chain
	for i := range counters {
		k := &counters[i]
		if ch == nil || ch.name.Chain != k.Chain || ch.name.Table != k.ID.Table {
			ch = s.visit(ChainName{Table: k.ID.Table, Chain: k.Chain}, round)
		}
		c := ch.find(&k.ID)
		if c != nil {
			c.seen, c.place = round, int32(i)
		}
		s.slots = append(s.slots, slot{chain: ch, c: c})
	}
}

// close ends a round.
func (s *source) close() {
	clear(s.slots)
	clear(s.visits)
	clear(s.touched)
	clear(s.held)
	s.slots, s.visits, s.touched = s.slots[:0], s.visits[:0], s.touched[:0]
}
