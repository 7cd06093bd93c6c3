// SPDX-License-Identifier: Apache-2.0

package ruleset

import (
	"strings"

	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/nftables"
)

// numgen is a number of which all that is told is of how many it is one at random.
func numgen(x nftables.Numgen) content {
	if !x.Random || x.Offset != 0 {
		return content{kind: opaque, name: "numgen"}
	}
	return content{kind: fromNumgen, shares: x.Modulus}
}

// lookup is a condition, or with a verdict map an action. In a map of all numbers that
// numgen gives one is always found.
func (e *evaluator) lookup(x nftables.Lookup) {
	name, key, first := e.c.name(x.Set), e.key(x.SReg), e.reg(x.SReg)
	shares := uint32(0)
	if first.kind == fromNumgen {
		shares = first.shares
	}
	e.fresh = 0
	switch {
	case x.Map && x.DReg == nftables.RegVerdict:
		e.act(Action{Kind: Map, Value: shares, More: &Details{Name: name, Args: key}})
		return
	case x.Map:
		const longest = 20 // an address and a port
		e.load(x.DReg, longest, content{kind: fromMap, name: name, key: key, shares: shares})
	}
	if !x.Map || shares == 0 {
		e.c.add(InSet{Set: name, Key: key, Not: x.Not})
	}
}

// dynset adds what was loaded to a set.
func (e *evaluator) dynset(x nftables.DynSet) {
	const update, del = 1, 2 // NFT_DYNSET_OP_UPDATE, NFT_DYNSET_OP_DELETE
	key := e.key(x.Key)
	e.fresh = 0
	if x.Not || x.Data != 0 || len(x.Exprs) > 0 || x.Op > del {
		e.unknown("dynset", []byte(x.Set))
		return
	}
	e.c.add(SetUpdate{Set: e.c.name(x.Set), Key: key, Update: x.Op == update, Delete: x.Op == del})
}

// key is what is looked up, in nft's words: what the registers from one on have.
func (e *evaluator) key(r nftables.Register) string {
	w, ok := r.Word()
	if !ok {
		return "?"
	}
	var words []string
	for i := w; i < len(e.regs) && e.used&(1<<i) != 0 && (i == w || e.fresh&(1<<i) != 0); {
		text, n := e.words(&e.regs[i])
		words = append(words, text)
		i += max(n, 1)
	}
	if words == nil {
		return "?"
	}
	return e.c.name(strings.Join(words, " . "))
}

// words is what a register has, and how many registers of four bytes it takes.
func (e *evaluator) words(v *content) (text string, n int) {
	n = 1
	switch v.kind {
	case fromPayload:
		text, n = e.payloadWords(v), (int(min(v.len, 64))+3)/4
	case fromMeta:
		if text = metaWords(v.meta); text == "iifname" || text == "oifname" {
			n = 4
		}
	case fromFIB:
		text = "fib"
	case fromCT:
		text = "ct"
	case fromNumgen:
		text = "numgen random mod " + itoa(uint64(v.shares))
	case fromMap:
		text = v.key + " map @" + v.name
	case opaque:
		text = v.name
	default:
		text = "?"
	}
	if v.mask != nil {
		text += " & mask"
	}
	return text, n
}

func (e *evaluator) payloadWords(v *content) string {
	switch {
	case v.base == nftables.Transport && v.len == 2 && v.off == 0:
		return "th sport"
	case v.base == nftables.Transport && v.len == 2 && v.off == 2:
		return "th dport"
	case v.base != nftables.Network:
	case e.family == netfilter.IPv4 && v.len == 4 && v.off == 12:
		return "ip saddr"
	case e.family == netfilter.IPv4 && v.len == 4 && v.off == 16:
		return "ip daddr"
	case e.family == netfilter.IPv6 && v.len == 16 && v.off == 8:
		return "ip6 saddr"
	case e.family == netfilter.IPv6 && v.len == 16 && v.off == 24:
		return "ip6 daddr"
	}
	return "payload"
}

func metaWords(k nftables.MetaKey) string {
	switch k {
	case nftables.MetaL4Proto:
		return "meta l4proto"
	case nftables.MetaNFProto:
		return "meta nfproto"
	case nftables.MetaMark:
		return "meta mark"
	case nftables.MetaIIFName:
		return "iifname"
	case nftables.MetaOIFName:
		return "oifname"
	}
	return "meta"
}
