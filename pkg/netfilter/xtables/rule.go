// SPDX-License-Identifier: Apache-2.0

package xtables

import (
	"iter"
	"net/netip"

	"github.com/svcscope/svcscope/pkg/netfilter"
)

// Rule is a view of one entry that is a rule. It is good for as long as its
// table is.
type Rule struct {
	t   *Table
	off int
}

// Extension is a match or target as it lies in a rule. Data refers to the
// table's bytes.
type Extension struct {
	Family   netfilter.Family
	Name     string
	Revision uint8
	Data     []byte // behind the 32-byte head, padding included
}

// DecodeMatch is DecodeMatch of the extension's fields.
func (e Extension) DecodeMatch() (Match, error) {
	return DecodeMatch(e.Family, e.Name, e.Revision, e.Data)
}

// DecodeTarget is DecodeTarget of the extension's fields.
func (e Extension) DecodeTarget() (Target, error) {
	return DecodeTarget(e.Family, e.Name, e.Revision, e.Data)
}

// ActionKind is what a rule does with a packet that it matches.
type ActionKind uint8

// The kinds of action.
const (
	Continue     ActionKind = iota // a rule without target: the next rule follows
	Accept                         // NF_ACCEPT
	Drop                           // NF_DROP
	Queue                          // NF_QUEUE
	Return                         // XT_RETURN
	Jump                           // to Action.Chain, and back behind this rule
	Goto                           // to Action.Chain, and back as if from there
	RunExtension                   // Action.Target says what
)

// Action is what a rule does.
type Action struct {
	Kind   ActionKind
	Chain  []byte    // of Jump and Goto: the chain's name; refers to the table's bytes
	Target Extension // of RunExtension
}

func (t *Table) nextOffset(off int) int   { return int(u16(t.blob, off+t.layout.offsets+2)) }
func (t *Table) targetOffset(off int) int { return int(u16(t.blob, off+t.layout.offsets)) }

// Offset is where the rule's entry begins in the table's blob.
func (r Rule) Offset() int { return r.off }

// Bytes returns the rule's whole entry; it refers to the table's bytes.
func (r Rule) Bytes() []byte {
	end := r.off + r.t.nextOffset(r.off)
	return r.t.blob[r.off:end:end]
}

// Counter returns what the rule has counted.
func (r Rule) Counter() netfilter.Counter { return r.t.layout.counter(r.t.blob, r.off) }

// Matches yields the rule's matches in order. The conditions that every rule
// has are in IP.
func (r Rule) Matches() iter.Seq[Extension] {
	return func(yield func(Extension) bool) {
		b := r.Bytes()[:r.t.targetOffset(r.off)]
		for at := r.t.layout.size; at < len(b); {
			x := r.extension(b, at)
			if !yield(x) {
				return
			}
			at += extHeader + len(x.Data)
		}
	}
}

// Action returns what the rule does.
func (r Rule) Action() Action {
	b := r.Bytes()
	x := r.extension(b, r.t.targetOffset(r.off))
	if x.Name != "" {
		return Action{Kind: RunExtension, Target: x}
	}
	v := Verdict(int32(u32(x.Data, 0)))
	switch v {
	case VerdictAccept:
		return Action{Kind: Accept}
	case VerdictDrop:
		return Action{Kind: Drop}
	case VerdictQueue:
		return Action{Kind: Queue}
	case VerdictReturn:
		return Action{Kind: Return}
	}
	if int(v) == r.off+len(b) {
		return Action{Kind: Continue}
	}
	kind := Jump
	if b[r.t.layout.flags]&r.t.layout.gotoFlag != 0 {
		kind = Goto
	}
	name, _ := r.t.chainAt(int(v)) // Check has found it
	return Action{Kind: kind, Chain: name}
}

// Comment returns the text of the rule's first comment match, or "".
func (r Rule) Comment() string {
	for m := range r.Matches() {
		if m.Name == "comment" && m.Revision == 0 {
			return str(m.Data)
		}
	}
	return ""
}

// extension views the match or target at b[at:], which Check has checked.
func (r Rule) extension(b []byte, at int) Extension {
	size := int(u16(b, at))
	name, _ := cstr(b[at+2 : at+2+extNameLen])
	return Extension{
		Family: r.t.Family, Name: intern(name), Revision: b[at+31],
		Data: b[at+extHeader : at+size : at+size],
	}
}

// intern returns name as a string, without allocating for common ones.
func intern(name []byte) string {
	for _, s := range [...]string{
		"", "comment", "tcp", "udp", "statistic", "addrtype", "mark", "conntrack", "recent", "nfacct",
		"multiport", "set", "state", "sctp", "limit", "physdev",
		"DNAT", "MARK", "REJECT", "MASQUERADE", "NFLOG", "ERROR", "SNAT", "LOG",
	} {
		if string(name) == s {
			return s
		}
	}
	return string(name)
}

// IP decodes the conditions that every rule has.
func (r Rule) IP() IP {
	l, b := &r.t.layout, r.Bytes()
	addr := func(i int) netip.Addr { return inetAddr(r.t.Family, b, i*l.addrLen) }
	iface := func(i int) []byte { return b[l.ifaces+16*i : l.ifaces+16*i+16] }
	flags := b[l.flags]
	ip := IP{
		Src: Address{Addr: addr(0), Mask: addr(2)}, Dst: Address{Addr: addr(1), Mask: addr(3)},
		In: decodeInterface(iface(0), iface(2)), Out: decodeInterface(iface(1), iface(3)),
		Proto: u16(b, l.proto), Invert: b[l.invert],
		Fragment: flags&l.fragFlag != 0, Goto: flags&l.gotoFlag != 0,
	}
	if r.t.Family == netfilter.IPv4 {
		ip.HasProto = ip.Proto != 0
		return ip
	}
	ip.HasProto = flags&l.protoFlag != 0
	if flags&l.tosFlag != 0 {
		ip.HasTOS, ip.TOS = true, b[l.tos]
	}
	return ip
}
