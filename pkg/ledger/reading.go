// SPDX-License-Identifier: Apache-2.0

package ledger

import "net/netip"

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
)

// Counter is the value of one kernel counter and what it means.
type Counter struct {
	ID       ID
	Kind     Kind
	Port     Port
	Endpoint netip.AddrPort // Connection only; the zero value where unknown
	Reason   string         // Refusal only
	Chain    string         // the rule's chain
	Packets  uint64
}

// Witness is the counter of a rule that its writer never rewrites while it
// exists: kube-proxy's jumps from the built-in chains. When all of a table's
// are other rules in the next reading, somebody else has restored the table,
// and their values tell whether the counters were restored with it.
type Witness struct {
	ID      ID
	Rule    [16]byte // a digest of the rule's chain, matches and action
	Packets uint64
}

// Reading is all counters of one source at one time. Only complete and
// consistent readings may be made; a failed one is not applied. A source that
// holds nothing is a Reading without counters.
type Reading struct {
	Source   Source
	Counters []Counter
	// Witnesses may be left out where identities outlive a restored table,
	// as digests do.
	Witnesses []Witness
	// ConnectionsFirst tells that every Connection counter was read before
	// any External counter. A packet passes the External jump first, so
	// connections less externals are then never more than what came by the
	// cluster address.
	ConnectionsFirst bool
	// Dips tells that a value below the last one need not be a reset:
	// libiptc replaces an x_tables table with zeroed counters and adds the
	// old values in a second call. Such a value is held until later
	// readings confirm it.
	Dips bool
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
}

// Known lists the Service ports that exist.
type Known struct {
	Ports []Port
	// Complete tells that the list comes from the API: a Service that is not
	// in it does not exist. Otherwise it is what was seen in rules, from
	// which a Service's chains may be absent for a while.
	Complete bool
}
