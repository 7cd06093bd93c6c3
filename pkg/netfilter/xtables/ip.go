// SPDX-License-Identifier: Apache-2.0

package xtables

import (
	"math/bits"
	"net/netip"
)

// Address is an address with a mask, which need not be a prefix.
type Address struct {
	Addr netip.Addr
	Mask netip.Addr
}

// Any tells whether every address matches.
func (a Address) Any() bool { return !a.Mask.IsValid() || a.Mask.IsUnspecified() }

// Prefix returns the address as a prefix; ok is false if the mask is none.
// Bits of Addr behind the mask are cleared.
func (a Address) Prefix() (p netip.Prefix, ok bool) {
	n, done := 0, false
	for _, b := range a.Mask.AsSlice() {
		ones := bits.LeadingZeros8(^b)
		if done && b != 0 || b<<ones != 0 {
			return netip.Prefix{}, false
		}
		n += ones
		done = done || ones < 8
	}
	p, err := a.Addr.Prefix(n)
	return p, err == nil
}

// Interface is a device name as iptables writes it, "cali+" being every name
// that begins with "cali"; "" is any device.
type Interface struct {
	Name string
	// Odd marks a mask that iptables does not write: one with holes, or one
	// that covers something else than the name or the name and its end. Name
	// is then only what the bytes hold, not what matches.
	Odd bool
}

// The bits of IP.Invert: IPT_INV_* and IP6T_INV_*, ip_tables.h and
// ip6_tables.h, which agree.
const (
	InvIn    uint8 = 0x01 // IPT_INV_VIA_IN
	InvOut   uint8 = 0x02 // IPT_INV_VIA_OUT
	InvTOS   uint8 = 0x04 // IPT_INV_TOS
	InvSrc   uint8 = 0x08 // IPT_INV_SRCIP
	InvDst   uint8 = 0x10 // IPT_INV_DSTIP
	InvFrag  uint8 = 0x20 // IPT_INV_FRAG
	InvProto uint8 = 0x40 // XT_INV_PROTO
)

// IP is struct ipt_ip or ip6t_ip: the conditions that every rule has.
type IP struct {
	Src, Dst Address
	In, Out  Interface
	Proto    uint16 // transport protocol; 0 is any, or IPv6 hop-by-hop with HasProto
	HasProto bool   // Proto is compared
	Fragment bool   // IPv4: second and further fragments only (-f)
	HasTOS   bool   // IPv6: TOS is compared
	TOS      uint8
	Goto     bool  // the target is a goto, not a jump
	Invert   uint8 // Inv* bits
}

// decodeInterface reads a name and its mask, 16 bytes (IFNAMSIZ) each.
func decodeInterface(name, mask []byte) Interface {
	n := 0
	for n < len(mask) && mask[n] == 0xff {
		n++
	}
	odd := false
	for _, m := range mask[n:] {
		odd = odd || m != 0
	}
	s, _ := cstr(name)
	switch {
	case n == 0 && !odd:
		return Interface{} // "+" and no condition are the same
	case !odd && n == len(s)-1 && s[n] == '+': // iptables leaves the "+" in
		return Interface{Name: string(s)}
	case odd || n < len(s) || n > len(s)+1:
		return Interface{Name: string(s), Odd: true}
	case n == len(s):
		return Interface{Name: string(s) + "+"}
	}
	return Interface{Name: string(s)}
}
