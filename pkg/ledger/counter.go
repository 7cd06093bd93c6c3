// SPDX-License-Identifier: Apache-2.0

package ledger

import "net/netip"

// source is the state of one Source between readings.
type source struct {
	bit uint64 // marks endpoints that this source's last reading holds
	// serial numbers the readings from 1; the first two are the baseline.
	serial    uint64
	baselined bool
	counters  map[ID]*counter
	splits    map[Port]*split
	witnesses []Witness // of the last reading
}

// meaning is what equal rules have in common.
type meaning struct {
	port     Port
	kind     Kind
	endpoint netip.AddrPort
	reason   string
	chain    string
}

func (k *Counter) meaning() meaning {
	return meaning{port: k.Port, kind: k.Kind, endpoint: k.Endpoint, reason: k.Reason, chain: k.Chain}
}

// counter is the state of one kernel counter.
type counter struct {
	meaning
	last   uint64 // value up to which packets are credited
	serial uint64 // reading that held it last
	// credited tells that packets have gone to the port's total. Until
	// then a counter whose Service is not known yet keeps its packets.
	credited bool
	// alive is the reading that first held a packet of this incarnation; 0
	// while there is none.
	alive uint64
	// low is the last of falls values in a row that were below last.
	low   uint64
	falls int
}

// change is how a counter's value relates to the one before.
type change uint8

const (
	grown change = iota // same incarnation
	fresh               // a new counter
	reset               // a new incarnation of a known one
	held                // below the last value; not decided
)

// step is what one reading says of one counter.
type step struct {
	change change
	before uint64 // the value credited up to before
	delta  uint64 // packets to credit
}

// next takes the next value of a counter. needed is how many readings in a
// row must confirm a fall; 0 means that a fall is a reset. serial is the
// reading's number.
func (c *counter) next(value uint64, needed int, serial uint64) step {
	s := step{change: grown, before: c.last}
	switch {
	case value >= c.last:
		s.delta = value - c.last
	case c.doubt(value, needed):
		s.change = held
		return s
	default:
		s.change, s.delta, c.alive = reset, value, 0
	}
	c.falls, c.last = 0, value
	if value > 0 && c.alive == 0 {
		c.alive = serial
	}
	return s
}

// doubt notes a value below the last one and reports whether more readings
// must confirm it. A confirming value does not fall again: that would be
// another rewrite, with its own dip.
func (c *counter) doubt(value uint64, needed int) bool {
	if c.falls > 0 && value < c.low {
		c.falls = 0
	}
	c.falls++
	c.low = value
	return c.falls <= needed
}

// needed returns how many readings must confirm a fall seen in r. When each
// and every counter stands below its last value the reading is likely to be
// within a dip, and two dips in a row must not pass for a reset, because all
// that was counted before would be counted again.
func (s *source) needed(r *Reading) int {
	if !r.Dips {
		return 0
	}
	for i := range r.Counters {
		c := s.counters[r.Counters[i].ID]
		if c != nil && c.last > 0 && r.Counters[i].Packets >= c.last {
			return 1
		}
	}
	return 2
}

// baseline takes a reading that only says where counters stand. It returns
// true while another one is needed: the first may lie within a dip, and it
// has read External counters after Connection counters, so that it holds
// externals whose connection it does not.
func (s *source) baseline(r *Reading) bool {
	moved := make(map[Port]uint64)
	for i := range r.Counters {
		k := &r.Counters[i]
		c := s.counters[k.ID]
		if c == nil {
			c = &counter{}
			s.counters[k.ID] = c
		}
		c.meaning, c.serial = k.meaning(), s.serial
		if k.Kind == External && k.Packets > c.last {
			moved[k.Port] += k.Packets - c.last
		}
		if k.Packets > c.last || !r.Dips {
			c.last = k.Packets
		}
		if c.last > 0 {
			c.alive = s.serial
		}
	}
	s.witnesses = r.Witnesses
	s.baselined = s.serial > 1
	if s.baselined && r.ConnectionsFirst {
		for p, n := range moved {
			s.split(p).unknown = n
		}
	}
	return !s.baselined
}
