// SPDX-License-Identifier: Apache-2.0

package ledger

// sweep drops the covered counters that the reading does not hold.
func (rd *round) sweep(cover Cover) {
	keep := func(c *counter) bool {
		if c.seen == rd.round {
			return true
		}
		rd.lose(c)
		rd.gone(c)
		rd.drop(c)
		return false
	}
	visit := func(ch *chain) {
		if ch == nil || ch.complete(rd.round) {
			return
		}
		if ch.visited != rd.round {
			rd.src.visit(ch.name, rd.round)
		}
		ch.keep(keep)
	}
	if cover == nil {
		for _, ch := range rd.src.chains {
			visit(ch)
		}
		return
	}
	for name := range cover {
		visit(rd.src.chains[name])
	}
	rd.tidy()
}

// gone notes that a counter's last packets are not known.
func (rd *round) gone(c *counter) {
	a := rd.account(c.account.name)
	switch {
	case c.kind == Refusal, c.kind == Dispatch:
	case c.credited || a.port != nil:
		a.split.gone(c.kind)
	case c.kind == External:
		a.blind = rd.round
		rd.blind(a.name)
	}
}

// tidy puts the counters of the chains that were read in order.
func (rd *round) tidy() {
	for _, ch := range rd.src.visits {
		if ch.dirty {
			ch.keep(func(*counter) bool { return true })
		}
	}
}

// drop ends a counter's membership in its account and endpoint.
func (rd *round) drop(c *counter) {
	c.account.live[c.kind]--
	rd.unbind(c)
}
