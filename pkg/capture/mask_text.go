// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"net/netip"
	"regexp"
	"strconv"
	"strings"
)

// told finds what may tell an address in a text: names of chains and comments that are
// hashes over addresses, bytes that nobody has decoded, and addresses.
var told = regexp.MustCompile(`KUBE-SEP-[A-Z2-7]{16}` +
	`|(?:endpoint|affinity)-[A-Z2-7]{8}-\S*` +
	`|cali:[A-Za-z0-9_-]{16}` +
	`|unsupported: [0-9a-f]+` +
	`|[0-9A-Fa-f:.]{3,}x?(?:/[0-9]+)?`)

var dotted = regexp.MustCompile(`[0-9]{1,3}(?:\.[0-9]{1,3}){3}`)

// text masks what a text tells.
func (m *masker) text(s string) string {
	s = m.nodes.Replace(s)
	if !strings.ContainsAny(s, ".:-") {
		return s
	}
	return told.ReplaceAllStringFunc(s, m.found)
}

// found masks one thing that was found in a text.
func (m *masker) found(s string) string {
	switch {
	case strings.HasPrefix(s, endpointPrefix):
		return m.chain(s)
	case strings.HasPrefix(s, "endpoint-"), strings.HasPrefix(s, "affinity-"):
		return m.nativeName(s)
	case strings.HasPrefix(s, "cali:"):
		return "cali:" + m.pseudonym(s, "0123456789abcdefghijklmnopqrstuvwxyz")
	case strings.HasPrefix(s, "unsupported: "):
		return "unsupported: masked"
	case !strings.ContainsAny(s, ".:"):
		return s
	}
	return m.digits(s)
}

// digits masks digits, dots and colons that are an address, with or without a port or a
// prefix length. One whose end is hidden already, 10.1.2.x, is a network.
func (m *masker) digits(s string) string {
	body, length, slashed := strings.Cut(s, "/")
	if slashed {
		length = "/" + length
	}
	if hidden, ok := strings.CutSuffix(body, "x"); ok {
		return m.hidden(hidden) + "x" + length
	}
	core, before, after := punctuated(body)
	if a, err := netip.ParseAddr(core); err == nil {
		if bits, err := strconv.Atoi(strings.TrimPrefix(length, "/")); err == nil && bits <= a.BitLen() && after == "" {
			return before + m.prefix(netip.PrefixFrom(a, bits)).String()
		}
		return before + m.addr(a).String() + after + length
	}
	if a, err := netip.ParseAddrPort(core); err == nil {
		return before + m.addrPort(a).String() + after + length
	}
	return dotted.ReplaceAllStringFunc(body, func(s string) string {
		if a, err := netip.ParseAddr(s); err == nil {
			return m.addr(a).String()
		}
		return s
	}) + length
}

// punctuated takes off what belongs to the sentence around an address.
func punctuated(s string) (core, before, after string) {
	core = strings.TrimLeft(s, ".")
	if strings.HasPrefix(core, ":") && !strings.HasPrefix(core, "::") {
		core = core[1:]
	}
	before = s[:len(s)-len(core)]
	all := core
	core = strings.TrimRight(core, ".")
	if strings.HasSuffix(core, ":") && !strings.HasSuffix(core, "::") {
		core = core[:len(core)-1]
	}
	return core, before, all[len(core):]
}

// hidden masks the network of an address whose last part is hidden (correlate.Mask).
func (m *masker) hidden(s string) string {
	const bits4, bits6 = 24, 48
	if strings.HasSuffix(s, ".") {
		if a, err := netip.ParseAddr(s + "0"); err == nil && a.Is4() {
			out := m.prefix(netip.PrefixFrom(a, bits4)).Addr().String()
			return strings.TrimSuffix(out, "0")
		}
	}
	if a, err := netip.ParseAddr(s); err == nil && strings.HasSuffix(s, "::") {
		return m.prefix(netip.PrefixFrom(a, bits6)).Addr().String()
	}
	return m.digits(s)
}
