// SPDX-License-Identifier: Apache-2.0

package ruleset

import (
	"net/netip"
	"slices"
	"strconv"

	"github.com/svcscope/svcscope/pkg/netfilter"
)

// Converter turns decoded rules of one family into Rules. Equal strings and
// equal conditions become one value, so a Converter is kept for a whole
// reading and dropped after. It is not for use by several at once.
type Converter struct {
	family    netfilter.Family
	undecoded map[string]uint64
	slab      []Match // where Matches of rules are cut from
	size      int     // of the last slab
	scratch   []Match // of the rule at hand
	evaluator evaluator

	strings    map[string]string
	sources    map[Source]Match
	dests      map[Destination]Match
	protocols  map[Protocol]Match
	sports     map[SourcePort]Match
	dports     map[DestinationPort]Match
	ins        map[InInterface]Match
	outs       map[OutInterface]Match
	modules    map[Module]Match
	addrTypes  map[AddrType]Match
	states     map[ConntrackState]Match
	randoms    map[Random]Match
	marks      map[Mark]Match
	objects    map[NFAcct]Match
	limits     map[Limit]Match
	recentSets map[Recent]Match
}

// NewConverter returns a Converter for rules of IPv4 or IPv6.
func NewConverter(family netfilter.Family) *Converter {
	return &Converter{
		family: family, undecoded: map[string]uint64{}, strings: map[string]string{},
		sources: map[Source]Match{}, dests: map[Destination]Match{},
		protocols: map[Protocol]Match{}, sports: map[SourcePort]Match{}, dports: map[DestinationPort]Match{},
		ins: map[InInterface]Match{}, outs: map[OutInterface]Match{}, modules: map[Module]Match{},
		addrTypes: map[AddrType]Match{}, states: map[ConntrackState]Match{}, randoms: map[Random]Match{},
		marks: map[Mark]Match{}, objects: map[NFAcct]Match{}, limits: map[Limit]Match{}, recentSets: map[Recent]Match{},
	}
}

// Undecoded counts what was kept without being understood, by kind:
// "match/NAME", "target/NAME", "expression/NAME". The map is the Converter's
// own.
func (c *Converter) Undecoded() map[string]uint64 { return c.undecoded }

// take returns what Undecoded has counted since the last call.
func (c *Converter) take() map[string]uint64 {
	if len(c.undecoded) == 0 {
		return nil
	}
	out := c.undecoded
	c.undecoded = map[string]uint64{}
	return out
}

// one returns a Match equal to v, the same one every time.
func one[M interface {
	comparable
	Match
}](seen map[M]Match, v M) Match {
	m, ok := seen[v]
	if !ok {
		m = v
		seen[v] = m
	}
	return m
}

// text returns b as a string, the same one every time.
func (c *Converter) text(b []byte) string {
	s, ok := c.strings[string(b)]
	if !ok {
		s = string(b)
		c.strings[s] = s
	}
	return s
}

// name is text for what is a string already, whose memory may be a reading's.
func (c *Converter) name(s string) string {
	if t, ok := c.strings[s]; ok {
		return t
	}
	c.strings[s] = s
	return s
}

// begin starts a rule: its matches are appended to scratch.
func (c *Converter) begin() { c.scratch = c.scratch[:0] }

func (c *Converter) add(m Match) { c.scratch = append(c.scratch, m) }

// addUnknown keeps a condition that is not understood, and counts it.
func (c *Converter) addUnknown(kind string, u Unknown) {
	c.undecoded[kind+"/"+u.Name]++
	c.add(u)
}

// finish returns the rule's matches in order, in memory that is theirs alone.
func (c *Converter) finish() []Match {
	n := len(c.scratch)
	if n == 0 {
		return nil
	}
	sortMatches(c.scratch)
	if cap(c.slab)-len(c.slab) < n {
		// Few rules keep little: as long as one of them is kept, so is its slab.
		c.size = min(max(2*c.size, 8), 1024)
		c.slab = make([]Match, 0, max(n, c.size))
	}
	at := len(c.slab)
	c.slab = append(c.slab, c.scratch...)
	return c.slab[at : at+n : at+n]
}

// sortMatches brings what is one condition in iptables, and stands in
// nf_tables in the order that user space liked, into iptables-save's order:
// addresses, interfaces and protocol at the head, and the parts of a tcp match.
func sortMatches(ms []Match) {
	for i := 0; i < len(ms); {
		group := rank(ms[i]) / 10
		j := i + 1
		for j < len(ms) && rank(ms[j])/10 == group {
			j++
		}
		if j-i > 1 && (group == 1 && i == 0 || group == 2) {
			slices.SortStableFunc(ms[i:j], func(a, b Match) int { return rank(a) - rank(b) })
		}
		i = j
	}
}

// rank is 10 and more for what each rule has, 20 and more for the parts of a
// transport protocol's match, 0 for all else.
func rank(m Match) int {
	switch m.(type) {
	case Source:
		return 10
	case Destination:
		return 11
	case InInterface:
		return 12
	case OutInterface:
		return 13
	case Protocol:
		return 14
	case Fragment:
		return 15
	case SourcePort:
		return 20
	case DestinationPort:
		return 21
	case TCPOption:
		return 22
	case TCPFlags:
		return 23
	}
	return 0
}

// comment takes a comment match: the first is the rule's.
func (c *Converter) comment(r *Rule, text string) {
	if r.Comment != "" {
		c.add(Comment{Text: text})
		return
	}
	r.Comment, r.CommentAt = text, uint8(min(len(c.scratch), 255))
}

// ports adds the ports of a transport protocol's match; with none it is the
// bare module.
func (c *Converter) ports(src SourcePort, dst DestinationPort) (any bool) {
	if src.First != 0 || src.Last != 65535 || src.Not {
		c.add(one(c.sports, src))
		any = true
	}
	if dst.First != 0 || dst.Last != 65535 || dst.Not {
		c.add(one(c.dports, dst))
		any = true
	}
	return any
}

// limit adds a limit of one packet every period (in 1/10000 s), with
// iptables' choice of unit (extensions/libxt_limit.c, print_rate).
func (c *Converter) limit(period uint64, burst uint32) {
	units := [...]struct {
		name   string
		period uint64
	}{{"day", 864000000}, {"hour", 36000000}, {"min", 600000}, {"sec", 10000}}
	i := 1
	for ; i < len(units); i++ {
		if u := units[i].period; period == 0 || period > u || u/period < u%period {
			break
		}
	}
	rate := uint64(0)
	if period != 0 {
		rate = units[i-1].period / period
	}
	text := "--limit " + strconv.FormatUint(rate, 10) + "/" + units[i-1].name
	if burst != 5 {
		text += " --limit-burst " + strconv.FormatUint(uint64(burst), 10)
	}
	c.add(one(c.limits, Limit{Text: c.name(text)}))
}

// natRange is the text of a range of addresses and ports, as NAT targets take
// it, and whether it is more than one address and port.
func natRange(lo, hi netip.AddrPort) (text string, isRange bool) {
	text = natAddr(lo)
	if hi.Addr().IsValid() && hi.Addr() != lo.Addr() {
		// iptables puts both addresses first: 1.2.3.4-1.2.3.6:500.
		text = lo.Addr().String() + "-" + hi.Addr().String()
		if lo.Port() != 0 {
			text += ":" + strconv.Itoa(int(lo.Port()))
		}
		isRange = true
	}
	if hi.Port() != lo.Port() {
		text += "-" + strconv.Itoa(int(hi.Port()))
		isRange = true
	}
	return text, isRange
}
