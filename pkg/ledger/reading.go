// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"net/netip"
	"time"
)

// Service is a Service's namespace and name.
type Service struct {
	Namespace string
	Name      string
}

// Port is one port of a Service in one IP family. The zero Port stands for
// rules whose Service is not known.
type Port struct {
	Service  Service
	Name     string // the port's name; may be empty
	Protocol string // TCP, UDP, SCTP
	Family   uint8  // NFPROTO_IPV4 (2) or NFPROTO_IPV6 (10)
}

// Source is what one Reading covers: all tables of one backend and family.
type Source struct {
	Backend string // legacy, nft
	Family  uint8
}

// ID is the identity of a kernel counter within its Source. In nf_tables it is
// the table's name and handle and the rule's handle: a re-created table or
// rule has another handle. In x_tables, which has no handles, it is the
// table's name, a digest of the rule's chain, matches and action, and the
// rule's ordinal among equal ones.
type ID struct {
	Table       string
	TableHandle uint64
	RuleHandle  uint64
	Digest      [16]byte
	Ordinal     uint32
}

// Kind is what a counter counts.
type Kind uint8

// The kinds of counters.
const (
	// Connection counts connections given to an endpoint: a jump from
	// KUBE-SVC or KUBE-SVL to KUBE-SEP.
	Connection Kind = iota + 1
	// External counts those that came by an external address or a node
	// port: a jump from KUBE-EXT to KUBE-SVC or KUBE-SVL.
	External
	// Refusal counts packets that a rule refuses.
	Refusal
	// Dispatch counts connections that are about to be given to an endpoint,
	// and came by the cluster address: a jump from KUBE-SERVICES to KUBE-SVC
	// or KUBE-SVL. It is told in the chain that it leads to, or not at all:
	// with it the way of most connections is known at once. It is not for
	// Commits.
	Dispatch
)

// Counter is the value of one kernel counter and what it means.
type Counter struct {
	ID       ID
	Kind     Kind
	Port     Port
	Endpoint netip.AddrPort // Connection only; the zero value where unknown
	Reason   string         // Refusal only
	Chain    string         // the rule's chain
	// Group is what the chains of one port have in common: the hash in their
	// names. Packets of a counter that ends while its Port is not known go
	// to the port that the group turns out to belong to. It may be empty.
	Group   string
	Packets uint64
}

// Witness is the counter of a rule that its writer never rewrites while it
// exists: kube-proxy's jumps from the built-in chains, which every packet passes
// that other counters of the table count. When all of a table's are other rules
// in the next reading, or stand below what they were, somebody else has restored
// the table, and their values tell whether the counters were restored with it.
// In x_tables one that stands where it did tells that the reading is not within
// a dip.
type Witness struct {
	ID      ID
	Rule    [16]byte // a digest of the rule's chain, matches and action
	Packets uint64
}

// ChainName names a chain within a Source.
type ChainName struct {
	Table string
	Chain string
}

// Cover is a set of chains.
type Cover map[ChainName]struct{}

// Reading is the counters of one source at one time. Only complete and
// consistent readings may be made; a failed one is not applied. A source that
// holds nothing is a Reading without counters.
type Reading struct {
	Source   Source
	Counters []Counter
	// Cover is the chains that the reading holds all counters of; nil means
	// all of the source. It says nothing of other chains. A reading that
	// covers one of a port's KUBE-SVC, KUBE-SVL and KUBE-EXT chains covers
	// all of them. It adds nothing to a source without a baseline.
	Cover Cover
	// Listening tells that every counter that ends, and every one that
	// begins, is told by a Commit: absence from the reading ends nothing.
	// The reading is as new as the last Commit.
	Listening bool
	// Witnesses may be left out where identities outlive a restored table,
	// as digests do. A partial reading of a source that has some should have
	// them too: without, a new counter that may have been restored is taken
	// to have been.
	Witnesses []Witness
	// ConnectionsFirst tells that every Connection counter was read before
	// any External counter. A packet passes the External jump first, so
	// connections less externals are then never more than what came by the
	// cluster address.
	ConnectionsFirst bool
	// Dips tells that a value below the last one need not be a reset:
	// libiptc replaces an x_tables table with zeroed counters and adds the
	// old values in a second call. Such a value is held until a witness or
	// later readings tell.
	Dips bool
	// Writing are the tables, of those with dips, that were read while a writer was
	// at work: such a reading may lie in a dip, however long the writer has to wait
	// for a processor.
	Writing map[string]bool
}

// Commit is what the notices of one or more nf_tables commits tell, in their
// order.
type Commit struct {
	Source Source
	// Ended are counters of deleted rules with their final values, whether
	// any reading saw them or not. The same ID may be in Begun again.
	Ended []Counter
	// Begun are counters of new rules, with the values of the notices.
	Begun []Counter
	// Whole has the tables of which built-in chains, too, got rules with the
	// commit: somebody wrote the table as a whole. What its counters begin
	// with was saved before, however little it is.
	Whole map[string]bool
	// InFlight is how many packets may have been within the old rules when
	// they were replaced: one a CPU or so. It is held back from the cluster's
	// share where the order in which the kernel read the final values lets
	// an external packet pass for one to the cluster's address.
	InFlight uint64
}

// Outcome tells what a reading leaves open.
type Outcome struct {
	// Suspect: a value fell, or this is the first of the two readings that
	// make a source's baseline. Another reading 100 ms or
	// more later settles it.
	Suspect bool
	// Pending: connections are counted whose way is not known yet. Another
	// reading right away settles most of them.
	Pending bool
	// Replaced has the tables in which counters were reset, restored or
	// vanished without a final value, and since when what they counted may be
	// lost: a chain of theirs was read last. Nil when there are none.
	Replaced map[string]time.Time
}

// Known lists the Service ports that exist.
type Known struct {
	Ports []Port
	// UIDs tells Services of one name apart; it may be nil, or lack some.
	UIDs map[Service]string
	// Complete tells that the list comes from the API: a Service that is not
	// in it does not exist. Otherwise it is what was seen in rules, from
	// which a Service's chains may be absent for a while.
	Complete bool
}
