// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"crypto/aes"
	"crypto/cipher"
	"net/netip"
	"strings"
)

// masker replaces addresses by others. Each bit of an address is kept or turned by what
// a secret says of the bits before it, so that two addresses have as many first bits in
// common after as before, and no two become one (Xu and others, "Prefix-preserving IP
// address anonymization", 2002). It is for one goroutine.
type masker struct {
	v4, v6 cipher.Block
	secret []byte // of names
	done   map[netip.Addr]netip.Addr
	// chains are the names of endpoints' chains that are known to be made of an
	// endpoint's address, and those that they get.
	chains map[string]string
	nodes  *strings.Replacer // of nodes' names that have an address in them
}

func newMasker(key []byte) (*masker, error) {
	v4, err := aes.NewCipher(derive(key, "IPv4"))
	if err != nil {
		return nil, err
	}
	v6, err := aes.NewCipher(derive(key, "IPv6"))
	if err != nil {
		return nil, err
	}
	return &masker{
		v4: v4, v6: v6, secret: derive(key, "names"), done: make(map[netip.Addr]netip.Addr),
		chains: make(map[string]string), nodes: strings.NewReplacer(),
	}, nil
}

// keptWhole are the networks of which every address stays what it is: no host of a
// network has one, or every host has.
func keptWhole() []netip.Prefix {
	return prefixes("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "240.0.0.0/4", "::/8", "fe80::/10", "ff00::/8")
}

// keptNetworks are those that addresses stay in: private ones, shared ones, global ones
// of IPv6.
func keptNetworks() []netip.Prefix {
	return prefixes("10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7", "2000::/3")
}

func prefixes(texts ...string) []netip.Prefix {
	all := make([]netip.Prefix, 0, len(texts))
	for _, s := range texts {
		all = append(all, netip.MustParsePrefix(s))
	}
	return all
}

var (
	wholeNetworks = keptWhole()
	allNetworks   = append(keptNetworks(), wholeNetworks...)
	embedded      = netip.MustParsePrefix("64:ff9b::/96") // IPv4 addresses, for NAT64
)

// addr is the address in a's place.
func (m *masker) addr(a netip.Addr) netip.Addr {
	if !a.IsValid() {
		return a
	}
	if out, ok := m.done[a]; ok {
		return out
	}
	out := a
	switch plain := a.WithZone(""); {
	case plain.Is4In6():
		out = netip.AddrFrom16(m.addr(plain.Unmap()).As16())
	case embedded.Contains(plain):
		b := plain.As16()
		v4 := m.addr(netip.AddrFrom4([4]byte(b[12:]))).As4()
		copy(b[12:], v4[:])
		out = netip.AddrFrom16(b)
	case within(wholeNetworks, plain):
	case plain.Is4():
		b := plain.As4()
		m.turn(m.v4, plain, b[:])
		out = netip.AddrFrom4(b)
	default:
		b := plain.As16()
		m.turn(m.v6, plain, b[:])
		out = netip.AddrFrom16(b)
	}
	out = out.WithZone(a.Zone())
	m.done[a] = out
	return out
}

func within(all []netip.Prefix, a netip.Addr) bool {
	for _, p := range all {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// turn turns bits of b, which is a.
func (m *masker) turn(block cipher.Block, a netip.Addr, b []byte) {
	var in, out [aes.BlockSize]byte // the bits before, and one that ends them
	for i := range 8 * len(b) {
		bit := byte(0x80) >> (i % 8)
		in[i/8] |= bit
		if !kept(a, i) {
			block.Encrypt(out[:], in[:])
			if out[0]&1 != 0 {
				b[i/8] ^= bit
			}
		}
		if original := a.AsSlice()[i/8]; original&bit == 0 {
			in[i/8] &^= bit
		}
	}
}

// kept reports whether bit i of a, the first of which is 0, is one that decides whether a
// is in one of the networks that are kept.
func kept(a netip.Addr, i int) bool {
	for _, p := range allNetworks {
		if p.Addr().Is4() != a.Is4() || p.Bits() <= i {
			continue
		}
		if netip.PrefixFrom(a, i).Masked().Contains(p.Addr()) {
			return true
		}
	}
	return false
}

func (m *masker) addrPort(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(m.addr(a.Addr()), a.Port())
}

// prefix is the network in p's place, of the same length.
func (m *masker) prefix(p netip.Prefix) netip.Prefix {
	if !p.IsValid() {
		return p
	}
	out := netip.PrefixFrom(m.addr(p.Addr()), p.Bits())
	if p == p.Masked() {
		return out.Masked()
	}
	return out
}
