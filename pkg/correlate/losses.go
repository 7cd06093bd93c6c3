// SPDX-License-Identifier: Apache-2.0

package correlate

// LossCause is why connection tracking lost packets, the label cause of
// svcscope_conntrack_losses_total.
type LossCause uint8

// The causes.
const (
	LossTableFull LossCause = iota // no room: the packet, or an entry that was evicted for it
	LossClash                      // two packets made the same entry, and the second was dropped
	LossPorts                      // NAT found no free source port, and used a taken one
	LossChain                      // the hash chain was too long
	LossOther                      // a tracker or helper dropped it, or there was no memory
	NumLossCauses = 5
)

// String is the label's value.
func (c LossCause) String() string {
	return [NumLossCauses]string{"table_full", "clash", "ports", "chain", "other"}[c]
}

const (
	// nearFull is the share of the limit from which on a drop is for lack of
	// room: the kernel's gc counts a table as full from 95 % on, too
	// (nf_conntrack_max95 in net/netfilter/nf_conntrack_core.c).
	nearFull = 0.95
	// triesForPorts is how many taken tuples NAT finds at least before it gives up
	// to look for a port (NF_NAT_MAX_ATTEMPTS in net/netfilter/nf_nat_core.c); 131
	// on Linux 6.18, some more on others.
	triesForPorts = 128
)

// Losses divides the packets that were lost between two readings of the
// statistics by their cause. The kernel has no counter of either cause but the
// chain's: an entry that cannot be confirmed counts in insert_failed, and in
// chain_toolong where its chain is too long, else in drop too, as do packets for
// which there was no entry. peak is the highest count between the readings, and
// usual how many taken tuples NAT finds in such a time while no entry fails. crowded
// is false where source ports are known not to be short.
func Losses(before, now *ConntrackStats, usual float64, crowded bool, peak, limit uint64) [NumLossCauses]uint64 {
	var lost [NumLossCauses]uint64
	chain := grown(before.ChainTooLong, now.ChainTooLong)
	drop := grown(before.Drop, now.Drop)
	found := grown(before.Found, now.Found)
	evicted := grown(before.EarlyDrop, now.EarlyDrop)

	lost[LossChain] = chain
	unconfirmed := Unconfirmed(before, now)
	if more := float64(found) - 2*usual; crowded && more > 0 {
		lost[LossPorts] = min(unconfirmed, uint64(more/triesForPorts))
	}
	lost[LossClash] = unconfirmed - lost[LossPorts]
	rest := drop - min(drop, unconfirmed)
	if evicted > 0 || limit > 0 && float64(peak) >= nearFull*float64(limit) {
		lost[LossTableFull] = rest + evicted
	} else {
		lost[LossOther] = rest
	}
	return lost
}

// Unconfirmed is how many entries could not be confirmed between two readings
// for another reason than a chain that is too long. Before Linux 5.10, which
// brought clash_resolve, insert_failed counts clashes too that were resolved, and
// drop alone tells which were not.
func Unconfirmed(before, now *ConntrackStats) uint64 {
	failed := grown(before.InsertFailed, now.InsertFailed)
	if now.ClashResolve == nil {
		failed = min(failed, grown(before.Drop, now.Drop))
	}
	return failed - min(failed, grown(before.ChainTooLong, now.ChainTooLong))
}

// grown is by how much a statistic has grown; 0 where it is not known.
func grown(before, now *uint64) uint64 {
	if before == nil || now == nil || *now < *before {
		return 0
	}
	return *now - *before
}
