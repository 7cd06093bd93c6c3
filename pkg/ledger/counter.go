// SPDX-License-Identifier: Apache-2.0

package ledger

// counter is the state of one kernel counter.
type counter struct {
	id      ident
	reason  string
	chain   *chain
	account *account
	ep      *endpoint // nil while its address is not known; of no port while that is not

	last    uint64 // value up to which packets are credited
	base    uint64 // value that its incarnation began with, credited to nobody
	seen    uint64 // round that held it last
	stepped uint64 // round up to which its packets are taken
	ahead   uint64 // externals that it began with and whose connections may be counted
	kept    uint64 // highest value while its Service was not known
	// alive is the round that first held a packet of this incarnation; 0
	// while there is none.
	alive uint64
	// low is the last of falls values in a row that were below last.
	low   uint64
	falls uint32
	fell  uint32 // when the last of falls was, standing.at

	place int32 // in the last reading
	at    int32 // in the chain, while that has an index
	kind  Kind
	ended bool // it has its final value
	// credited tells that packets have gone to the port's total, or would
	// have. Until then a counter whose Service is not known yet keeps its packets.
	credited bool
}

// change is how a counter's value relates to the one before.
type change uint8

const (
	grown change = iota // same incarnation
	fresh               // a new counter
	reset               // a new incarnation of a known one
	held                // below the last value; not decided
)

// step is what one round says of one counter.
type step struct {
	change change
	before uint64 // the value credited up to before
	delta  uint64 // packets to credit
}

// next takes the next value of a counter of a table that stands so.
//
// A handle is a rule's own, and a value below its last one has been counted
// since 0. The identity of an x_tables rule outlives iptables-restore -c, too,
// which brings an older value back: such a one, and any that is at least half of
// the last, or where no witness tells and the last was next to nothing, is only
// the base of what follows. Should it have been a reset after all, what has passed
// until the reading that sees it is lost.
func (c *counter) next(value uint64, t standing, round uint64) step {
	before := c.last
	s := step{change: grown, before: before}
	switch {
	case value >= c.last:
		s.delta = value - c.last
	case c.doubt(value, t):
		s.change = held
		return s
	default:
		s.change, c.alive, c.base = reset, 0, 0
		if !c.id.handle && (t.restored || t.unsure && before <= strong || value >= before-value) {
			c.base = value
		}
		s.delta = value - c.base
	}
	c.falls, c.last = 0, value
	if value > 0 && c.alive == 0 {
		c.alive = round
	}
	return s
}

// doubt notes a value below the last one and reports whether more readings
// must confirm it, each some time after the one before: two may lie within one
// dip. A confirming value does not fall again: that would be another rewrite,
// with its own dip.
func (c *counter) doubt(value uint64, t standing) bool {
	if c.falls > 0 && value < c.low {
		c.falls = 0
	}
	if c.falls == 0 || t.at-c.fell >= dipMillis {
		c.falls++
		c.fell = t.at
	}
	c.low = value
	return c.falls <= t.needed
}
